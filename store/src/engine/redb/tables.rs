//! The tables of the file and what one write does to them.

use std::path::Path;

use ::redb::{
    ReadTransaction, ReadableTable, Table, TableDefinition, TableError, WriteTransaction,
};

use super::file::fault;
use crate::{
    Entry, Key, LeaseId, PAGE_BYTES_MAX, Page, Prefix, StoreError,
    apply::State,
    record::{self, Head, Lease},
};

/// The layout of the tables; a file of another layout is refused.
const FORMAT: u64 = 1;

/// key -> record.
const RECORDS: TableDefinition<&str, &[u8]> = TableDefinition::new("records");
/// lease -> (ttl ms, expiry ms since 1970, number of keys).
const LEASES: TableDefinition<u64, (u64, u64, u64)> = TableDefinition::new("leases");
/// (expiry ms since 1970, lease).
const DUE: TableDefinition<(u64, u64), ()> = TableDefinition::new("lease_due");
/// (lease, key).
const LINKS: TableDefinition<(u64, &str), ()> = TableDefinition::new("lease_keys");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

const META_FORMAT: &str = "format";
/// The last number given to a transaction or lease.
const META_NUMBER: &str = "number";
/// How many records there are, and the wrapping sum of their checksums: finds lost records.
const META_COUNT: &str = "records";
const META_SUM: &str = "checksum";

/// The tables, open for one commit.
pub(super) struct Write<'t> {
    path: &'t Path,
    records: Table<'t, &'static str, &'static [u8]>,
    leases: Table<'t, u64, (u64, u64, u64)>,
    due: Table<'t, (u64, u64), ()>,
    links: Table<'t, (u64, &'static str), ()>,
    meta: Table<'t, &'static str, u64>,
    counters: Counters,
    dirty: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Counters {
    number: u64,
    count: u64,
    sum: u64,
}

impl<'t> Write<'t> {
    pub(super) fn open(path: &'t Path, txn: &'t WriteTransaction) -> Result<Self, StoreError> {
        let meta = txn.open_table(META).map_err(|e| fault(path, e))?;
        let read = |name| -> Result<Option<u64>, StoreError> {
            Ok(meta.get(name).map_err(|e| fault(path, e))?.map(|v| v.value()))
        };
        let counters = Counters {
            number: read(META_NUMBER)?.unwrap_or(0),
            count: read(META_COUNT)?.unwrap_or(0),
            sum: read(META_SUM)?.unwrap_or(0),
        };
        match read(META_FORMAT)? {
            None if counters == Counters::default() => {}
            Some(FORMAT) => {}
            other => return Err(wrong_format(path, other)),
        }
        Ok(Self {
            path,
            records: txn.open_table(RECORDS).map_err(|e| fault(path, e))?,
            leases: txn.open_table(LEASES).map_err(|e| fault(path, e))?,
            due: txn.open_table(DUE).map_err(|e| fault(path, e))?,
            links: txn.open_table(LINKS).map_err(|e| fault(path, e))?,
            meta,
            counters,
            dirty: false,
        })
    }

    /// Makes the tables of a new file.
    pub(super) fn format(mut self) -> Result<(), StoreError> {
        self.meta.insert(META_FORMAT, FORMAT).map_err(|e| fault(self.path, e))?;
        self.seal().map(drop)
    }

    /// Stores the counters; the number by which this commit can be recognised later, or `None` if
    /// there is nothing to commit.
    pub(super) fn seal(mut self) -> Result<Option<u64>, StoreError> {
        if !self.dirty && self.counters.number != 0 {
            return Ok(None);
        }
        self.counters.number += 1;
        let Counters { number, count, sum } = self.counters;
        for (name, value) in [(META_NUMBER, number), (META_COUNT, count), (META_SUM, sum)] {
            self.meta.insert(name, value).map_err(|e| fault(self.path, e))?;
        }
        Ok(Some(number))
    }
}

