//! Grids made for real: two sites, people, a VO, its volume, jobs; and everything that goes wrong.
//!
//! Each test has a grid of its own. They need root, network namespaces, FUSE and the programs of
//! the whole workspace beside the one of the testbed (`cargo build --workspace --bins --lib`).
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

mod attacker;
mod cluster;
mod cluster_faults;
mod cluster_jobs;
mod cluster_kinds;
mod cluster_members;
mod cluster_shell;
mod cluster_sites;
mod credentials;
mod cuts;
mod data;
mod demo;
mod faults;
mod flow;
mod forge;
mod full;
mod host_keys;
mod load;
mod login;
mod login_auth;
mod login_cron;
mod login_keys;
mod login_limits;
mod manual;
mod names;
mod own_data;
mod proofs;
mod refuse;
mod removal;
mod rooted;
mod service;
mod signed_in;
mod sshd;
mod standing;
mod tool;
mod why;
mod wire;
mod world;
