//! A driver for tests of who uses one: programs are counters in a table, and images lie beside
//! them. Each step can be made to fail, also where there is no CRIU.
//!
//! It keeps the rules of the real one: a pid is one program's in a cell, a dump that is refused
//! changes nothing, only images that are whole and their owner's are started. Pids in a cell and
//! outside are the same.

use super::error::{DriverError, Step, not_empty};
use super::images::{ImageError, Manifest, Origin};
use super::{
    Abilities, Ability, Cell, Checkpointer, DumpOrder, Dumped, Feature, Leave, RestoreOrder,
    Restored,
};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The version that it says it is.
const VERSION: &str = "4.2.1";

/// A driver of machines whose cells have different numbers; clones share table and images.
#[derive(Clone, Debug, Default)]
pub struct Fake {
    world: Arc<Mutex<World>>,
}

/// A program of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Grows by one with each [`Fake::tick`] while it runs.
    pub counter: u64,
    /// Whether it stands still.
    pub stopped: bool,
}

/// How a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing is done.
    Refuses,
    /// It is broken off. A program that was being saved is hurt by that as much as can be: gone.
    TimesOut,
}

#[derive(Debug, Default)]
struct World {
    /// By cell ([`Cell::pid`]; 0: none) and pid.
    programs: BTreeMap<(i32, i32), Program>,
    images: BTreeMap<PathBuf, Image>,
    failures: BTreeMap<Step, Failure>,
}

#[derive(Clone, Debug)]
struct Image {
    pid: i32,
    counter: u64,
    origin: Option<Origin>,
    damaged: bool,
}

impl Fake {
    /// A machine with nothing running.
    pub fn new() -> Fake {
        Fake::default()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a program.
    ///
    /// # Errors
    /// [`DriverError::PidTaken`].
    pub fn start(&self, cell: Option<Cell>, pid: i32) -> Result<(), DriverError> {
        self.world().add(cell, pid, 0)
    }

    /// Has all programs that do not stand still count on.
    pub fn tick(&self) {
        for program in self.world().programs.values_mut().filter(|program| !program.stopped) {
            program.counter += 1;
        }
    }

    /// A program, if there is one.
    pub fn program(&self, cell: Option<Cell>, pid: i32) -> Option<Program> {
        self.world().programs.get(&(number(cell), pid)).copied()
    }

    /// All programs with this pid, by the pids of their cells.
    pub fn copies(&self, pid: i32) -> Vec<(i32, Program)> {
        let world = self.world();
        let same = world.programs.iter().filter(|((_, other), _)| *other == pid);
        same.map(|((cell, _), program)| (*cell, *program)).collect()
    }

    /// SIGCONT. Whether there was such a program.
    pub fn resume(&self, cell: Option<Cell>, pid: i32) -> bool {
        let mut world = self.world();
        let program = world.programs.get_mut(&(number(cell), pid));
        program.map(|program| program.stopped = false).is_some()
    }

    /// SIGKILL. Whether there was such a program.
    pub fn kill(&self, cell: Option<Cell>, pid: i32) -> bool {
        self.world().programs.remove(&(number(cell), pid)).is_some()
    }

    /// Copies an image folder, as a transfer does. Whether there was one.
    pub fn copy(&self, from: &Path, to: &Path) -> bool {
        let mut world = self.world();
        let image = world.images.get(from).cloned();
        image.map(|image| world.images.insert(to.to_owned(), image)).is_some()
    }

    /// Damages an image folder. Whether there was one.
    pub fn damage(&self, folder: &Path) -> bool {
        self.world().images.get_mut(folder).map(|image| image.damaged = true).is_some()
    }

    /// Removes an image folder. Whether there was one.
    pub fn remove(&self, folder: &Path) -> bool {
        self.world().images.remove(folder).is_some()
    }

    /// Has the next `step` of any machine fail.
    pub fn fail_next(&self, step: Step, failure: Failure) {
        self.world().failures.insert(step, failure);
    }
}

fn number(cell: Option<Cell>) -> i32 {
    cell.map_or(0, |cell| cell.pid)
}

impl World {
    fn add(&mut self, cell: Option<Cell>, pid: i32, counter: u64) -> Result<(), DriverError> {
        let place = (number(cell), pid);
        if self.programs.contains_key(&place) {
            return Err(DriverError::PidTaken { pid });
        }
        self.programs.insert(place, Program { counter, stopped: false });
        Ok(())
    }

