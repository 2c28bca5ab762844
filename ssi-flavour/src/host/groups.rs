//! The control group of each copy: what it may use at most, and what it used. A copy is in it
//! before its program runs, or before it goes on after a move, and all that it starts is in it too.

use super::cell::Calls;
use super::wait;
use crate::cell::proto::{Exit, Tree};
use crate::cgroup::{Cgroup, CgroupError, Limits};
use crate::cluster::messages::{End, TreeId};
use crate::driver::why::{Obstacle, What};
use crate::procs;
use crate::wire::TreeUse;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// What CRIU may have beside the copy that it makes in the copy's group.
const CRIU_MEMORY_BYTES: u64 = 256 * 1024 * 1024;
const CRIU_PIDS: u32 = 64;

/// Those of a node.
#[derive(Clone)]
pub(super) struct Groups(Option<Arc<Cgroup>>);

/// The name of that of a copy.
fn name(tree: Tree) -> String {
    format!("{}.{}", tree.id, tree.epoch)
}

/// Whether a copy's group can be called so.
fn is_copys(name: &str) -> bool {
    let number = |text: &str| text.parse::<u64>().is_ok();
    name.split_once('.').is_some_and(|(tree, epoch)| number(tree) && number(epoch))
}

/// What holds while CRIU makes a copy: it works in the group too, and as fast as it can.
fn wide(limits: &Limits) -> Limits {
    Limits {
        cpu_millis: None,
        memory_bytes: limits.memory_bytes.map(|most| most.saturating_add(CRIU_MEMORY_BYTES)),
        pids: limits.pids.saturating_add(CRIU_PIDS),
    }
}

impl Groups {
    /// Below a group in which no process is; none: copies have no groups, and no limits.
    pub(super) fn new(parent: Option<Cgroup>) -> Groups {
        let parent = parent.map(|mut parent| {
            if let Some(error) = parent.delegate() {
                tracing::warn!(%error, "some limits of programs cannot be set on this machine");
            }
            Arc::new(parent)
        });
        Groups(parent)
    }

    fn of(&self, tree: Tree) -> Option<Cgroup> {
        self.0.as_ref().map(|parent| parent.child(&name(tree)))
    }

    /// Makes that of a copy whose program is to be started; its folders.
    ///
    /// # Errors
    /// Why it cannot be limited so, for its person.
    pub(super) fn make(&self, tree: Tree, limits: &Limits) -> Result<Vec<PathBuf>, String> {
        let Some(group) = self.of(tree) else { return Ok(Vec::new()) };
        group.create(limits).map_err(|e| format!("it cannot be limited: {e}"))?;
        Ok(group.parts.into_iter().map(|part| part.dir).collect())
    }

    /// Makes that of a copy which CRIU is to make; [`Groups::confine`] is for when it is made.
    ///
    /// # Errors
    /// As [`Groups::make`].
    pub(super) fn make_wide(&self, tree: Tree, limits: &Limits) -> Result<Vec<PathBuf>, String> {
        self.make(tree, &wide(limits))
    }

    /// From here on a copy that was made, and stands still, has no more than it may. On an error
    /// nothing of it is left.
    ///
    /// # Errors
    /// Why it cannot be limited, as when it is larger.
    pub(super) async fn confine(
        &self,
        calls: &Arc<Calls>,
        tree: Tree,
        limits: Limits,
    ) -> Result<(), String> {
        let Some(group) = self.of(tree) else { return Ok(()) };
        let calls = calls.clone();
        let confined = wait(move || {
            let limited = group.limit(&limits);
            limited.map_err(|e| match calls.kill(tree) {
                Ok(()) => format!("it cannot be limited: {e}"),
                Err(k) => format!("it cannot be limited: {e}; and it was not ended: {k}"),
            })
        });
        confined.await.map_err(|e| e.to_string()).flatten()
    }

    /// Ends what is left in that of a copy, as what left the copy's session, and removes it. Waits.
    pub(super) fn close(&self, tree: Tree) {
        let Some(group) = self.of(tree) else { return };
        if let Err(error) = end(&group) {
            // What hangs in the kernel gets no further; the next agent tries it again.
            tracing::warn!(%tree, %error, "its control group stays");
        }
    }

