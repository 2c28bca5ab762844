//! The command line of `xosd`.

use super::config::DEFAULT_PATH;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use xos_base::SiteId;

/// The daemon of XOS: a site's core, or a node.
#[derive(Debug, Parser)]
#[command(name = "xosd", version, about, after_help = EXAMPLES)]
pub struct Args {
    /// Write the log as JSON, a line each.
    #[arg(long, global = true)]
    pub json_log: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  xosd setup --site rennes --address core.rennes.example:7443 --admin ada
  xosd join xos-join:n1.rennes:... --core core.rennes.example:7443
  xosd run
  xosd keys roll signing

The log goes to standard error; XOS_LOG sets its level (`info`, `xos_net=debug`, ...).
Exit codes: 0 clean stop, 64 bad configuration or arguments, 70 a fault, 73 something exists \
already, 75 not reachable or busy: try again later, 77 not allowed, 78 a token or a core is not \
what it should be.";

/// What `xosd` does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the services that the configuration holds.
    Run {
        /// The configuration file.
        #[arg(long, default_value = DEFAULT_PATH)]
        config: PathBuf,
        /// On a node: the control group (v2) in which those of units are made, as a path below its
        /// mount point. Default: the daemon's own, and systemd cannot start it again under units.
        #[arg(long, value_name = "PATH")]
        cgroup: Option<PathBuf>,
    },
    /// Read the configuration and say what is wrong with it.
    Check {
        /// The configuration file.
        #[arg(long, default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
    /// Make this machine the core of a new site.
    Setup(Setup),
    /// Make this machine a node of a site.
    Join(Join),
    /// Show the site's keys, or replace one while the core runs.
    Keys(Keys),
    /// Mount a volume; started by a node's xosd.
    #[command(hide = true)]
    Mount {
        /// The file that says what to mount.
        spec: PathBuf,
    },
}

/// `xosd setup`.
#[derive(Debug, clap::Args)]
pub struct Setup {
    /// The site's id: 1 to 24 of a-z, 0-9 and '-'.
    #[arg(long)]
    pub site: SiteId,
    /// Where others reach this core, `host:port`; may be given several times.
    #[arg(long = "address", required = true)]
    pub addresses: Vec<String>,
    /// Further DNS names and IP addresses for the core's certificate, for browsers.
    #[arg(long = "name")]
    pub names: Vec<String>,
    /// The name of the first site administrator.
    #[arg(long)]
    pub admin: String,
    /// A file with the administrator's password, `-` for standard input; asked for otherwise.
    #[arg(long)]
    pub password_file: Option<PathBuf>,
    /// Where to keep state.
    #[arg(long, default_value = "/var/lib/xos")]
    pub state: PathBuf,
    /// The configuration file to write.
    #[arg(long, default_value = DEFAULT_PATH)]
    pub config: PathBuf,
    /// Make the site's keys in a token: the library (PKCS #11) that came with it.
    #[arg(long, value_name = "PATH", requires_all = ["pkcs11_token", "pkcs11_pin_file"])]
    pub pkcs11_module: Option<PathBuf>,
    /// The token's label.
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    pub pkcs11_token: Option<String>,
    /// A file with the token's PIN, which root alone may read.
    #[arg(long, value_name = "FILE", requires = "pkcs11_module")]
    pub pkcs11_pin_file: Option<PathBuf>,
}

/// `xosd keys`.
#[derive(Debug, clap::Args)]
pub struct Keys {
    /// The configuration file.
    #[arg(long, global = true, default_value = DEFAULT_PATH)]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What `xosd keys` does.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Show each key: what it is for, whether it signs, until when it counts.
    List,
    /// Make a new key in the place of one; what that signed counts until it expires.
    Roll(Roll),
}

/// `xosd keys roll`.
#[derive(Debug, clap::Args)]
pub struct Roll {
    /// Which key.
    pub purpose: KeyPurpose,
    /// Drop the former key at once, since somebody else has got hold of it: what it signed is
    /// refused.
    #[arg(long)]
    pub now: bool,
}

/// Keys that can be replaced.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum KeyPurpose {
    /// Statements: VO logs, tokens, mandates, tickets.
    Signing,
    /// SSH certificates of people.
    SshPeople,
    /// SSH certificates of machines.
    SshMachines,
    /// JWTs for services outside.
    Jwt,
    /// The authority that makes members' certificates.
    People,
    /// The authority that makes machines' certificates.
    Machines,
}

/// `xosd join`.
#[derive(Debug, clap::Args)]
pub struct Join {
    /// The one-time token that `xos node token` printed, or `-` to read it from standard input.
    pub token: String,
    /// Where the core listens, `host:port`.
    #[arg(long)]
    pub core: String,
    /// Keep no file objects on this node.
    #[arg(long)]
    pub no_osd: bool,
    /// Where to keep state.
    #[arg(long, default_value = "/var/lib/xos")]
    pub state: PathBuf,
    /// The configuration file to write.
    #[arg(long, default_value = DEFAULT_PATH)]
    pub config: PathBuf,
}
