//! What a cell's init has of its own: memory, keyring, namespaces, mounts.

use crate::alone::no;
use crate::sys;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{DumpableBehavior, setpriority_process};
use std::path::Path;

/// Where POSIX shared memory lies (shm_overview(7)).
const SHARED_MEMORY: &str = "/dev/shm";
/// Init goes before those who make processes faster than it looks; see setpriority(2).
const PRIORITY: i32 = -20;

/// Takes them. This process's pid as the node sees it.
pub(super) fn take() -> Result<i32, String> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(no("keep memory to itself"))?;
    sys::new_session_keyring().map_err(no("leave root's keyring"))?;
    // Still the node's /proc.
    let pid = std::fs::read_link("/proc/self").map_err(no("read /proc/self"))?;
    let pid = pid.to_str().and_then(|p| p.parse().ok()).ok_or("/proc/self is no number")?;
    // Fails only where root is not allowed to; then a fork bomb may get pids that are no node's,
    // which the status shows.
    let _unprivileged = setpriority_process(None, PRIORITY);
    std::env::set_current_dir("/").map_err(no("enter /"))?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC)
        .map_err(no("make a mount and an IPC namespace"))?;
    // Mounts made on the node later appear here too; nothing mounted here appears there.
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>)
        .map_err(no("separate the mounts"))?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), plain, Some("hidepid=2"))
        .map_err(no("mount /proc for the cell"))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(no("read the mounts"))?;
    if !hides_others(&mounts) {
        return Err("this kernel does not hide the processes of others in /proc (hidepid=2), \
                    so that persons would see each other's"
            .to_owned());
    }
    if Path::new(SHARED_MEMORY).is_dir() {
        let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), SHARED_MEMORY, Some("tmpfs"), plain, Some("mode=1777"))
            .map_err(no("mount shared memory for the cell"))?;
    }
    Ok(pid)
}

/// Whether the `/proc` on top, the last in the list, shows a person's own processes only; see
/// proc_pid_mountinfo(5).
fn hides_others(mounts: &str) -> bool {
    let top = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc"));
    let options = top.and_then(|line| line.split(" - ").nth(1)?.split(' ').nth(2));
    let hidden = ["hidepid=2", "hidepid=invisible"];
    options.is_some_and(|o| o.split(',').any(|o| hidden.contains(&o)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proc_on_top_must_hide_others() {
        // wrong: a cell would open on a kernel where persons see each other's processes
        let node = "24 1 0:22 / /proc rw,nosuid - proc proc rw";
        let own = |options: &str| format!("{node}\n90 24 0:60 / /proc rw - proc proc {options}\n");
        assert!(hides_others(&own("rw,hidepid=2")) && hides_others(&own("rw,hidepid=invisible")));
        assert!(!hides_others(&own("rw")) && !hides_others(&own("rw,hidepid=1")));
        assert!(!hides_others(""));
        let elsewhere = "90 24 0:60 / /mnt/proc rw - proc proc rw,hidepid=2";
        assert!(!hides_others(&format!("{node}\n{elsewhere}\n")));
    }
}
