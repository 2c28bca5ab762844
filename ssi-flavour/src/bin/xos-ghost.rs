//! What stands at a tree's birth node while the tree runs elsewhere.

use std::process::ExitCode;

fn main() -> ExitCode {
    xos_ssi::ghost::ghost_main(std::env::args_os().skip(1))
}
