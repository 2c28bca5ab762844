//! Application execution management: jobs and units.

pub mod check;
#[cfg(test)]
mod golden;
pub mod state;
#[cfg(test)]
mod testing;
