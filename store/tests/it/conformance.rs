use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use xos_store::{
    ManualClock, MemoryStore, RedbStore, Store, StoreError,
    conformance::{Factory, run_all},
};

struct Memory;

#[async_trait]
impl Factory for Memory {
    async fn make(&self, clock: Arc<ManualClock>) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(MemoryStore::with_clock(clock)))
    }
}

struct Redb {
    dir: tempfile::TempDir,
    made: AtomicU32,
}

#[async_trait]
impl Factory for Redb {
    async fn make(&self, clock: Arc<ManualClock>) -> Result<Arc<dyn Store>, StoreError> {
        let name = format!("{}.redb", self.made.fetch_add(1, Ordering::SeqCst));
        Ok(Arc::new(RedbStore::open_with_clock(self.dir.path().join(name), clock)?))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_conforms() {
    if let Err(failure) = run_all(&Memory).await {
        panic!("{failure}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redb_conforms() {
    let redb = Redb { dir: tempfile::tempdir().unwrap(), made: AtomicU32::new(0) };
    if let Err(failure) = run_all(&redb).await {
        panic!("{failure}");
    }
}