impl State for Write<'_> {
    fn head(&self, key: &Key) -> Result<Option<Head>, StoreError> {
        let found = self.records.get(key.as_str()).map_err(|e| fault(self.path, e))?;
        found
            .map(|r| record::decode_head(key, r.value()).ok_or_else(|| rotten(self.path, key)))
            .transpose()
    }

    fn write(&mut self, key: &Key, head: Head, value: &[u8]) -> Result<(), StoreError> {
        self.dirty = true;
        let bytes = record::encode(key, head, value);
        let old = self
            .records
            .insert(key.as_str(), bytes.as_slice())
            .map_err(|e| fault(self.path, e))?
            .map(|old| record::stored_checksum(old.value()));
        self.counters.count += u64::from(old.is_none());
        let sum = self.counters.sum.wrapping_sub(old.unwrap_or(0));
        self.counters.sum = sum.wrapping_add(record::stored_checksum(&bytes));
        Ok(())
    }

    fn remove(&mut self, key: &Key) -> Result<(), StoreError> {
        self.dirty = true;
        let old = self.records.remove(key.as_str()).map_err(|e| fault(self.path, e))?;
        if let Some(old) = old {
            self.counters.count = self.counters.count.wrapping_sub(1);
            let sum = self.counters.sum;
            self.counters.sum = sum.wrapping_sub(record::stored_checksum(old.value()));
        }
        Ok(())
    }

    fn lease(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        let found = self.leases.get(id.0).map_err(|e| fault(self.path, e))?;
        Ok(found.map(|row| lease_of(row.value())))
    }

    fn set_lease(
        &mut self,
        id: LeaseId,
        old: Option<Lease>,
        new: Option<Lease>,
    ) -> Result<(), StoreError> {
        self.dirty = true;
        let path = self.path;
        if let Some(old) = old {
            self.due.remove((old.expires_ms, id.0)).map_err(|e| fault(path, e))?;
            self.leases.remove(id.0).map_err(|e| fault(path, e))?;
        }
        if let Some(Lease { ttl_ms, expires_ms, keys }) = new {
            self.due.insert((expires_ms, id.0), ()).map_err(|e| fault(path, e))?;
            let row = (ttl_ms, expires_ms, keys);
            self.leases.insert(id.0, row).map_err(|e| fault(path, e))?;
        }
        Ok(())
    }

    fn link(&mut self, id: LeaseId, key: &Key) -> Result<(), StoreError> {
        self.links.insert((id.0, key.as_str()), ()).map_err(|e| fault(self.path, e))?;
        Ok(())
    }

    fn unlink(&mut self, id: LeaseId, key: &Key) -> Result<(), StoreError> {
        self.links.remove((id.0, key.as_str())).map_err(|e| fault(self.path, e))?;
        Ok(())
    }

    fn linked(&self, id: LeaseId) -> Result<Vec<Key>, StoreError> {
        let rows = self.links.range((id.0, "")..(id.0.saturating_add(1), ""));
        let mut keys = Vec::new();
        for row in rows.map_err(|e| fault(self.path, e))? {
            let (link, _) = row.map_err(|e| fault(self.path, e))?;
            keys.push(parse_key(self.path, link.value().1)?);
        }
        Ok(keys)
    }

    fn due(&self, now_ms: u64, max: usize) -> Result<Vec<LeaseId>, StoreError> {
        let rows = self.due.range(..=(now_ms, u64::MAX)).map_err(|e| fault(self.path, e))?;
        rows.take(max)
            .map(|row| Ok(LeaseId(row.map_err(|e| fault(self.path, e))?.0.value().1)))
            .collect()
    }

    fn next_number(&mut self) -> Result<u64, StoreError> {
        self.dirty = true;
        self.counters.number += 1;
        Ok(self.counters.number)
    }

    fn last_number(&self) -> Result<u64, StoreError> {
        Ok(self.counters.number)
    }
}

/// One snapshot of the file.
pub(super) struct Snapshot<'t> {
    path: &'t Path,
    txn: ReadTransaction,
    now_ms: u64,
}

impl<'t> Snapshot<'t> {
    pub(super) fn new(path: &'t Path, txn: ReadTransaction, now_ms: u64) -> Self {
        Self { path, txn, now_ms }
    }

