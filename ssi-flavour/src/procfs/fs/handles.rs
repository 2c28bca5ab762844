//! What programs have open: a text or a list stays as it was until it is read from its start again.

use super::super::inode::Node;
use fuser::{Errno, FileType};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Most files and folders that a shell's programs have open at once.
const OPEN_MAX: usize = 4096;
/// Most bytes that these hold.
const OPEN_BYTES_MAX: usize = 64 << 20;
/// What an entry of a list takes beside its name, about.
const LISTED_BYTES: usize = 64;

/// An entry of a folder.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) node: Node,
    pub(super) kind: FileType,
    pub(super) name: String,
}

impl Listed {
    pub(super) fn folder(node: Node, name: &str) -> Listed {
        Listed { node, kind: FileType::Directory, name: name.to_owned() }
    }
}

/// What is open.
#[derive(Debug)]
pub(super) enum Open {
    Text(Vec<u8>),
    List(Vec<Listed>),
}

impl Open {
    fn bytes(&self) -> usize {
        match self {
            Open::Text(text) => text.len(),
            Open::List(list) => list.iter().map(|l| l.name.len() + LISTED_BYTES).sum(),
        }
    }
}

/// All that is open.
#[derive(Debug, Default)]
pub(super) struct Handles(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    last: u64,
    open: HashMap<u64, Open>,
}

impl Handles {
    fn with<T>(&self, work: impl FnOnce(&mut Table) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps a file open, of which nothing was read.
    ///
    /// # Errors
    /// `ENFILE` when too many are.
    pub(super) fn open(&self) -> Result<u64, Errno> {
        self.with(|table| {
            if table.open.len() >= OPEN_MAX {
                return Err(Errno::ENFILE);
            }
            table.last += 1;
            table.open.insert(table.last, Open::Text(Vec::new()));
            Ok(table.last)
        })
    }

    pub(super) fn close(&self, handle: u64) {
        self.with(|table| table.open.remove(&handle));
    }

    /// It is read from its start: what it says now.
    ///
    /// # Errors
    /// `ENFILE` when all that is open says too much.
    pub(super) fn renew(&self, handle: u64, open: Open) -> Result<(), Errno> {
        self.with(|table| {
            let others = table.open.iter().filter(|(other, _)| **other != handle);
            let held: usize = others.map(|(_, open)| open.bytes()).sum();
            if held.saturating_add(open.bytes()) > OPEN_BYTES_MAX {
                return Err(Errno::ENFILE);
            }
            if let Some(old) = table.open.get_mut(&handle) {
                *old = open;
            }
            Ok(())
        })
    }

    /// Gives away part of a text; nothing behind its end.
    pub(super) fn read(&self, handle: u64, offset: u64, size: u32, give: impl FnOnce(&[u8])) {
        self.with(|table| {
            let Some(Open::Text(text)) = table.open.get(&handle) else { return give(&[]) };
            let (from, size) = (usize::try_from(offset), usize::try_from(size));
            let rest = from.ok().and_then(|from| text.get(from..)).unwrap_or(&[]);
            give(&rest[..rest.len().min(size.unwrap_or(0))]);
        });
    }

    /// Gives away entries from an offset on, each with the offset after it, until `full`.
    pub(super) fn list(
        &self,
        handle: u64,
        offset: u64,
        mut full: impl FnMut(u64, &Listed) -> bool,
    ) {
        self.with(|table| {
            let Some(Open::List(list)) = table.open.get(&handle) else { return };
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            for (at, listed) in list.iter().enumerate().skip(from) {
                let after = u64::try_from(at).unwrap_or(u64::MAX).saturating_add(1);
                if full(after, listed) {
                    return;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_the_whole_and_what_is_open_is_bounded() {
        // wrong: a long file would be torn, or a program that opens without end eat the memory
        let handles = Handles::default();
        let handle = handles.open().unwrap();
        handles.renew(handle, Open::Text(b"0123456789".to_vec())).unwrap();
        let read = |offset, size| {
            let mut got = Vec::new();
            handles.read(handle, offset, size, |bytes| got = bytes.to_vec());
            got
        };
        assert_eq!([read(0, 4), read(4, 4), read(8, 4)].concat(), b"0123456789");
        assert!(read(10, 4).is_empty() && read(u64::MAX, 4).is_empty());
        let mut open = 1;
        while handles.open().is_ok() {
            open += 1;
        }
        assert_eq!(open, OPEN_MAX);
        assert!(handles.renew(handle, Open::Text(vec![0; OPEN_BYTES_MAX + 1])).is_err());
        let list = ["a", "b", "c"].map(|name| Listed::folder(Node::Root, name)).to_vec();
        handles.renew(handle, Open::List(list)).unwrap();
        let mut names = String::new();
        handles.list(handle, 1, |after, listed| {
            names += &format!("{after}{}", listed.name);
            false
        });
        assert_eq!(names, "2b3c");
        handles.list(handle, u64::MAX, |_, _| panic!("nothing is there"));
    }
}
