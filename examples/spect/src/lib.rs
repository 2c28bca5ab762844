//! Monte Carlo simulation and reconstruction of a SPECT slice: the example job.
//!
//! The work has three steps, each a sub-command of the program `spect`: a [`Phantom`] is written,
//! many independent units [`simulate`](transport::simulate) photons from it and write one
//! [`Histogram`] each, and a last step [merges](merge::Merger) the histograms and
//! [reconstructs](recon::System) the slice. Nothing here prints; only [`files`] touches the disk.

pub mod camera;
pub mod codec;
pub mod files;
pub mod histogram;
pub mod merge;
pub mod phantom;
pub mod picture;
pub mod recon;
pub mod rng;
pub mod transport;

pub use histogram::Histogram;
pub use phantom::Phantom;
