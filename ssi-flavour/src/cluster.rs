//! What a cluster decides, without I/O: who is in it, where each tree runs, how one moves, what is
//! left of it when a node fails.
//!
//! One *controller* decides ([`controller::Controller`]); each node obeys with an [`agent::Agent`].
//! Four rules keep a tree from living twice, and its work from being lost:
//!
//! 1. A copy of a tree has an *epoch*, a number given once. A copy made for a move or a restart is
//!    stopped; it runs when the controller has recorded that it is the tree now (the *commit*), and
//!    the copy before it never runs again. What was not committed is killed before its source goes
//!    on; what was committed is never taken back.
//! 2. What the controller decides is a [`record::Record`]; it is on the disk before anything that
//!    follows from it leaves the controller ([`record::Effect`]). What nodes are to do follows from
//!    the state and is said again with each heartbeat until it is done, so that a lost order, a
//!    lost answer and a controller that begins anew are one case.
//! 3. What nodes answer are facts that stay true: late or doubled they change nothing.
//! 4. A node runs trees under a *term* that the controller gave, while its *lease* lasts: so long
//!    after it sent a heartbeat that was answered, on its own clock. The controller ends a term only
//!    when that lease surely ended, or on the node's word that nothing of it is left.

pub mod agent;
pub mod clock;
pub mod controller;
pub mod cost;
mod crash;
pub mod interval;
pub mod members;
pub mod messages;
pub mod output;
pub mod place;
pub mod processors;
pub mod queue;
pub mod record;
pub mod trees;

#[cfg(test)]
mod cases;
#[cfg(test)]
mod sim;
