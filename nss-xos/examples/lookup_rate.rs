//! Prints what a look-up costs in account files of 10, 10,000 and 100,000 users, through the
//! functions that glibc calls: the first one of a process, which reads and checks the file, and
//! later ones.
//!
//! Needs root: the module knows one path, over which a mount namespace of its own lays an empty
//! folder.
#![allow(clippy::print_stdout)]

use std::{error::Error, fs, path::Path, time::Instant};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use nss_xos as _;
use xos_base::accounts::{AccountsBuilder, DEFAULT_PATH, User};

const BASE: u32 = 1_879_048_192;
const SIZES: [u32; 3] = [10, 10_000, 100_000];
const LOOKUPS: u32 = 100_000;
/// Far apart in the file, so that one look-up does not warm the next.
const STRIDE: u32 = 7919;
/// What one look at the file holds, several times over.
const STALE: std::time::Duration = std::time::Duration::from_millis(50);

fn main() -> Result<(), Box<dyn Error>> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/var/lib", Some("tmpfs"), MsFlags::empty(), none)?;
    let path = Path::new(DEFAULT_PATH);
    fs::create_dir_all(path.parent().ok_or("the account file has no folder")?)?;
    for size in SIZES {
        measure(size, path)?;
    }
    Ok(())
}

fn measure(size: u32, path: &Path) -> Result<(), Box<dyn Error>> {
    let names: Vec<String> = (0..size).map(|n| format!("person{n}.demo.rennes")).collect();
    let mut builder = AccountsBuilder::new(u64::from(size));
    for (name, uid) in names.iter().zip(BASE + 10..) {
        let home = format!("/home/xos/{name}");
        let shell = "/bin/bash";
        builder.user(User { name, uid, gid: BASE, gecos: "Some Person", home: &home, shell })?;
    }
    builder.group("demo", BASE, names.iter().map(String::as_str))?;
    builder.write_atomic(path)?;
    println!("{size} users: {} bytes", fs::metadata(path)?.len());
    let start = Instant::now();
    while start.elapsed() < STALE {
        std::hint::spin_loop();
    }
    let names = names.into_iter().map(std::ffi::CString::new).collect::<Result<Vec<_>, _>>()?;
    let last = names.last().ok_or("no names")?;
    let start = Instant::now();
    check(entry::by_name(last), "the first one")?;
    println!("  first look: {:?} (read and checksum)", start.elapsed());
    let start = Instant::now();
    for n in 0..LOOKUPS {
        check(entry::by_name(&names[(n.wrapping_mul(STRIDE) % size) as usize]), "by name")?;
    }
    println!("  getpwnam: {:?} each", start.elapsed() / LOOKUPS);
    let start = Instant::now();
    for n in 0..LOOKUPS {
        check(entry::by_uid(BASE + 10 + n.wrapping_mul(STRIDE) % size), "by uid")?;
    }
    println!("  getpwuid: {:?} each", start.elapsed() / LOOKUPS);
    Ok(())
}

fn check(found: bool, what: &str) -> Result<(), String> {
    if found { Ok(()) } else { Err(format!("no answer: {what}")) }
}

/// The module's functions, as glibc calls them.
#[allow(unsafe_code)]
mod entry {
    use std::{ffi::CStr, mem, ptr};

    use libc::{c_char, c_int, passwd, size_t, uid_t};

    /// `NSS_STATUS_SUCCESS`.
    const SUCCESS: c_int = 1;
    const BUFFER_BYTES: usize = 1024;

    unsafe extern "C" {
        fn _nss_xos_getpwnam_r(
            name: *const c_char,
            result: *mut passwd,
            buffer: *mut c_char,
            length: size_t,
            errnop: *mut c_int,
        ) -> c_int;
        fn _nss_xos_getpwuid_r(
            uid: uid_t,
            result: *mut passwd,
            buffer: *mut c_char,
            length: size_t,
            errnop: *mut c_int,
        ) -> c_int;
    }

    pub(super) fn by_name(name: &CStr) -> bool {
        let mut buffer = [0; BUFFER_BYTES];
        // SAFETY: a struct of integers and pointers.
        let mut row: passwd = unsafe { mem::zeroed() };
        let at = buffer.as_mut_ptr();
        // SAFETY: all pointers are to what outlives the call; no errno is wanted.
        unsafe {
            _nss_xos_getpwnam_r(name.as_ptr(), &mut row, at, BUFFER_BYTES, ptr::null_mut())
                == SUCCESS
        }
    }

    pub(super) fn by_uid(uid: u32) -> bool {
        let mut buffer = [0; BUFFER_BYTES];
        // SAFETY: a struct of integers and pointers.
        let mut row: passwd = unsafe { mem::zeroed() };
        let at = buffer.as_mut_ptr();
        // SAFETY: all pointers are to what outlives the call; no errno is wanted.
        unsafe { _nss_xos_getpwuid_r(uid, &mut row, at, BUFFER_BYTES, ptr::null_mut()) == SUCCESS }
    }
}
