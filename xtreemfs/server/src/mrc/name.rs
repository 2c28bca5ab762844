//! Names of directory entries.

use xtreemfs_proto::mrc::{NAME_BYTES_MAX, SYMLINK_BYTES_MAX};
use xtreemfs_proto::{Errno, RpcError};

/// A name that may stand in a directory: 1 to 255 bytes without `/` and NUL, not `.` or `..`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// Checks a name.
    ///
    /// # Errors
    /// `ENAMETOOLONG` or `EINVAL`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RpcError> {
        if bytes.len() > NAME_BYTES_MAX {
            let text = format!("name of {} bytes: the limit is {NAME_BYTES_MAX}", bytes.len());
            return Err(RpcError::errno(Errno::ENAMETOOLONG, text));
        }
        if matches!(bytes, b"" | b"." | b"..") || bytes.iter().any(|b| matches!(b, b'/' | 0)) {
            let text = "name is empty, `.`, `..`, or holds `/` or NUL";
            return Err(RpcError::errno(Errno::EINVAL, text));
        }
        Ok(Self(bytes))
    }

    /// The bytes.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// Checks the target of a symbolic link.
///
/// # Errors
/// `ENAMETOOLONG` or `EINVAL`.
pub fn check_target(target: &[u8]) -> Result<(), RpcError> {
    if target.len() > SYMLINK_BYTES_MAX {
        let text = format!("link target of {} bytes: limit {SYMLINK_BYTES_MAX}", target.len());
        return Err(RpcError::errno(Errno::ENAMETOOLONG, text));
    }
    if target.is_empty() || target.contains(&0) {
        return Err(RpcError::errno(Errno::EINVAL, "link target is empty or holds NUL"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names go into keys and later into people's shells: what POSIX forbids must not get in, and
    /// what it allows (a newline, bytes that are no UTF-8) must.
    #[test]
    fn names() {
        for good in [&b"a"[..], b"a\nb", b"\xff\xfe", b"...", &[b'x'; 255]] {
            assert!(Name::parse(good).is_ok(), "{good:?}");
        }
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0"] {
            assert_eq!(Name::parse(bad).unwrap_err().errno, Errno::EINVAL, "{bad:?}");
        }
        assert_eq!(Name::parse(&[b'x'; 300]).unwrap_err().errno, Errno::ENAMETOOLONG);
        assert!(check_target(&[b'x'; 4095]).is_ok());
        assert_eq!(check_target(&[b'x'; 4096]).unwrap_err().errno, Errno::ENAMETOOLONG);
    }
}
