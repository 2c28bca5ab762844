//! What stands at a tree's birth node while the tree runs elsewhere, and what has a program placed.

use std::process::ExitCode;

fn main() -> ExitCode {
    xos_ssi::ghost::ghost_main(std::env::args_os())
}
