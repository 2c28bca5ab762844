//! A cell of a cluster's node: its launcher, and its init, which stays.

use std::process::ExitCode;

fn main() -> ExitCode {
    xos_ssi::cell::cell_main(std::env::args_os().skip(1))
}
