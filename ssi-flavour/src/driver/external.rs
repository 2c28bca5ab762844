//! Descriptors whose other end is outside a tree.

use rustix::fs::{FileType, fstat};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::os::fd::AsFd;

/// A descriptor that a tree shares with what is outside, by the names that CRIU has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ExternalFd {
    /// A pipe. What was unread in it stays outside.
    Pipe {
        /// Its inode.
        inode: u64,
    },
    /// A Unix socket with its peer outside.
    Socket {
        /// Its inode.
        inode: u64,
    },
    /// A terminal whose master is outside.
    Tty {
        /// Device number of the terminal (`st_rdev`).
        rdev: u64,
        /// Device number of the file system it is on (`st_dev`).
        dev: u64,
    },
}

impl ExternalFd {
    /// What `fd` is; `None`: neither pipe, socket nor character device.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn of(fd: impl AsFd) -> std::io::Result<Option<ExternalFd>> {
        let stat = fstat(fd)?;
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo => Some(ExternalFd::Pipe { inode: stat.st_ino }),
            FileType::Socket => Some(ExternalFd::Socket { inode: stat.st_ino }),
            FileType::CharacterDevice => {
                Some(ExternalFd::Tty { rdev: stat.st_rdev, dev: stat.st_dev })
            }
            _ => None,
        })
    }

    /// The value of CRIU's `--external` when it is saved; a pipe needs none.
    pub fn dump_argument(&self) -> Option<String> {
        match self {
            ExternalFd::Pipe { .. } => None,
            ExternalFd::Socket { inode } => Some(format!("unix[{inode}]")),
            ExternalFd::Tty { .. } => Some(self.to_string()),
        }
    }
}

/// The key of CRIU's `--inherit-fd`.
impl fmt::Display for ExternalFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExternalFd::Pipe { inode } => write!(f, "pipe:[{inode}]"),
            ExternalFd::Socket { inode } => write!(f, "socket:[{inode}]"),
            ExternalFd::Tty { rdev, dev } => write!(f, "tty[{rdev:x}:{dev:x}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, CRIU would refuse the tree, or give it another's descriptor.
    #[test]
    fn descriptors_have_the_names_that_criu_gives_them() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let link = |fd: std::os::fd::RawFd| {
            std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap().display().to_string()
        };
        let pipe = ExternalFd::of(&reader).unwrap().unwrap();
        assert_eq!(pipe.to_string(), link(std::os::fd::AsRawFd::as_raw_fd(&reader)));
        assert_eq!(pipe.dump_argument(), None);
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = ExternalFd::of(&one).unwrap().unwrap();
        let named = link(std::os::fd::AsRawFd::as_raw_fd(&one));
        assert_eq!(socket.to_string(), named);
        assert_eq!(socket.dump_argument(), Some(named.replace("socket:", "unix")));
        let tty = ExternalFd::Tty { rdev: 0x8803, dev: 0x1a };
        assert_eq!(tty.dump_argument().as_deref(), Some("tty[8803:1a]"));
        assert_eq!(ExternalFd::of(std::fs::File::open("/proc/self/stat").unwrap()).unwrap(), None);
    }
}
