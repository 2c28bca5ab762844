//! The shim as a program of its own: small, so that it and its children start fast.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    xos_node::shim::shim_main(&args)
}
