//! Has the programs of cluster shells placed: their processes ask, by a socket that every member
//! reaches.
//!
//! Who asks is known by the socket alone: which process, as which user. It must be one of a tree in
//! this node's cell; whether the tree is that user's, the core says.

use super::border::{Border, Unanswered};
use super::proto::{Placing, Want, Where};
use super::way::accept;
use crate::cell::proto::Tree;
use crate::cluster::messages::TreeId;
use crate::driver::inner_pid;
use crate::ghost::place::{Asked, PlaceAnswer, PlaceAsk, hear};
use crate::host::Hands;
use crate::peer::{self, Who};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use xos_api::cluster::PROGRAM_BYTES_MAX;

/// Most connections of one user, each with a thread, and of all.
const OWN_MAX: usize = 256;
const ALL_MAX: usize = 1024;
/// How long a question may take to come.
const HEAR_MAX: Duration = Duration::from_secs(5);
/// How long the core may take to answer it.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// How often, and from one time to the next, the core is told that a ghost is gone.
const GONE_TRIES: u32 = 150;
const GONE_EVERY: Duration = Duration::from_secs(2);

/// The connections of each user.
type Open = Arc<Mutex<BTreeMap<u32, usize>>>;

/// Makes the socket, and its folder.
///
/// # Errors
/// Those of the file system.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    path.parent().map_or(Ok(()), open_folder)?;
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// A folder that everybody may enter, whatever this program's mask is; those that are there stay
/// as they are.
fn open_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    folder.parent().map_or(Ok(()), open_folder)?;
    match DirBuilder::new().mode(0o755).create(folder) {
        Ok(()) => std::fs::set_permissions(folder, Permissions::from_mode(0o755)),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

/// Answers who asks, for ever. `shared`: folders that are the same on all nodes.
pub(super) fn serve(listener: &UnixListener, border: &Arc<Border>, shared: &[PathBuf]) {
    let shared: Arc<[PathBuf]> = shared.into();
    let open = Open::default();
    loop {
        let socket = accept(listener);
        let Ok(who) = peer::who(&socket) else { continue };
        // Who is one too many runs it where it is.
        let Some(counted) = Counted::of(&open, who.uid) else { continue };
        let (border, shared) = (border.clone(), shared.clone());
        let begun =
            std::thread::Builder::new().name(format!("place-{}", who.pid)).spawn(move || {
                let _counted = counted;
                if let Err(error) = answer(&border, &shared, socket, who) {
                    tracing::debug!(%error, ?who, "nobody is told where a program runs");
                }
            });
        if let Err(error) = begun {
            tracing::warn!(%error, "no thread for a program that is to be placed");
        }
    }
}

/// One connection of a user.
struct Counted {
    open: Open,
    uid: u32,
}

impl Counted {
    fn of(open: &Open, uid: u32) -> Option<Counted> {
        let mut all = open.lock().unwrap_or_else(PoisonError::into_inner);
        if all.values().sum::<usize>() >= ALL_MAX {
            return None;
        }
        let own = all.entry(uid).or_default();
        if *own >= OWN_MAX {
            return None;
        }
        *own += 1;
        Some(Counted { open: open.clone(), uid })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = all.get_mut(&self.uid) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                all.remove(&self.uid);
            }
        }
    }
}

/// Answers, and serves who stands for a program elsewhere to its end.
fn answer(border: &Border, shared: &[PathBuf], socket: UnixStream, who: Who) -> io::Result<()> {
    let (ask, asked) = hear(socket, HEAR_MAX)?;
    let Some((tree, pid)) = border.hands().and_then(|hands| of_cell(hands, who.pid)) else {
        return asked.answer(&PlaceAnswer::Here).map(drop);
    };
    let Some(placing) = placing(ask, shared, tree, (who.uid, pid)) else {
        return asked.answer(&PlaceAnswer::Here).map(drop);
    };
    let said: Result<Where, Unanswered> = border.ask(Want::Place(Box::new(placing)), ANSWER_MAX);
    let stood = match said {
        Ok(Where::Elsewhere { tree }) => {
            let told = asked.answer(&PlaceAnswer::Elsewhere { tree });
            told.and_then(|socket| border.spools.stand(tree.id, who.uid, socket))
        }
        Ok(Where::Here {}) => return asked.answer(&PlaceAnswer::Here).map(drop),
        Err(error @ (Unanswered::NotAsked | Unanswered::Refused(_))) => {
            tracing::debug!(%error, "a program runs where it is");
            return asked.answer(&PlaceAnswer::Here).map(drop);
        }
        Ok(Where::Unsure { why }) => refuse(asked, &why),
        Err(error @ Unanswered::Unknown) => refuse(asked, &error.to_string()),
    };
    if !matches!(stood, Ok(true)) {
        gone(border, pid);
    }
    stood.map(drop)
}

