//! sshd's `AuthorizedPrincipalsCommand`: small, so that each login starts it quickly.

use std::process::ExitCode;

fn main() -> ExitCode {
    let text = |a: std::ffi::OsString| a.to_string_lossy().into_owned();
    xos_node::principals::principals_main(std::env::args_os().skip(1).map(text))
}