    /// Ends what is left in all, and removes them. Waits.
    pub(super) fn sweep(&self) {
        let Some(parent) = &self.0 else { return };
        let swept = parent.names().and_then(|names| {
            let copies = names.iter().filter(|name| is_copys(name));
            copies.map(|name| end(&parent.child(name))).fold(Ok(()), Result::and)
        });
        if let Err(error) = swept {
            tracing::warn!(%error, "control groups of programs that are over stay");
        }
    }

    /// What copies used; of one without a group nothing is known.
    pub(super) fn used(&self, trees: &[Tree]) -> Vec<TreeUse> {
        let of = |tree: &Tree| {
            let used = self.of(*tree).filter(Cgroup::is_there)?.usage();
            Some(TreeUse {
                tree: TreeId(tree.id),
                epoch: tree.epoch,
                cpu_ms: used.cpu_us.unwrap_or(0) / 1000,
                memory_bytes: used.memory_peak_bytes.unwrap_or(0),
            })
        };
        trees.iter().filter_map(of).collect()
    }

    /// How a copy ended whose first process ended so: as it came to a limit, if it did.
    pub(super) fn end_of(&self, tree: Tree, exit: Exit) -> End {
        let (plain, status) = match exit {
            Exit::Code(code) => (End::Exit { code }, code),
            Exit::Signal(number) => {
                let number = u8::try_from(number).unwrap_or(0);
                (End::Signal { number }, number.saturating_add(128))
            }
        };
        let Some(group) = self.of(tree).filter(|_| status != 0) else { return plain };
        // A shell whose program was killed says so by its status.
        if status == 137 && group.oom_kills() > 0 {
            End::OutOfMemory
        } else if group.forks_refused() > 0 {
            End::ProcessLimit { status }
        } else {
            plain
        }
    }

    /// The processes of a copy, first process `root` as this process sees it, that left it by a
    /// session of their own and lost their parents: they would not go along, and be ended.
    ///
    /// # Errors
    /// That they cannot be listed.
    pub(super) fn left(&self, tree: Tree, root: i32) -> io::Result<Vec<Obstacle>> {
        let Some(group) = self.of(tree) else { return Ok(Vec::new()) };
        // Who is made after this descends from one that is in it.
        let inside = group.processes().map_err(io::Error::other)?;
        let members = procs::members(&procs::all(), root);
        let left = inside.into_iter().filter(|pid| !members.contains(pid) && !procs::is_over(*pid));
        Ok(left.map(|pid| Obstacle { pid, what: What::Stray }).collect())
    }
}

fn end(group: &Cgroup) -> Result<(), CgroupError> {
    group.kill()?;
    group.remove()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_of_copies_are_swept() {
        // wrong: an agent that begins would end itself, or what is another's
        let tree = Tree { id: 7, epoch: 2 };
        assert!(is_copys(&name(tree)));
        for other in ["agent", "7", "7.", ".2", "7.x", "7.2.agent", "-7.2", ""] {
            assert!(!is_copys(other), "{other:?}");
        }
    }

    #[test]
    fn a_copy_is_made_with_room_for_who_makes_it() {
        // wrong: a program that has all that it may could never move
        let most = Limits { cpu_millis: Some(10), memory_bytes: Some(1 << 30), pids: 3 };
        let wide = wide(&most);
        assert!(wide.memory_bytes > most.memory_bytes && wide.pids > most.pids);
        assert_eq!(wide.cpu_millis, None);
        let none = Limits { memory_bytes: None, ..most };
        assert_eq!(super::wide(&none).memory_bytes, None);
    }

    #[test]
    fn without_groups_an_end_is_what_it_looks_like() {
        // wrong: where nothing is limited, programs would end by limits
        let (groups, tree) = (Groups::new(None), Tree { id: 7, epoch: 2 });
        assert_eq!(groups.end_of(tree, Exit::Signal(9)), End::Signal { number: 9 });
        assert_eq!(groups.end_of(tree, Exit::Code(137)), End::Exit { code: 137 });
        assert!(groups.make(tree, &Limits::default()).unwrap().is_empty());
        assert!(groups.used(&[tree]).is_empty() && groups.left(tree, 1).unwrap().is_empty());
    }
}
