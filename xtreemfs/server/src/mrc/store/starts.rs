//! Numbers the starts of the server: what it gives numbers to is its own.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::mrc::files::{AppendError, LogFile, StoreError, at};
use crate::mrc::index::{Change, Index, MemIndex, STARTS_MAX};
use crate::mrc::log::{Payload, encode};
use crate::mrc::record::STARTS;

/// Start numbers are counted in steps of this time, in seconds, since [`START_TIME_S`]: an old copy
/// of the folder that is restored goes on behind all starts that it does not know of.
const START_EVERY_S: u64 = 16;
/// 2026-01-01, in seconds since 1970.
pub(super) const START_TIME_S: u64 = 1_767_225_600;
/// A clock that runs so far ahead must not use up the numbers.
const START_BY_TIME_MAX: u64 = STARTS_MAX / 2;

/// Numbers this start, on disk before anything else: the inode numbers and truncate epochs that it
/// gives are its own.
pub(super) fn count_start(
    dir: &Path,
    index: &mut MemIndex,
    log: &mut LogFile,
    now: Duration,
) -> Result<(), StoreError> {
    let known = match index.value(STARTS) {
        None => 0,
        Some(value) => u64::from_be_bytes(
            value.try_into().map_err(|_| StoreError::Damaged { path: dir.to_owned(), at: 0 })?,
        ),
    };
    let by_time = now.as_secs().saturating_sub(START_TIME_S) / START_EVERY_S;
    let starts = known.max(by_time.min(START_BY_TIME_MAX));
    if starts >= STARTS_MAX {
        return Err(StoreError::Worn(dir.to_owned()));
    }
    let (key, value) = (STARTS.to_vec(), (starts + 1).to_be_bytes().to_vec());
    let changes = vec![Change::Put { key, value }];
    let payload = at(dir, encode(&Payload::Changes(changes.clone())).map_err(io::Error::other))?;
    at(
        dir,
        log.append([&payload[..]]).map_err(|error| match error {
            AppendError::Undone(error) | AppendError::Lost(error) => error,
        }),
    )?;
    changes.into_iter().for_each(|change| drop(index.apply(change)));
    index.number_from(starts);
    Ok(())
}
