//! The NSS module: users and groups of XOS from the account file, and new ones from the node.
//!
//! Loaded by glibc into every process that looks up a name, set-user-id programs among them: so no
//! environment, no configuration, no thread; the paths are constants. No daemon is needed: the
//! node's `xosd` is asked only for grid users whom the file does not have. Installed as
//! `libnss_xos.so.2` and named in `/etc/nsswitch.conf` (`passwd: files xos`, and so for `group` and
//! `shadow`).

mod asking;
#[allow(unsafe_code)]
mod ffi;
mod status;
