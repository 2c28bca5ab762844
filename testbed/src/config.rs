use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{HostName, Prefix, Result};

/// What a testbed is made from.
#[derive(Clone, Debug)]
pub struct TestbedConfig {
    /// The folder that holds everything; made if missing, otherwise empty or a former testbed's.
    pub dir: PathBuf,
    /// A name for people: part of the cgroups' names.
    pub name: HostName,
    /// The hosts' addresses; testbeds do not share networks, so all may use the default.
    pub prefix: Prefix,
    /// The program `testbed`; by default looked for next to the running program and in the two
    /// folders above it (`target/debug` for tests). Its folder is visible in every host.
    pub helper: Option<PathBuf>,
    /// Folders of the machine that every host sees.
    pub shares: Vec<Share>,
    /// `true`: the testbed outlives this process and the [`crate::Testbed`] value.
    pub detach: bool,
}

impl TestbedConfig {
    /// A testbed in `dir` with the defaults: 10.77.0.0/16, not detached, no shares.
    ///
    /// # Errors
    /// When `name` is no [`HostName`].
    pub fn new(dir: impl Into<PathBuf>, name: &str) -> Result<Self> {
        Ok(TestbedConfig {
            dir: dir.into(),
            name: name.parse()?,
            prefix: Prefix::DEFAULT,
            helper: None,
            shares: Vec::new(),
            detach: false,
        })
    }
}

/// A folder of the machine that hosts see, at the same or another path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The folder on the machine.
    pub from: PathBuf,
    /// Its absolute path in the host.
    pub to: PathBuf,
    /// Whether hosts may change it.
    pub writable: bool,
}

/// What a host is made from.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// Its hostname, known to all hosts of the testbed.
    pub name: HostName,
    /// Its address; by default the next free one.
    pub address: Option<Ipv4Addr>,
}

impl HostSpec {
    /// A host with the next free address.
    ///
    /// # Errors
    /// When `name` is no [`HostName`].
    pub fn new(name: &str) -> Result<Self> {
        Ok(HostSpec { name: name.parse()?, address: None })
    }

    /// The same host with this address.
    pub fn address(mut self, address: Ipv4Addr) -> Self {
        self.address = Some(address);
        self
    }
}
