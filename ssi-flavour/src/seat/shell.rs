//! Cluster shells at this node: what they show of the others, and what they need to begin.

use super::border::{Border, Unanswered};
use super::proto::Want;
use crate::cell::proto::Program;
use crate::pids::NodeNumber;
use crate::procfs::{self, View, Views};
use crate::wire::{ClusterSeen, NodeLooks, SeenNode};
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is older is asked for again: once a second for each person.
const FRESH: Duration = Duration::from_secs(1);
/// Of a node that said nothing for so long it is shown since when.
const OLD: Duration = Duration::from_secs(5);
/// What nobody looks at for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// How long the core may take; a shell that begins waits so long at most.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// The program of the keeper, beside this one.
const PROC_PROGRAM: &str = "xos-proc";

/// What one person's shells show of other nodes.
#[derive(Default)]
struct Known {
    /// What came last, and when.
    came: Option<(Arc<ClusterSeen>, Instant)>,
    /// When it was asked for last.
    asked: Option<Instant>,
    asking: bool,
    /// When it was looked at last.
    looked: Option<Instant>,
}

/// The shells of this node.
pub(super) struct Shells {
    border: Arc<Border>,
    here: NodeNumber,
    program: PathBuf,
    views: PathBuf,
    place: PathBuf,
    known: Arc<Mutex<BTreeMap<u32, Known>>>,
}

fn locked(known: &Mutex<BTreeMap<u32, Known>>) -> MutexGuard<'_, BTreeMap<u32, Known>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shells {
    /// `views`: the socket at which [`Shells::listen`] listens; `place`: that of the programs that
    /// are to be placed.
    ///
    /// # Errors
    /// That this program does not know where it is.
    pub(super) fn new(
        border: Arc<Border>,
        here: NodeNumber,
        views: &Path,
        place: &Path,
    ) -> io::Result<Shells> {
        let program = std::env::current_exe()?.with_file_name(PROC_PROGRAM);
        let (views, place) = (views.to_owned(), place.to_owned());
        Ok(Shells { border, here, program, views, place, known: Arc::default() })
    }

    /// Answers the keepers of merged `/proc`s from now on, in threads of its own.
    ///
    /// # Errors
    /// That the socket cannot be made.
    pub(super) fn listen(self: Arc<Self>, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        let views: Arc<dyn Views> = self;
        std::thread::Builder::new().name("views".to_owned()).spawn(move || {
            loop {
                if let Err(error) = procfs::serve(&listener, &views) {
                    tracing::warn!(%error, "cluster shells see this node alone for a moment");
                }
                std::thread::sleep(FRESH);
            }
        })?;
        Ok(())
    }

    /// What was heard last of other nodes, and how long ago; it is asked for again when that is
    /// due, without waiting.
    fn seen(&self, uid: u32) -> (Arc<ClusterSeen>, Duration) {
        let now = Instant::now();
        let mut all = locked(&self.known);
        let fresh = |k: &Known| k.looked.is_some_and(|at| now.duration_since(at) < FORGOTTEN);
        all.retain(|of, known| *of == uid || known.asking || fresh(known));
        let known = all.entry(uid).or_default();
        known.looked = Some(now);
        let rests = known.asked.is_some_and(|at| now.duration_since(at) < FRESH);
        let asks = !rests && !known.asking;
        if asks {
            (known.asking, known.asked) = (true, Some(now));
        }
        let seen = match &known.came {
            Some((seen, at)) => (seen.clone(), now.duration_since(*at)),
            None => (Arc::default(), Duration::ZERO),
        };
        drop(all);
        if asks {
            let (border, known) = (self.border.clone(), self.known.clone());
            let asking = move || ask(&border, &known, uid);
            let begun = std::thread::Builder::new().name("looks".to_owned()).spawn(asking);
            if let Err(error) = begun {
                tracing::warn!(%error, "no thread to ask how other nodes are");
                locked(&self.known).entry(uid).or_default().asking = false;
            }
        }
        seen
    }
}

/// Asks the core how the other nodes are. Waits.
fn ask(border: &Border, known: &Mutex<BTreeMap<u32, Known>>, uid: u32) {
    let said: Result<ClusterSeen, Unanswered> = border.ask(Want::Looks { uid }, ANSWER_MAX);
    let mut all = locked(known);
    let known = all.entry(uid).or_default();
    known.asking = false;
    match said {
        Ok(seen) => known.came = Some((Arc::new(seen), Instant::now())),
        Err(error) => tracing::debug!(%error, uid, "how other nodes are is not known now"),
    }
}

impl Views for Shells {
    fn view(&self, uid: u32) -> View {
        let Some(own) = self.border.own_looks() else { return View::alone(self.here) };
        let (seen, age) = self.seen(uid);
        view_of(self.here, &own, &seen, age)
    }
}

impl crate::host::Shells for Shells {
    fn keeper(&self, uid: u32) -> Program {
        procfs::keeper(&self.program, &self.views, uid, self.here)
    }

    fn environment(&self, uid: u32) -> Vec<(String, String)> {
        // How many processors there are, it is told once.
        ask(&self.border, &self.known, uid);
        procfs::environment(&self.place, &self.view(uid))
    }
}

/// A person's view; `age`: how long ago the core said so.
fn view_of(here: NodeNumber, own: &NodeLooks, seen: &ClusterSeen, age: Duration) -> View {
    let own = std::iter::once((here, here.to_string(), own));
    let others = seen.nodes.iter().map(|node| (node.number, name(node, age), &node.looks));
    View::of(here, own.chain(others), |_| true)
}

/// What a node is called; with what is old, since when it is so.
fn name(node: &SeenNode, age: Duration) -> String {
    let age = age.saturating_add(Duration::from_millis(node.age_ms));
    match age < OLD {
        true => node.node.to_string(),
        false => format!("{}, as it was {} s ago", node.node, age.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::place::Load;

    fn looks(cpus: u32) -> NodeLooks {
        NodeLooks {
            load: Load::default(),
            cpus,
            memory_bytes: 1 << 30,
            memory_free_bytes: 1 << 29,
            moves: None,
            cpu_group: 0,
            cpu_words: String::new(),
            limit_s: 0,
            cpu_times: Vec::new(),
            processes: Vec::new(),
        }
    }

    #[test]
    fn what_is_old_says_so_and_stays() {
        // wrong: a shell would hang or lose half of its cluster whenever the core is away, or pass
        // off as present what is long over
        let number = |n: u8| NodeNumber::try_from(n).unwrap();
        let node = SeenNode {
            number: number(2),
            node: "n2.rennes".parse().unwrap(),
            age_ms: 900,
            looks: looks(4),
        };
        let seen = ClusterSeen { nodes: vec![node] };
        let named = |age: u64| {
            let view = view_of(number(1), &looks(2), &seen, Duration::from_secs(age));
            assert_eq!(view.nodes.iter().map(|n| n.cpus).collect::<Vec<_>>(), [2, 4]);
            view.nodes[1].name.clone()
        };
        assert_eq!(named(1), "n2.rennes");
        assert_eq!(named(90), "n2.rennes, as it was 90 s ago");
    }
}
