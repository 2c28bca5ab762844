//! The keeper of a cluster shell's `/proc`.

use std::process::ExitCode;

fn main() -> ExitCode {
    xos_ssi::procfs::proc_main(std::env::args_os().skip(1))
}
