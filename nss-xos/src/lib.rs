//! The NSS module: users and groups of XOS from the mapped account file.
//!
//! Loaded by glibc into every process that looks up a name, set-user-id programs among them: so no
//! environment, no configuration, no daemon, no thread; the file's path is a constant. Installed as
//! `libnss_xos.so.2` and named in `/etc/nsswitch.conf` (`passwd: files xos`, `group: files xos`).

#[allow(unsafe_code)]
mod ffi;
mod status;
