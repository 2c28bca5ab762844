//! No CRIU on this machine: nothing is saved, nothing started again.

use super::images::{Manifest, Origin};
use super::{Abilities, Checkpointer, DriverError, DumpOrder, Dumped, RestoreOrder, Restored};
use async_trait::async_trait;
use std::path::Path;

/// Stands where there is no CRIU, and says so whatever it is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Absent;

fn unable<T>() -> Result<T, DriverError> {
    let why = "there is no CRIU on this machine (4.2 is the least)".to_owned();
    Err(DriverError::Unable { why })
}

#[async_trait]
impl Checkpointer for Absent {
    async fn probe(&self) -> Result<Abilities, DriverError> {
        unable()
    }

    async fn dump(&self, _: &DumpOrder) -> Result<Dumped, DriverError> {
        unable()
    }

    async fn seal(&self, _: &Path, _: Origin) -> Result<Manifest, DriverError> {
        unable()
    }

    async fn seal_to_travel(&self, _: &Path, _: Origin) -> Result<Manifest, DriverError> {
        unable()
    }

    async fn restore(&self, _: RestoreOrder) -> Result<Restored, DriverError> {
        unable()
    }
}
