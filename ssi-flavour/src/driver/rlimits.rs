//! Limits of each process of a tree that CRIU made (setrlimit(2)). CRIU sets what its images say,
//! which is another node's word, and sets nothing higher than it has itself. So what the program
//! may have here is set as well, while CRIU keeps the tree: none of its own code has run then, and
//! it cannot be raised again.

use super::error::DriverError;
use super::proc;
use crate::cell::proto::{Rlimit, RlimitKind};
use crate::program::OOM_SCORE;
use rustix::io::Errno;
use rustix::process::{Pid, Rlimit as Pair, prlimit};
use std::io::{ErrorKind, Result};

/// Has no process of the tree below `root`, as this process sees it, have more than `most`, nor be
/// spared more than other programs when memory is short.
///
/// # Errors
/// [`DriverError::Strange`] for what has more, where root may not lower that (without
/// `CAP_SYS_RESOURCE`, prlimit(2)), and those of the system.
pub(super) fn confine(root: i32, most: &[Rlimit]) -> std::result::Result<(), DriverError> {
    let limiting = |pid: i32| DriverError::system(format!("limit process {pid}"));
    for pid in proc::tree(root).map_err(limiting(root))? {
        match one(pid, most) {
            Ok(None) => {}
            Ok(Some(what)) => return Err(DriverError::Strange { pid, what }),
            Err(e) if proc::ended(&e) => {}
            Err(e) => return Err(limiting(pid)(e)),
        }
    }
    Ok(())
}

/// Limits one process. What it has too much of, and keeps.
fn one(pid: i32, most: &[Rlimit]) -> Result<Option<String>> {
    if matches!(proc::stat(pid)?.state, 'Z' | 'X') {
        return Ok(None);
    }
    // That everybody may read, other than what prlimit(2) says.
    let path = proc::of(pid, "limits");
    let limits = proc::text(&path)?;
    for limit in most {
        let name = name(limit.kind);
        let Some(had) = found(&limits, name) else {
            // Of one that ended meanwhile nothing is said.
            proc::stat(pid)?;
            return Err(proc::malformed(&path));
        };
        let Some(less) = lowered(had, limit) else { continue };
        let id = Pid::from_raw(pid).ok_or(ErrorKind::NotFound)?;
        match prlimit(Some(id), limit.kind.resource(), less) {
            Ok(_) => {}
            Err(Errno::PERM) => {
                let what = format!("it has a higher limit ({name}) than its program may have here");
                return Ok(Some(what));
            }
            Err(e) => return Err(e.into()),
        }
    }
    let path = proc::of(pid, "oom_score_adj");
    let score = |text: &str| text.trim().parse::<i32>().map_err(|_| proc::malformed(&path));
    if score(&proc::text(&path)?)? < score(OOM_SCORE)? {
        std::fs::write(&path, OOM_SCORE)?;
    }
    Ok(None)
}

/// What becomes of a limit; `None`: it is none too high.
fn lowered(had: Pair, most: &Rlimit) -> Option<Pair> {
    let hard = most.hard?;
    if had.maximum.is_some_and(|maximum| maximum <= hard) {
        return None;
    }
    let current = had.current.map_or(hard, |current| current.min(hard));
    Some(Pair { current: Some(current), maximum: Some(hard) })
}

/// A limit in a `/proc/PID/limits` (proc_pid_limits(5)).
fn found(limits: &str, name: &str) -> Option<Pair> {
    let values = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let mut values = values.split_whitespace().map(|value| match value {
        "unlimited" => Some(None),
        value => value.parse::<u64>().ok().map(Some),
    });
    let mut next = || values.next()?;
    Some(Pair { current: next()?, maximum: next()? })
}

/// What a limit is called there.
fn name(kind: RlimitKind) -> &'static str {
    match kind {
        RlimitKind::AddressSpace => "Max address space",
        RlimitKind::Core => "Max core file size",
        RlimitKind::CpuSeconds => "Max cpu time",
        RlimitKind::Data => "Max data size",
        RlimitKind::FileSize => "Max file size",
        RlimitKind::OpenFiles => "Max open files",
        RlimitKind::Locked => "Max locked memory",
        RlimitKind::Processes => "Max processes",
        RlimitKind::Stack => "Max stack size",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [RlimitKind; 9] = [
        RlimitKind::AddressSpace,
        RlimitKind::Core,
        RlimitKind::CpuSeconds,
        RlimitKind::Data,
        RlimitKind::FileSize,
        RlimitKind::OpenFiles,
        RlimitKind::Locked,
        RlimitKind::Processes,
        RlimitKind::Stack,
    ];

    fn most(kind: RlimitKind, hard: u64) -> Rlimit {
        Rlimit { kind, soft: Some(hard), hard: Some(hard) }
    }

    #[test]
    fn only_what_is_too_high_is_lowered() {
        // wrong: a program would have more than it may, or less than it had
        let pair = |current, maximum| Pair { current, maximum };
        let files = most(RlimitKind::OpenFiles, 64);
        assert_eq!(lowered(pair(Some(10), Some(64)), &files), None);
        let too_high = [pair(None, None), pair(Some(100), Some(100)), pair(Some(64), Some(65))];
        for had in too_high {
            assert_eq!(lowered(had, &files), Some(pair(Some(64), Some(64))), "{had:?}");
        }
        let low = pair(Some(10), Some(100));
        assert_eq!(lowered(low, &files), Some(pair(Some(10), Some(64))));
        assert_eq!(lowered(low, &Rlimit { hard: None, ..files }), None);
    }

    #[test]
    fn the_kernel_s_own_words_are_understood() {
        // wrong: no program could be made, or one would be taken for limited that is not
        let own = proc::text(&proc::of(std::process::id().try_into().unwrap(), "limits")).unwrap();
        for kind in KINDS {
            let has = rustix::process::getrlimit(kind.resource());
            // The other one may be changed by another test meanwhile.
            assert_eq!(found(&own, name(kind)).unwrap().maximum, has.maximum, "{kind:?}");
        }
        let seven = Pair { current: Some(7), maximum: None };
        let text = "Max processes             7            unlimited            processes\n";
        assert_eq!(found(text, "Max processes"), Some(seven));
        assert_eq!(found(&own, "Max of something else"), None);
        assert_eq!(found("Max processes   7", "Max processes"), None);
    }

    #[test]
    fn a_process_and_its_children_have_no_more_than_they_may() {
        // wrong: what images say would count on a node that lets programs have less
        let text = "sleep 1000 & echo; wait";
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", text])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let tree = proc::tree(pid).unwrap();
        assert_eq!(tree.len(), 2, "{tree:?}");
        let limits = [most(RlimitKind::OpenFiles, 32), most(RlimitKind::Core, 0)];
        confine(pid, &limits).unwrap();
        confine(pid, &limits).unwrap();
        for pid in &tree {
            let said = proc::text(&proc::of(*pid, "limits")).unwrap();
            for limit in &limits {
                assert_eq!(found(&said, name(limit.kind)).unwrap().maximum, limit.hard, "{said}");
            }
            let score = proc::text(&proc::of(*pid, "oom_score_adj")).unwrap();
            let (score, least) = (score.trim().parse::<i32>(), OOM_SCORE.parse::<i32>());
            assert!(score.unwrap() >= least.unwrap());
        }
        for pid in tree {
            crate::sys::kill(pid, libc::SIGKILL).unwrap();
        }
        child.wait().unwrap();
    }
}
