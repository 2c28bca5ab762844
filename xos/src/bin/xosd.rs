//! The daemon of XOS.

use std::process::ExitCode;

fn main() -> ExitCode {
    xos::daemon::main()
}