/// It may have begun elsewhere, so that it must not begin here as well.
fn refuse(asked: Asked, why: &str) -> io::Result<bool> {
    let why = format!("where it runs is not known, so that it is ended: {why}; try again");
    asked.answer(&PlaceAnswer::Refused { why }).map(|_| false)
}

/// The tree in the cell to which a process belongs, and its pid there.
fn of_cell(hands: &Hands, outer: i32) -> Option<(Tree, i32)> {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    if namespace(outer)? != namespace(hands.init_pid())? {
        return None;
    }
    let pid = inner_pid(outer).ok()?;
    let status = hands.status().ok()?;
    let tree = status.trees.into_iter().find(|t| t.processes.contains(&pid))?.tree?;
    Some((tree, pid))
}

/// What the core is asked; `None`: it runs where it is, whatever the core would say.
fn placing(
    ask: PlaceAsk,
    shared: &[PathBuf],
    tree: Tree,
    (uid, pid): (u32, i32),
) -> Option<Placing> {
    let PlaceAsk { argv, env, cwd, umask, terminal } = ask;
    // Elsewhere there would be another folder of that name, or none.
    if !shared.iter().any(|folder| cwd.starts_with(folder)) {
        return None;
    }
    let variables = env.iter().flat_map(|(name, value)| [name, value]);
    let bytes: usize = argv.iter().chain(variables).map(|text| text.len() + 8).sum();
    if bytes > PROGRAM_BYTES_MAX {
        return None;
    }
    let cwd = cwd.to_str()?.to_owned();
    let env = env.into_iter().collect();
    Some(Placing { tree: TreeId(tree.id), uid, pid, argv, env, cwd, umask, terminal })
}

/// Nobody stands for a program any more that may run elsewhere: it ends, as if it had been killed
/// here.
fn gone(border: &Border, pid: i32) {
    for _ in 0..GONE_TRIES {
        match border.ask::<()>(Want::GhostGone { pid }, ANSWER_MAX) {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, pid, "a program without a ghost is not ended"),
        }
        std::thread::sleep(GONE_EVERY);
    }
    tracing::warn!(pid, "a program whose ghost was killed may run on elsewhere");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(cwd: &str, argument: usize) -> PlaceAsk {
        PlaceAsk {
            argv: vec!["cc".into(), "x".repeat(argument)],
            env: vec![("A".into(), "b".into())],
            cwd: cwd.into(),
            umask: 0o22,
            terminal: false,
        }
    }

    #[test]
    fn what_needs_this_node_stays() {
        // wrong: a line of make would work in another folder of the same name
        let shared = ["/usr".into(), "/xtreemfs".into()];
        let tree = Tree { id: 7, epoch: 2 };
        let placed = |ask| placing(ask, &shared, tree, (70_000, 40_000));
        let placing = placed(ask("/xtreemfs/demo", 1)).unwrap();
        assert_eq!((placing.tree.0, placing.uid, placing.pid), (7, 70_000, 40_000));
        assert!(placed(ask("/home/xos/milo", 1)).is_none());
        assert!(placed(ask("/xtreemfsx", 1)).is_none());
        assert!(placed(ask("/xtreemfs", PROGRAM_BYTES_MAX)).is_none());
    }

    #[test]
    fn one_user_does_not_take_all_connections() {
        // wrong: a member could keep the agent from placing anybody's programs
        let open = Open::default();
        let own: Vec<Counted> = (0..OWN_MAX).filter_map(|_| Counted::of(&open, 1)).collect();
        assert_eq!(own.len(), OWN_MAX);
        assert!(Counted::of(&open, 1).is_none() && Counted::of(&open, 2).is_some());
        drop(own);
        assert!(Counted::of(&open, 1).is_some());
    }

    #[test]
    fn everybody_reaches_the_socket_and_its_folders() {
        // wrong: shells would never have a program placed
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster/c1.rennes/place.sock");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        for _ in 0..2 {
            let _listener = listen(&path).unwrap();
            assert_eq!(mode(&path), 0o666);
            assert_eq!(mode(path.parent().unwrap()), 0o755);
        }
    }
}
