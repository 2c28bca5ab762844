//! The shim as a program of its own: small, so that it and its children start fast.

use std::process::ExitCode;

fn main() -> ExitCode {
    xos_node::shim::shim_main(std::env::args_os().skip(1))
}
