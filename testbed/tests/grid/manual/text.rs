//! The blocks of code in a document.

use std::iter::Peekable;
use std::str::Lines;

/// What begins and ends a block.
const FENCE: &str = "```";

/// A block of code.
pub struct Block {
    /// The heading that it stands under.
    pub heading: String,
    /// What the document calls its language.
    pub kind: String,
    /// Its lines as they stand there.
    pub lines: Vec<String>,
}

impl Block {
    /// The first line: with the heading and the kind it tells blocks apart.
    pub fn first(&self) -> &str {
        self.lines.first().map(String::as_str).unwrap_or_default()
    }

    /// The lines, as a text.
    pub fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// What a shell reads as one command each.
    pub fn commands(&self) -> Vec<String> {
        let text = self.text().replace("\\\n", " ");
        text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
    }
}

/// The blocks of `document` before the heading `end`, in order.
pub fn blocks(document: &str, end: &str) -> Vec<Block> {
    let (mut found, mut heading) = (Vec::new(), String::new());
    let mut lines = document.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.trim_start().strip_prefix(FENCE) {
            assert!(line.starts_with(FENCE), "under {heading:?} a block is indented: {line}");
            let (heading, kind) = (heading.clone(), kind.to_owned());
            found.push(Block { heading, kind, lines: inside(&mut lines) });
        } else if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim().to_owned();
            if heading == end {
                return found;
            }
        }
    }
    panic!("the document has no heading {end:?}");
}

fn inside(lines: &mut Peekable<Lines<'_>>) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(line) = lines.next_if(|line| *line != FENCE) {
        found.push(line.to_owned());
    }
    assert!(lines.next().is_some(), "a block does not end: {found:?}");
    found
}

/// If it failed, the test of the document would pass over lines that people type.
#[test]
fn blocks_are_found_with_their_headings() {
    let text = "# A\n```sh\none \\\n  two\n\n# three\n```\n## B\n```toml\n[x]\n```\n# End\n\
                ```sh\nno\n```\n";
    let found = blocks(text, "End");
    let shown: Vec<_> =
        found.iter().map(|b| (b.heading.as_str(), b.kind.as_str(), b.first())).collect();
    assert_eq!(shown, [("A", "sh", "one \\"), ("B", "toml", "[x]")]);
    assert_eq!(found[0].commands(), ["one    two", "# three"]);
    assert_eq!(found[1].text(), "[x]\n");
}