    fn image(&mut self, folder: &Path) -> Result<&mut Image, ImageError> {
        self.images.get_mut(folder).ok_or_else(|| ImageError::System {
            path: folder.into(),
            source: std::io::ErrorKind::NotFound.into(),
        })
    }
}

/// The error of a step that is to fail.
fn failed(step: Step, failure: Failure, limit: std::time::Duration) -> DriverError {
    match failure {
        Failure::Refuses => DriverError::Refused {
            step,
            what: "it was told to fail".into(),
            next: "try again",
            log: None,
        },
        Failure::TimesOut => DriverError::TimedOut { step, limit },
    }
}

fn altered(folder: &Path, what: &str) -> ImageError {
    ImageError::Altered { path: folder.into(), what: what.into() }
}

#[async_trait]
impl Checkpointer for Fake {
    async fn probe(&self) -> Result<Abilities, DriverError> {
        if self.world().failures.remove(&Step::Probe).is_some() {
            return Err(DriverError::Unable { why: "it was told to fail".into() });
        }
        let features = Feature::ALL.map(|feature| (feature, Ability::Present)).into();
        Ok(Abilities { version: VERSION.into(), features, registers: String::new() })
    }

    async fn dump(&self, order: &DumpOrder) -> Result<Dumped, DriverError> {
        let mut world = self.world();
        let place = (number(order.cell), order.root);
        let program = *world.programs.get(&place).ok_or(DriverError::Gone { pid: order.root })?;
        if world.images.contains_key(&order.folder) {
            return Err(not_empty(&order.folder));
        }
        if let Some(failure) = world.failures.remove(&Step::Dump) {
            if failure == Failure::TimesOut {
                world.programs.remove(&place);
            }
            return Err(failed(Step::Dump, failure, order.limit));
        }
        let (pid, counter) = (order.root, program.counter);
        let image = Image { pid, counter, origin: None, damaged: false };
        world.images.insert(order.folder.clone(), image);
        match order.leave {
            Leave::Running => {}
            Leave::Stopped => {
                world.programs.insert(place, Program { stopped: true, ..program });
            }
            Leave::Killed => {
                world.programs.remove(&place);
            }
        }
        let (version, open_files) = (VERSION.into(), Vec::new());
        Ok(Dumped { pid, frozen_us: 1, pages: 1, size_bytes: 4096, open_files, version })
    }

    async fn seal(&self, folder: &Path, origin: Origin) -> Result<Manifest, DriverError> {
        let mut world = self.world();
        if let Some(failure) = world.failures.remove(&Step::Seal) {
            return Err(failed(Step::Seal, failure, std::time::Duration::ZERO));
        }
        let image = world.image(folder)?;
        if image.origin.is_some() {
            return Err(altered(folder, "it is sealed already").into());
        }
        image.origin = Some(origin.clone());
        Ok(Manifest { format: super::images::FORMAT, origin, files: BTreeMap::new() })
    }

    async fn seal_to_travel(&self, folder: &Path, origin: Origin) -> Result<Manifest, DriverError> {
        self.seal(folder, origin).await
    }

    async fn restore(&self, order: RestoreOrder) -> Result<Restored, DriverError> {
        let mut world = self.world();
        let image = world.image(&order.folder)?.clone();
        let folder = order.folder.clone();
        let Some(origin) = image.origin else { return Err(ImageError::Torn { folder }.into()) };
        let (found, expected) = (origin.owner, order.owner.uid);
        if found != expected {
            return Err(ImageError::Foreign { folder, found, expected }.into());
        }
        if image.damaged {
            return Err(altered(&folder, "its content differs").into());
        }
        if let Some(failure) = world.failures.remove(&Step::Restore) {
            return Err(failed(Step::Restore, failure, order.limit));
        }
        world.add(order.cell, image.pid, image.counter)?;
        if let Some(program) = world.programs.get_mut(&(number(order.cell), image.pid)) {
            program.stopped = order.stopped;
        }
        Ok(Restored { pid: image.pid, outer_pid: Some(image.pid) })
    }
}

#[cfg(test)]
#[path = "fake_tests.rs"]
mod tests;
