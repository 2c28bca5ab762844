//! axe-core of npm looks a page over. It runs in a world of its own beside the page's scripts: the
//! page's policy stays as it is, and the page sees nothing of it.

use crate::browser::Page;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What it found that keeps people out, a line for each element; what it calls minor or moderate
/// is left. It asks for nothing by the network.
const LOOK: &str = "((options) => axe.run(document, options).then((found) => found.violations
    .filter((v) => v.impact === 'serious' || v.impact === 'critical')
    .flatMap((v) => v.nodes.map((n) => v.id + ' (' + v.impact + '): ' + n.html.slice(0, 160)
        + ' ' + n.failureSummary.replace(/\\s+/g, ' ').slice(0, 240)))))";

/// The program.
pub struct Axe {
    script: String,
}

impl Axe {
    /// Where `make deps-axe` puts it.
    pub fn path() -> PathBuf {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        tree.join("target/axe/node_modules/axe-core/axe.min.js")
    }

    /// Reads it; `None`, with the reason told, where it is not installed.
    pub fn load() -> Option<Axe> {
        let path = Axe::path();
        if !path.exists() {
            println!("skipped: no {}; `make deps-axe` brings it", path.display());
            return None;
        }
        let script = std::fs::read_to_string(&path).expect("axe-core");
        // Nothing but a number comes back from it.
        Some(Axe { script: script + "\n;0" })
    }

    /// What is wrong with the page as it is now, by day.
    pub fn look(&self, page: &Page) -> Vec<String> {
        self.run(page, &json!({ "preload": false, "resultTypes": ["violations"] }))
    }

    /// The same of its colours by night.
    pub fn look_by_night(&self, page: &Page) -> Vec<String> {
        let scheme = |value: &str| {
            let feature = json!([{ "name": "prefers-color-scheme", "value": value }]);
            page.call("Emulation.setEmulatedMedia", json!({ "features": feature }));
        };
        scheme("dark");
        let only = json!({ "type": "rule", "values": ["color-contrast"] });
        let found = self.run(page, &json!({ "preload": false, "runOnly": only }));
        scheme("");
        found.into_iter().map(|f| format!("by night: {f}")).collect()
    }

    fn run(&self, page: &Page, options: &Value) -> Vec<String> {
        let tree = page.call("Page.getFrameTree", json!({}));
        let world = json!({ "frameId": tree["frameTree"]["frame"]["id"], "worldName": "axe" });
        let context = page.call("Page.createIsolatedWorld", world)["executionContextId"].clone();
        let run = |expression: &str| {
            let ask = json!({
                "expression": expression, "contextId": context, "awaitPromise": true,
                "returnByValue": true,
            });
            let answer = page.call("Runtime.evaluate", ask);
            let failed = &answer["exceptionDetails"];
            assert!(failed.is_null(), "axe-core failed on {}: {failed}", page.path());
            answer["result"]["value"].clone()
        };
        run(&self.script);
        let found = run(&format!("{LOOK}({options})"));
        let found = found.as_array().expect("a list of findings");
        found.iter().map(|f| f.as_str().unwrap_or_default().to_owned()).collect()
    }
}
