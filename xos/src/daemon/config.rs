//! The configuration file of `xosd`: one TOML file, a section for each service. A section that
//! is present means that the service runs here.

use serde::Deserialize;
use std::path::{Path, PathBuf};
use xos_base::{Error, SiteId};

/// Where `xosd` looks for its configuration unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/xos/xosd.toml";

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[site]`: the site, and where state is kept. Always needed.
    pub site: Site,
    /// `[port]`: the core's port. Present on a core.
    pub port: Option<xos_net::port::Config>,
    /// `[cda]`: sign-in and credentials.
    pub cda: Option<xos_cda::Config>,
    /// `[vom]`: virtual organizations.
    pub vom: Option<xos_vom::Config>,
    /// `[aem]`: jobs.
    pub aem: Option<xos_aem::Config>,
    /// `[files]`: DIR and MRC of the volumes of VOs that are at home here.
    pub files: Option<super::files::Config>,
    /// `[cluster]`: clusters of nodes of the site.
    pub cluster: Option<xos_ssi::service::Config>,
    /// `[console]`: the web pages.
    pub console: Option<xos_console::Config>,
    /// `[ssh_host]`: the site certifies the host keys of the core's own sshd, so that ssh asks
    /// nobody about them. The certificates lie in `ssh` in the state folder, which sshd is to read:
    /// `HostCertificate /var/lib/xos/ssh/ssh_host_ed25519_key-cert.pub`. They hold as long as
    /// those of nodes (`machine_s` in `[cda]`) and are renewed at two thirds of that.
    pub ssh_host: Option<xos_node::hosts::Config>,
    /// `[node]`: this machine runs units. Present on a node, with neither of the above.
    pub node: Option<xos_node::agent::Config>,
    /// `[osd]`: this node keeps file objects.
    pub osd: Option<super::osd::Config>,
}

/// `[site]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// The site's id.
    pub name: SiteId,
    /// Where `xosd` keeps its state. Others may look names up in it; keys and records are root's
    /// alone. Default `/var/lib/xos`.
    #[serde(default = "default_state")]
    pub state: PathBuf,
}

fn default_state() -> PathBuf {
    PathBuf::from("/var/lib/xos")
}

/// What a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A site's core.
    Core,
    /// A node.
    Node,
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] with path, line and column.
    pub fn read(path: &Path) -> Result<Config, Error> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| {
            Error::invalid(format!("cannot read {shown}: {e}"))
                .hint("`xosd setup` (core) or `xosd join` (node) writes one")
        })?;
        let config: Config = xos_base::config::parse(&shown, &text)?;
        config.role()?;
        Ok(config)
    }

    /// What this machine is, from the sections that are present.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when the sections do not go together.
    pub fn role(&self) -> Result<Role, Error> {
        let core = [
            ("cda", self.cda.is_some()),
            ("vom", self.vom.is_some()),
            ("aem", self.aem.is_some()),
            ("files", self.files.is_some()),
            ("cluster", self.cluster.is_some()),
            ("console", self.console.is_some()),
            ("ssh_host", self.ssh_host.is_some()),
        ];
        let stray = core.iter().find(|(_, present)| *present).map(|(name, _)| *name);
        match (&self.port, &self.node, stray) {
            (Some(_), Some(_), _) => Err(Error::invalid(
                "the sections [port] and [node] are both present: a machine is a core or a node",
            )
            .hint("run a second xosd with its own configuration and state for the other")),
            (None, None, _) => Err(Error::invalid("neither [port] (a core) nor [node] is present")),
            (None, Some(_), Some(name)) => {
                Err(Error::invalid(format!("section [{name}] belongs to a core, not to a node")))
            }
            (Some(_), None, _) if self.osd.is_some() => {
                Err(Error::invalid("section [osd] belongs to a node"))
            }
            (Some(_), None, _) => Ok(Role::Core),
            (None, Some(_), None) => Ok(Role::Node),
        }
    }
}
