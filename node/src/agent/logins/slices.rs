//! Limits of the slices into which systemd puts people's sessions.
//!
//! Where `pam_systemd` moves a session into `user-<uid>.slice`, it leaves the group of this program
//! and its limits; so systemd is told of them before the session goes on. What it is told of a
//! slice that is not there yet it keeps for when it makes it (`unit_write_setting`, unit.c).

use crate::programs::{BOOTED, run};
use crate::spec::Limits;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use xos_base::Error;

/// Tells systemd of properties of a unit until the machine's next start; the unit follows.
const SET: [&str; 3] = ["/usr/bin/systemctl", "set-property", "--runtime"];
/// Where systemd keeps what it was told so.
const KEPT: &str = "run/systemd/system.control";
/// How long the program may take: less than `pam_xos` waits for a session, so that one without
/// limits is refused.
const END_MAX: Duration = Duration::from_secs(4);

/// The limits of people's slices, and whose have them.
pub(super) struct Slices {
    limits: Limits,
    /// The program with its first arguments; `None`: systemd does not run this machine.
    command: Option<Vec<String>>,
    kept: PathBuf,
    /// Whose slices were limited since this daemon runs, which has the same limits all the time.
    done: Mutex<BTreeSet<u32>>,
}

impl Slices {
    /// For the machine below `root`.
    pub(super) fn open(limits: Limits, root: &Path) -> Slices {
        let booted = root.join(BOOTED).is_dir();
        let command = booted.then(|| SET.map(str::to_owned).to_vec());
        Slices { limits, command, kept: root.join(KEPT), done: Mutex::default() }
    }

    /// Has systemd limit a person's slice, unless that was done.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] with what the program said: there may be no limits.
    pub(super) async fn limit(&self, uid: u32) -> Result<(), Error> {
        let Some([program, first @ ..]) = self.command.as_deref() else { return Ok(()) };
        if self.done.lock().unwrap_or_else(PoisonError::into_inner).contains(&uid) {
            return Ok(());
        }
        let arguments = [first, self.words(uid).as_slice()].concat();
        run(program, &arguments, END_MAX).await.map_err(|why| {
            Error::unavailable(format!("this machine cannot limit the session: {program}: {why}"))
                .hint("tell the machine's administrator")
        })?;
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(uid);
        Ok(())
    }

    /// The slice and its properties (systemd.resource-control(5)): those that are limited, and
    /// those that an earlier configuration limited.
    fn words(&self, uid: u32) -> Vec<String> {
        let slice = format!("user-{uid}.slice");
        let Limits { cpu_millis, memory_bytes, pids } = self.limits;
        // systemd keeps whole hundredths of a processor, cuts off the rest, and takes 0 for none.
        let cpu = cpu_millis.map(|m| format!("{}%", m.div_ceil(10)));
        let properties = [
            ("TasksMax", Some(pids.to_string()), "infinity"),
            ("MemoryMax", memory_bytes.map(|b| b.to_string()), "infinity"),
            // As in the groups of this program: who swaps keeps the disk from others.
            ("MemorySwapMax", memory_bytes.map(|_| "0".to_owned()), "infinity"),
            ("CPUQuota", cpu, ""),
        ];
        let kept = self.kept.join(format!("{slice}.d"));
        let words = properties.into_iter().filter_map(|(name, limit, none)| {
            let was_set = || kept.join(format!("50-{name}.conf")).exists();
            let value = limit.or_else(|| was_set().then(|| none.to_owned()))?;
            Some(format!("{name}={value}"))
        });
        std::iter::once(slice).chain(words).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use xos_base::Kind;

    const UID: u32 = 1_900_000_007;
    const ALL: Limits =
        Limits { cpu_millis: Some(1505), memory_bytes: Some(268_435_456), pids: 64 };
    const FEW: Limits = Limits { cpu_millis: None, memory_bytes: None, pids: 20 };

    /// Below `root`, with a program that writes its arguments into a file and ends with `status`.
    fn writing(limits: Limits, root: &Path, status: u8) -> Slices {
        let script = format!("echo \"$*\" >>{}/told; echo no >&2; exit {status}", root.display());
        let command = ["/bin/sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
        Slices { command: Some(command), ..Slices::open(limits, root) }
    }

    fn told(root: &Path) -> String {
        fs::read_to_string(root.join("told")).unwrap_or_default()
    }

    /// If it failed, sessions of systemd would have no limits, or other ones than the others, or
    /// keep those that the administrator took away.
    #[test]
    fn systemd_is_told_what_is_limited_and_what_no_longer_is() {
        let root = tempfile::tempdir().unwrap();
        let words = |limits| Slices::open(limits, root.path()).words(UID).join(" ");
        let all = "user-1900000007.slice TasksMax=64 MemoryMax=268435456 MemorySwapMax=0 \
                   CPUQuota=151%";
        assert_eq!(words(ALL), all);
        assert_eq!(words(FEW), "user-1900000007.slice TasksMax=20");
        let tiny = Limits { cpu_millis: Some(1), ..FEW };
        assert_eq!(words(tiny), "user-1900000007.slice TasksMax=20 CPUQuota=1%");
        let kept = root.path().join(KEPT).join("user-1900000007.slice.d");
        fs::create_dir_all(&kept).unwrap();
        for name in ["TasksMax", "MemoryMax", "MemorySwapMax", "CPUQuota"] {
            fs::write(kept.join(format!("50-{name}.conf")), "").unwrap();
        }
        let none = "user-1900000007.slice TasksMax=20 MemoryMax=infinity MemorySwapMax=infinity \
                    CPUQuota=";
        assert_eq!(words(FEW), none);
        assert_eq!(words(ALL), all);
    }

    /// If it failed, each login would wait for systemd; or one person's slice would stay without
    /// limits, or keep those of before the configuration was changed.
    #[tokio::test]
    async fn systemd_is_told_once_for_each_person() {
        let root = tempfile::tempdir().unwrap();
        let first = writing(FEW, root.path(), 0);
        for uid in [7, 7, 8, 7] {
            first.limit(uid).await.unwrap();
        }
        let both = "user-7.slice TasksMax=20\nuser-8.slice TasksMax=20\n";
        assert_eq!(told(root.path()), both);
        let changed = Limits { pids: 30, ..FEW };
        writing(changed, root.path(), 0).limit(7).await.unwrap();
        assert_eq!(told(root.path()), format!("{both}user-7.slice TasksMax=30\n"));
    }

    /// If it failed, a session would go on without limits, or be refused for ever after one fault.
    #[tokio::test]
    async fn a_slice_that_cannot_be_limited_is_tried_again() {
        let root = tempfile::tempdir().unwrap();
        let slices = writing(FEW, root.path(), 1);
        for _ in 0..2 {
            let refused = slices.limit(7).await.unwrap_err();
            assert_eq!(refused.kind, Kind::Unavailable);
            assert!(refused.message.ends_with("/bin/sh: exit status: 1: no"), "{refused}");
        }
        assert_eq!(told(root.path()).lines().count(), 2);
    }

    /// If it failed, nobody could sign in to a machine without systemd, or those with it would have
    /// no limits.
    #[tokio::test]
    async fn where_systemd_does_not_run_nothing_is_told() {
        let root = tempfile::tempdir().unwrap();
        let slices = Slices::open(ALL, root.path());
        assert_eq!(slices.command, None);
        slices.limit(7).await.unwrap();
        fs::create_dir_all(root.path().join(BOOTED)).unwrap();
        let program = Slices::open(ALL, root.path()).command.unwrap();
        assert_eq!(program, ["/usr/bin/systemctl", "set-property", "--runtime"]);
    }
}
