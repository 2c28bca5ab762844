//! Who is at the other end of a local socket, by the kernel's word.

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use std::io;
use std::os::unix::net::UnixStream;

/// A process that connected, as it was then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// Its pid, as this process sees it; 0: it does not.
    pub pid: i32,
    /// As whom it runs.
    pub uid: u32,
}

/// The user who connected.
///
/// # Errors
/// The kernel's error.
pub fn uid(socket: &UnixStream) -> io::Result<u32> {
    who(socket).map(|who| who.uid)
}

/// The process that connected.
///
/// Not by rustix, whose pids are never 0: that of a process outside of this one's pid namespace is,
/// and what it makes of such an answer is no answer.
///
/// # Errors
/// The kernel's error.
pub fn who(socket: &UnixStream) -> io::Result<Who> {
    let peer = getsockopt(socket, PeerCredentials)?;
    Ok(Who { pid: peer.pid(), uid: peer.uid() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_made_a_pair_is_at_both_ends() {
        // wrong: nobody could talk to a cell or a shim, or everybody
        let (a, b) = UnixStream::pair().unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!((uid(&a).unwrap(), uid(&b).unwrap()), (own, own));
        assert_eq!(who(&a).unwrap().pid, std::process::id() as i32);
    }
}
