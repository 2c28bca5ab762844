//! What this core knows of jobs: pure machines. Every change is a record; the same records in the
//! same order give the same state.

mod apply;
pub mod host;
mod host_apply;
pub mod job;
pub mod names;
pub mod record;
pub mod runs;
mod settle;
pub mod table;
pub mod unit;

pub use host::HostTable;
pub use job::Job;
pub use record::{HostRecord, JobRecord, Record};
pub use table::{JobTable, Touched};
