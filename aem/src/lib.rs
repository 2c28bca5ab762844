//! Application execution management: jobs and units.

#[cfg(test)]
mod golden;
pub mod state;
#[cfg(test)]
mod testing;
