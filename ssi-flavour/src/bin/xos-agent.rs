//! A node's agent in a cluster: its launcher, and the agent, which stays.

use std::process::ExitCode;

fn main() -> ExitCode {
    xos_ssi::seat::agent_main(std::env::args_os().skip(1))
}
