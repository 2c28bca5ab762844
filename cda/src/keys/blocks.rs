//! Files of keys: PEM (RFC 7468), each block with one line before it that says more of it.

use super::pem;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use xos_base::Error;
use zeroize::Zeroizing;

/// Most blocks in one file.
pub(crate) const BLOCKS_MAX: usize = 128;

/// A block.
#[derive(Clone)]
pub(crate) struct Block {
    /// The line before it; empty: none.
    pub(crate) note: String,
    /// What it is.
    pub(crate) label: String,
    /// Its content.
    pub(crate) bytes: Zeroizing<Vec<u8>>,
}

impl Block {
    /// Without a note.
    pub(crate) fn new(label: &str, bytes: &[u8]) -> Block {
        Block {
            note: String::new(),
            label: label.to_owned(),
            bytes: Zeroizing::new(bytes.to_vec()),
        }
    }
}

/// Reads the blocks in `text`.
pub(crate) fn read(text: &str) -> Result<Vec<Block>, &'static str> {
    let (mut blocks, mut note) = (Vec::new(), String::new());
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(label) = between(line, "-----BEGIN ") else {
            if !line.is_empty() {
                line.clone_into(&mut note);
            }
            continue;
        };
        let mut content = Zeroizing::new(String::new());
        loop {
            match lines.next() {
                None => return Err("a block has no end"),
                Some(line) if between(line, "-----END ") == Some(label) => break,
                Some(line) => content.push_str(line),
            }
        }
        if blocks.len() == BLOCKS_MAX {
            return Err("it has too many blocks");
        }
        let bytes = STANDARD.decode(content.as_bytes()).map_err(|_| "a block is no base64")?;
        let (label, bytes) = (label.to_owned(), Zeroizing::new(bytes));
        blocks.push(Block { note: std::mem::take(&mut note), label, bytes });
    }
    Ok(blocks)
}

/// What stands in `line` between `start` and the five dashes at its end.
fn between<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.strip_prefix(start)?.strip_suffix("-----")
}

/// The text of a file with these blocks.
pub(crate) fn write(blocks: &[Block]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::new());
    for block in blocks {
        if !block.note.is_empty() {
            text.push_str(&block.note);
            text.push('\n');
        }
        text.push_str(&Zeroizing::new(pem(&block.label, &block.bytes)));
    }
    text
}

/// A file of the site's keys that cannot be read.
pub(crate) fn damaged(file: &str, what: &str) -> Error {
    Error::internal(format!("the site's keys are damaged: {file}: {what}"))
        .hint("restore the folder from a backup")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// If it failed, a core would lose keys, or what is known of them, when it writes a file anew.
    #[test]
    fn what_is_written_reads_back_with_its_notes() {
        let note = r#"{"made":1}"#.to_owned();
        let blocks = [
            Block { note, ..Block::new("PRIVATE KEY", &[7; 100]) },
            Block::new("CERTIFICATE", &[]),
        ];
        let back = read(&write(&blocks)).unwrap();
        assert_eq!(back.len(), 2);
        for (a, b) in blocks.iter().zip(&back) {
            assert_eq!((&a.note, &a.label, &*a.bytes), (&b.note, &b.label, &*b.bytes));
        }
        assert!(read("").unwrap().is_empty());
        for bad in ["-----BEGIN A-----\nAAAA\n", "-----BEGIN A-----\n?\n-----END A-----\n"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        let many = write(&vec![Block::new("A", b"x"); BLOCKS_MAX + 1]);
        assert!(read(&many).is_err());
    }

    proptest! {
        /// A panic here would keep a core from starting without a word of why.
        #[test]
        fn garbage_never_panics(text in "(-----(BEGIN|END) [A-B]-----\n|[A-Z=]{0,9}\n|.{0,9}){0,9}") {
            if let Ok(blocks) = read(&text) {
                let again = read(&write(&blocks)).unwrap();
                prop_assert_eq!(blocks.len(), again.len());
            }
        }
    }
}
