//! What is done with a node's trees beside what its agent decides.

use super::cell::Calls;
use super::groups::Groups;
use super::progress::Progress;
use super::{Store, line, travel};
use crate::cell::CallError;
use crate::cell::proto::{Ask, Refusal, Status, Tree};
use crate::cluster::messages::{Stretch, TreeId};
use crate::driver::why::{Rules, why};
use crate::driver::{inner_pid, outer_pid};
use crate::ghost::spool::Spools;
use crate::overlay::Overlay;
use crate::pids::NodeNumber;
use crate::wire::{Obstacle, Place};
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// A node's cell, images and spools. All of it waits.
#[derive(Clone)]
pub struct Hands {
    pub(super) calls: Arc<Calls>,
    pub(super) init_pid: i32,
    pub(super) store: Store,
    pub(super) progress: Progress,
    pub(super) direct: bool,
    pub(super) spools: Arc<Spools>,
    pub(super) overlay: Arc<Overlay>,
    pub(super) groups: Groups,
    pub(super) rules: Rules,
}

impl Hands {
    /// How the cell is.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn status(&self) -> Result<Status, CallError> {
        self.calls.status()
    }

    /// The pid of the cell's init, as this process sees it.
    pub fn init_pid(&self) -> i32 {
        self.init_pid
    }

    /// The spools of this node.
    pub fn spools(&self) -> &Arc<Spools> {
        &self.spools
    }

    /// A stream by which another node sends packets to this one.
    pub fn packets(&self, from: NodeNumber, socket: UnixStream) {
        self.overlay.receive(from, socket);
    }

    /// Where the trees are that have a network of their own, as the controller said last.
    pub fn places(&self, places: Vec<Place>) {
        self.overlay.places(places);
    }

    /// Sends a signal to one process of a copy, or to all. A copy that has ended needs none.
    ///
    /// # Errors
    /// That the process is no one of the copy, or why it was not sent.
    pub fn signal(&self, tree: Tree, pid: Option<i32>, signal: i32) -> Result<(), String> {
        let status = self.status().map_err(|e| e.to_string())?;
        let of = status.trees.into_iter().find(|t| t.tree == Some(tree));
        let all = of.map(|t| t.processes).unwrap_or_default();
        let meant = match pid {
            Some(pid) if all.contains(&pid) => vec![pid],
            Some(pid) => return Err(format!("process {pid} is not of {tree}, or has ended")),
            None => all,
        };
        for pid in meant {
            match self.calls.call::<()>(Ask::Signal { pid, signal, group: false }) {
                // It ended meanwhile.
                Ok(()) | Err(CallError::Refused(Refusal::NoSuchProcess(_))) => {}
                Err(e) => return Err(e.to_string()),
            }
        }
        Ok(())
    }

    /// What keeps a copy from moving.
    ///
    /// # Errors
    /// That it has ended, or why nothing can be said.
    pub fn why(&self, tree: Tree) -> Result<Vec<Obstacle>, String> {
        let status = self.status().map_err(|e| e.to_string())?;
        let of = status.trees.iter().find(|t| t.tree == Some(tree)).map(|t| t.pid);
        let ended = || format!("{tree} has ended");
        let root = outer_pid(Some(self.init_pid), of.ok_or_else(ended)?);
        let root = root.map_err(|e| e.to_string())?.ok_or_else(ended)?;
        let mut found = why(root, &self.rules).map_err(|e| e.to_string())?;
        found.extend(self.groups.left(tree, root).map_err(|e| e.to_string())?);
        let told = found.into_iter().map(|o| Obstacle {
            // One that ended meanwhile keeps nothing any more, and is told all the same.
            pid: inner_pid(o.pid).unwrap_or(o.pid),
            what: o.what.to_string(),
            next: o.what.next().to_owned(),
        });
        Ok(told.collect())
    }

    /// Sends an image to another node, which is at the other end of the socket: also one that is
    /// being made, or about to be.
    ///
    /// # Errors
    /// That it is not here, and will not be; those of the way.
    pub fn send_image(&self, tree: TreeId, version: u64, to: UnixStream) -> io::Result<()> {
        let (line, key) = line::give(to, self.direct)?;
        travel::send(&self.store, &self.progress, (tree, version), line, &key)
    }

    /// Sends the image of a tree that left to a node of another cluster, which may be of any site:
    /// by that socket only, so that nobody there hears where this node is reached.
    ///
    /// # Errors
    /// As [`Hands::send_image`].
    pub fn send_carried(&self, tree: TreeId, version: u64, to: UnixStream) -> io::Result<()> {
        let (line, key) = line::give(to, false)?;
        travel::send(&self.store, &self.progress, (tree, version), line, &key)
    }

    /// Writes a part of a tree's output for another node; see [`Spools::send`].
    ///
    /// # Errors
    /// As [`Spools::send`].
    pub fn send_output(&self, tree: TreeId, ask: &Stretch, mut to: UnixStream) -> io::Result<()> {
        self.spools.send(tree.0, ask, &mut to)
    }

    /// Ends the cell, and all that runs in it; with it go the control groups.
    ///
    /// # Errors
    /// That it could not be asked; one that is gone is no error.
    pub fn end(&self) -> io::Result<()> {
        let ended = self.end_cell();
        self.groups.sweep();
        ended
    }

    fn end_cell(&self) -> io::Result<()> {
        let asked = self.calls.connect().map_err(CallError::from);
        match asked.and_then(|mut cell| cell.call(Ask::End, &[])) {
            Ok(()) => Ok(()),
            Err(CallError::Link(e)) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(e) => Err(io::Error::other(e)),
        }
    }
}
