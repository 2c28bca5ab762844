//! Who is at the other end of a local socket, by the kernel's word.

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use std::io;
use std::os::unix::net::UnixStream;

/// The user who connected.
///
/// Not by rustix, whose pids are never 0: that of a process outside of this one's pid namespace is,
/// and what it makes of such an answer is no answer.
///
/// # Errors
/// The kernel's error.
pub fn uid(socket: &UnixStream) -> io::Result<u32> {
    Ok(getsockopt(socket, PeerCredentials)?.uid())
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
    }
}
