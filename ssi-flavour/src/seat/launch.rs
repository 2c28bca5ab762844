//! From `xosd` to an agent that stands alone.

use super::proto::Plan;
use super::{LOCK_FILE, PLAN_FILE, SOCKET_FILE, holder, serve};
use crate::alone::{forget_login, listen, lock, no};
use crate::sys::{self, Forked};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// What the agent says to the launcher when it can be connected to; anything else is why not.
const READY: &str = "ready";

/// The agent's control group, below that of all.
const GROUP: &str = "agent";

/// Starts the agent of a folder; see [`super::agent_main`].
pub(super) fn run(folder: &Path) -> Result<(), String> {
    sys::close_from(3).map_err(no("close what was inherited"))?;
    sys::ignore_pipe();
    let folder = folder.canonicalize().map_err(no("find the seat's folder"))?;
    // A socket's name must be short.
    std::env::set_current_dir(&folder).map_err(no("enter the seat's folder"))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let lock = lock(LOCK_FILE)?;
    let bytes = std::fs::read(PLAN_FILE).map_err(no("read the agent's plan"))?;
    let plan: Plan = serde_json::from_slice(&bytes).map_err(no("read the agent's plan"))?;
    let listener = listen(SOCKET_FILE)?;
    let (mut from_agent, mut to_launcher) = std::io::pipe().map_err(no("make a pipe"))?;
    match sys::fork().map_err(no("fork the agent"))? {
        Forked::Parent(_) => {
            drop(to_launcher);
            let mut said = String::new();
            from_agent.read_to_string(&mut said).map_err(no("hear from the agent"))?;
            match said.as_str() {
                READY => Ok(()),
                "" => Err("the agent died while starting".to_owned()),
                why => Err(why.to_owned()),
            }
        }
        Forked::Child => {
            drop(from_agent);
            let said = detach(&plan, &lock);
            let text = said.as_ref().err().map_or(READY, String::as_str);
            // Without a launcher nobody asks.
            let told = to_launcher.write_all(text.as_bytes());
            drop(to_launcher);
            let good = said.is_ok() && told.is_ok() && serve::run(&folder, plan, listener);
            drop(lock);
            sys::exit_now(if good { 0 } else { 1 })
        }
    }
}

/// Away from `xosd`: session, sign-in, control groups, descriptors. What it writes still goes where
/// that of `xosd` went.
fn detach(plan: &Plan, lock: &File) -> Result<(), String> {
    holder::note(lock).map_err(no("write down which process the agent is"))?;
    nix::unistd::setsid().map_err(no("leave the session"))?;
    forget_login();
    let group = plan.cgroup.child(GROUP);
    group.make().and_then(|()| group.join()).map_err(no("enter its control group"))?;
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(no("open /dev/null"))?;
    nix::unistd::dup2_stdin(&null).map_err(no("let go of standard input"))?;
    nix::unistd::dup2_stdout(&null).map_err(no("let go of standard output"))?;
    rustix::thread::set_name(c"xos-agent").map_err(no("take a name"))
}