    pub(super) fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let records = self.txn.open_table(RECORDS).map_err(|e| fault(self.path, e))?;
        let Some(row) = records.get(key.as_str()).map_err(|e| fault(self.path, e))? else {
            return Ok(None);
        };
        self.live(key, row.value())
    }

    pub(super) fn scan(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let records = self.txn.open_table(RECORDS).map_err(|e| fault(self.path, e))?;
        let after = after.map(Key::as_str).filter(|after| *after >= prefix.as_str());
        let start = after.unwrap_or(prefix.as_str());
        let mut page = Page::default();
        let mut bytes = 0;
        for row in records.range(start..).map_err(|e| fault(self.path, e))? {
            let (key, value) = row.map_err(|e| fault(self.path, e))?;
            if Some(key.value()) == after {
                continue;
            }
            let key = parse_key(self.path, key.value())?;
            if !prefix.covers(&key) {
                break;
            }
            let Some(entry) = self.live(&key, value.value())? else { continue };
            if page.entries.len() >= limit || bytes >= PAGE_BYTES_MAX {
                page.next = page.entries.last().map(|e| e.key.clone());
                break;
            }
            bytes += entry.value.len();
            page.entries.push(entry);
        }
        Ok(page)
    }

    /// Whether some lease has expired.
    pub(super) fn any_due(&self) -> Result<bool, StoreError> {
        let due = self.txn.open_table(DUE).map_err(|e| fault(self.path, e))?;
        let mut rows = due.range(..=(self.now_ms, u64::MAX)).map_err(|e| fault(self.path, e))?;
        Ok(rows.next().transpose().map_err(|e| fault(self.path, e))?.is_some())
    }

    /// The last number given; `None` for a file in which no table was made yet.
    pub(super) fn number(&self) -> Result<Option<u64>, StoreError> {
        match self.txn.open_table(META) {
            Ok(meta) => {
                let number = meta.get(META_NUMBER).map_err(|e| fault(self.path, e))?;
                Ok(number.map(|n| n.value()))
            }
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(e) => Err(fault(self.path, e)),
        }
    }

    /// Reads every record and compares with the counters kept at each commit.
    pub(super) fn verify(&self) -> Result<(), StoreError> {
        let meta = self.txn.open_table(META).map_err(|e| fault(self.path, e))?;
        let read = |name| -> Result<Option<u64>, StoreError> {
            Ok(meta.get(name).map_err(|e| fault(self.path, e))?.map(|v| v.value()))
        };
        let format = read(META_FORMAT)?;
        if format != Some(FORMAT) {
            return Err(wrong_format(self.path, format));
        }
        let number = read(META_NUMBER)?.unwrap_or(0);
        let mut seen = Counters { number, ..Counters::default() };
        let records = self.txn.open_table(RECORDS).map_err(|e| fault(self.path, e))?;
        for row in records.iter().map_err(|e| fault(self.path, e))? {
            let (key, value) = row.map_err(|e| fault(self.path, e))?;
            let key = parse_key(self.path, key.value())?;
            record::decode_head(&key, value.value()).ok_or_else(|| rotten(self.path, &key))?;
            seen.count += 1;
            seen.sum = seen.sum.wrapping_add(record::stored_checksum(value.value()));
        }
        let kept = Counters {
            number,
            count: read(META_COUNT)?.unwrap_or(0),
            sum: read(META_SUM)?.unwrap_or(0),
        };
        if seen != kept {
            let detail = format!(
                "{} records found, {} expected, or their contents differ",
                seen.count, kept.count
            );
            return Err(StoreError::Corrupt { path: self.path.to_path_buf(), detail });
        }
        Ok(())
    }

    fn live(&self, key: &Key, bytes: &[u8]) -> Result<Option<Entry>, StoreError> {
        let (entry, lease) = record::decode(key, bytes).ok_or_else(|| rotten(self.path, key))?;
        let Some(id) = lease else { return Ok(Some(entry)) };
        let leases = self.txn.open_table(LEASES).map_err(|e| fault(self.path, e))?;
        let lease = leases.get(id.0).map_err(|e| fault(self.path, e))?;
        let live = lease.is_some_and(|row| lease_of(row.value()).expires_ms > self.now_ms);
        Ok(live.then_some(entry))
    }
}

fn lease_of((ttl_ms, expires_ms, keys): (u64, u64, u64)) -> Lease {
    Lease { ttl_ms, expires_ms, keys }
}

fn parse_key(path: &Path, text: &str) -> Result<Key, StoreError> {
    text.parse()
        .map_err(|e| StoreError::Corrupt { path: path.to_path_buf(), detail: format!("{e}") })
}

fn rotten(path: &Path, key: &Key) -> StoreError {
    let detail = format!("the checksum of {key} does not match");
    StoreError::Corrupt { path: path.to_path_buf(), detail }
}

fn wrong_format(path: &Path, found: Option<u64>) -> StoreError {
    let detail = match found {
        Some(found) => format!("it has format {found}, this program reads format {FORMAT}"),
        None => "it is not a registry".into(),
    };
    StoreError::Corrupt { path: path.to_path_buf(), detail }
}
