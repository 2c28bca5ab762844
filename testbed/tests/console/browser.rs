//! A headless Chromium with a home of its own, and its pages.

use crate::wire::{PATIENCE, Wire};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Debian's Chromium.
pub const CHROMIUM: &str = "/usr/bin/chromium";
/// Keeps the store of certificates that Chromium reads; of the package libnss3-tools.
pub const CERTUTIL: &str = "/usr/bin/certutil";
/// Chromium's protocol is on its descriptors 3 and 4: the shell puts ours there.
const ON_3_AND_4: &str = "exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>&2";
const FLAGS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
];
/// How often to look whether Chromium has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running Chromium.
pub struct Browser {
    child: Child,
    wire: Rc<RefCell<Wire>>,
    /// What is wrong with the pages seen so far.
    pub flaws: Rc<RefCell<BTreeSet<String>>>,
    // Removed after Chromium has ended.
    _home: TempDir,
}

impl Browser {
    /// Starts one that trusts the certificate in the file `root`, as when a person imports it, and
    /// nothing else of ours: names, dates, key usage and chain are checked as always.
    pub fn start(root: Option<&Path>) -> Browser {
        let home = tempfile::tempdir().expect("a temporary folder");
        if let Some(root) = root {
            trust(home.path(), root);
        }
        let log = std::fs::File::create(home.path().join("log")).expect("a log");
        let (reads, to) = std::io::pipe().expect("a pipe");
        let (from, writes) = std::io::pipe().expect("a pipe");
        let child = Command::new("/bin/sh")
            .args(["-c", ON_3_AND_4, CHROMIUM])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", home.path().join("profile").display()))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", home.path())
            .env("TMPDIR", home.path())
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(reads)))
            .stdout(Stdio::from(std::os::fd::OwnedFd::from(writes)))
            .stderr(log)
            .spawn()
            .expect("Chromium starts");
        let wire = Rc::new(RefCell::new(Wire::new(to, from)));
        Browser { child, wire, flaws: Rc::default(), _home: home }
    }

    /// A page in a profile of its own: no cookie is shared with another one. `scripts`: whether
    /// the pages' own scripts run.
    pub fn page(&self, origin: &str, scripts: bool) -> Page {
        let call = |method: &str, params: Value| {
            self.wire.borrow_mut().call(None, method, params).expect("Chromium's answer")
        };
        let context = call("Target.createBrowserContext", json!({}));
        let context = context["browserContextId"].as_str().expect("a context").to_owned();
        let target = call(
            "Target.createTarget",
            json!({ "url": "about:blank", "browserContextId": context }),
        );
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = call("Target.attachToTarget", attach)["sessionId"].clone();
        let page = Page {
            wire: self.wire.clone(),
            flaws: self.flaws.clone(),
            session: session.as_str().expect("a session").to_owned(),
            origin: origin.to_owned(),
        };
        for domain in ["Page", "Network", "Runtime", "Log"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        if !scripts {
            page.call("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
        }
        page.resize(DESKTOP);
        page
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // When it ended before us, the answer is an error, and there is nothing to do.
        let closed = self.wire.borrow_mut().call(None, "Browser.close", json!({}));
        let deadline = Instant::now() + PATIENCE;
        while closed.is_ok() && Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        if let Err(e) = self.child.kill().and_then(|()| self.child.wait()) {
            println!("Chromium (pid {}) did not end: {e}", self.child.id());
        }
    }
}

/// Makes `root` an authority for web servers in the store of `home`.
fn trust(home: &Path, root: &Path) {
    let store = home.join(".pki/nssdb");
    std::fs::create_dir_all(&store).expect("a folder");
    let store = format!("sql:{}", store.display());
    let root = root.to_str().expect("a plain path");
    let add = ["-A", "-t", "C,,", "-n", "site", "-i", root];
    for args in [["-N", "--empty-password"].as_slice(), add.as_slice()] {
        let done = Command::new(CERTUTIL).args(["-d", &store]).args(args).output();
        let done = done.expect("certutil starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

/// Width and height in CSS pixels.
pub type Size = (u32, u32);
/// A desk.
pub const DESKTOP: Size = (1280, 800);
/// A phone of today.
pub const PHONE: Size = (390, 844);

/// A tab.
pub struct Page {
    wire: Rc<RefCell<Wire>>,
    session: String,
    /// What is wrong with the pages seen so far.
    pub flaws: Rc<RefCell<BTreeSet<String>>>,
    /// `https://host:port` of the console.
    pub origin: String,
}

impl Page {
    /// Calls a method of the protocol.
    pub fn call(&self, method: &str, params: Value) -> Value {
        let answer = self.wire.borrow_mut().call(Some(&self.session), method, params);
        answer.unwrap_or_else(|e| panic!("{e}"))
    }

    /// What happened in it.
    pub fn trace<T>(&self, read: impl FnOnce(&mut crate::wire::Trace) -> T) -> T {
        read(self.wire.borrow_mut().trace(&self.session))
    }

    /// What a JavaScript expression is worth. It is ours, not the page's: it runs where the page's
    /// scripts do not.
    pub fn eval(&self, expression: &str) -> Value {
        self.try_eval(expression).unwrap_or_else(|e| panic!("{e}\nin: {expression}"))
    }

    fn try_eval(&self, expression: &str) -> Result<Value, String> {
        let ask = json!({ "expression": expression, "returnByValue": true });
        let answer = self.wire.borrow_mut().call(Some(&self.session), "Runtime.evaluate", ask)?;
        match answer.get("exceptionDetails") {
            Some(e) => Err(e["exception"]["description"].to_string()),
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    /// Does `act`, and waits until the document that it leads to is loaded.
    pub fn load(&self, act: impl FnOnce()) {
        let before = self.trace(|t| t.loads);
        act();
        let deadline = Instant::now() + PATIENCE;
        while self.trace(|t| t.loads) == before {
            let came = self.wire.borrow_mut().pump(deadline).expect("Chromium goes on");
            assert!(
                came,
                "nothing was loaded in {PATIENCE:?}: {:?}",
                self.trace(|t| t.document.take())
            );
        }
    }

    /// Opens an address; what the network said when that failed.
    pub fn open(&self, url: &str) -> Result<(), String> {
        let mut failed = None;
        self.load(|| {
            let answer = self.call("Page.navigate", json!({ "url": url }));
            failed = answer["errorText"].as_str().map(str::to_owned);
        });
        failed.map_or(Ok(()), Err)
    }

    /// Waits until an expression is true, and answers what it is worth.
    pub fn until(&self, what: &str, expression: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut last = Value::Null;
        while Instant::now() < deadline {
            // A document that goes away takes the expression with it.
            if let Ok(value) = self.try_eval(expression) {
                if !matches!(value, Value::Null | Value::Bool(false)) && value != "" {
                    return value;
                }
                last = value;
            }
            let look = Instant::now() + Duration::from_millis(50);
            while self.wire.borrow_mut().pump(look).expect("Chromium goes on") {}
        }
        panic!("{what}: not in {PATIENCE:?} (last: {last}); the page says:\n{}", self.text("main"));
    }

    /// Presses the mouse on an element that can be seen and is not covered.
    pub fn click(&self, selector: &str) {
        let at = self.eval(&format!(
            "(() => {{ const e = document.querySelector({s}); if (!e) return 'is not there';
             e.scrollIntoView({{ block: 'center', behavior: 'instant' }});
             const r = e.getClientRects()[0]; if (!r) return 'cannot be seen';
             const [x, y] = [r.x + r.width / 2, r.y + r.height / 2];
             const hit = document.elementFromPoint(x, y);
             if (!e.contains(hit)) return 'is covered by ' + (hit && hit.outerHTML.slice(0, 200));
             return [x, y]; }})()",
            s = json!(selector)
        ));
        let (Some(x), Some(y)) = (at[0].as_f64(), at[1].as_f64()) else {
            panic!("{selector} {at}; the page says:\n{}", self.text("main"));
        };
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Makes it the page in front, to which keys go.
    pub fn in_front(&self) {
        self.call("Emulation.setFocusEmulationEnabled", json!({ "enabled": true }));
    }

    /// Presses a key: `Tab` or `Enter`.
    pub fn press(&self, key: &str) {
        let (number, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            _ => panic!("{key} is no key that this presses"),
        };
        let down = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        for (kind, text) in [(down, text), ("keyUp", "")] {
            let event = json!({
                "type": kind, "key": key, "code": key, "text": text,
                "windowsVirtualKeyCode": number,
            });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Types into a field instead of what stands there.
    pub fn fill(&self, selector: &str, text: &str) {
        self.click(selector);
        self.eval(&format!("document.querySelector({}).select()", json!(selector)));
        self.call("Input.insertText", json!({ "text": text }));
        let typed = self.eval(&format!("document.querySelector({}).value", json!(selector)));
        assert_eq!(typed, text, "{selector} did not take what was typed");
    }

    /// Chooses in the field of this name inside `form`: a list, or one of several boxes.
    pub fn choose(&self, form: &str, name: &str, value: &str) {
        let done = self.eval(&format!(
            "(() => {{ for (const e of document.querySelector({}).elements) {{
                 if (e.name !== {}) continue;
                 const o = [...(e.options ?? [e])].find((o) => o.value === {});
                 if (o) return (o.selected = o.checked = true);
             }} return false; }})()",
            json!(form),
            json!(name),
            json!(value)
        ));
        assert_eq!(done, true, "{name} of {form} does not offer {value}");
    }

    /// What a person reads in an element; empty when it is not there.
    pub fn text(&self, selector: &str) -> String {
        let text = self.eval(&format!("document.querySelector({})?.innerText", json!(selector)));
        text.as_str().unwrap_or_default().trim().to_owned()
    }

    /// Whether there is such an element.
    pub fn has(&self, selector: &str) -> bool {
        self.eval(&format!("document.querySelector({}) !== null", json!(selector))) == true
    }

    /// The path of its address.
    pub fn path(&self) -> String {
        self.eval("location.pathname").as_str().unwrap_or_default().to_owned()
    }

    /// Changes the window.
    pub fn resize(&self, (width, height): Size) {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// The window's picture, as PNG in base64.
    pub fn picture(&self) -> String {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        shot["data"].as_str().expect("a picture").to_owned()
    }
}
