//! Many hosts on one machine, for the demo, end-to-end tests and benchmarks.
//!
//! A [`Testbed`] is a folder and a *switch*: a network namespace with a bridge. A [`Host`] is a set
//! of namespaces (mount, network, process, UTS, IPC, cgroup) on one port of that switch, with its
//! own address, hostname and file system. The machine's own namespaces are not touched: no mount,
//! interface or route appears in them; only [`Testbed::forward`] opens a loopback port there.
//! Controllers of control groups v2 that the machine's root does not pass on are switched on there
//! while there are testbeds.
//!
//! # A host's file system
//!
//! | path | what it is | survives [`Host::restart`] |
//! | --- | --- | --- |
//! | `/etc /var /usr /opt /srv /root` | the machine's, copy-on-write | yes |
//! | `/home /var/lib/xos /var/log /var/tmp` | the host's own folders | yes |
//! | `/run /tmp /dev /dev/shm /xtreemfs` | in memory | no |
//! | `/proc /sys /sys/fs/cgroup` | the host's own view | |
//! | other folders at the top | the machine's, read-only | |
//! | the folder of the helper program, and [`Share`]s | the machine's | |
//!
//! A copy-on-write folder that holds the testbed's folder itself keeps its changes in memory.
//! Mounts are shared inside a host (a FUSE mount made by one program is seen by the next) and
//! invisible outside.
//!
//! # Life and death
//!
//! State is a file in the folder, so any process may [`Testbed::open`] it. Processes are named by
//! pid and start time. Unless the testbed is detached, its processes hold a pipe to the process
//! that created it and end with it, whatever killed it; [`Testbed::open`] and [`Testbed::destroy`]
//! then remove cgroups and files. Hosts are for our own tests: root in a host is not kept from
//! harming the machine.

pub mod bench;
mod cgroup;
mod command;
mod config;
mod error;
mod etc;
pub mod grid;
pub mod helper;
mod host;
mod identity;
mod launch;
mod names;
mod network;
pub mod removal;
mod rootfs;
mod state;
mod status;
mod sys;
mod testbed;

pub use command::{Cmd, Exit, Output, Process, Stdio};
pub use config::{HostSpec, Share, TestbedConfig};
pub use error::Error;
pub use host::Host;
pub use names::{HostName, Prefix};
pub use network::Link;
pub use rustix::process::Signal;
pub use testbed::{HostStatus, Testbed};

/// What the crate's operations answer.
pub type Result<T, E = Error> = std::result::Result<T, E>;
