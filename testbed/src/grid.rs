//! A grid of sites on a testbed: what the demo, the end-to-end tests and the benchmarks start.
//!
//! Everything is done as people do it: `xosd setup`, `xosd join`, and the `xos` tool.

mod enrol;
mod install;
mod people;
mod site;

pub use people::{PASSWORDS_DIR, Person, Purse, as_user};
pub use site::{Site, SiteSpec, sshd};

use crate::{Cmd, Error, Exit, Host, HostSpec, Output, Result, Share, Testbed, TestbedConfig};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What every grid's testbed is called.
const NAME: &str = "xos";
/// Where a grid's programs are in every host.
const BIN: &str = "/usr/local/bin";
/// The port of every core.
pub const PORT: u16 = 7443;
/// How long a service may take to be there.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How often to look whether something is there.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A testbed with sites and one host from which people work, called `laptop`.
pub struct Grid {
    testbed: Testbed,
    programs: PathBuf,
    purse: Purse,
}

impl Grid {
    /// A grid without sites, in `dir`, with the programs in the folder `programs`
    /// (`target/debug` or `target/release`).
    ///
    /// # Errors
    /// As [`Testbed::create`], and when a program is missing.
    pub fn create(dir: &Path, programs: &Path, detach: bool) -> Result<Grid> {
        let programs = install::check(programs)?;
        let mut config = TestbedConfig::new(dir, NAME)?;
        config.helper = Some(programs.join("testbed"));
        config.detach = detach;
        // Hosts have a /tmp of their own: so they see a clone that lies there.
        let mut shares = vec![programs.clone()];
        shares.extend(programs.parent().map(|built| built.join("criu")).filter(|dir| dir.is_dir()));
        config.shares = shares
            .into_iter()
            .map(|dir| Share { from: dir.clone(), to: dir, writable: false })
            .collect();
        let testbed = Testbed::create(config)?;
        let purse = Purse::new(dir)?;
        let grid = Grid { testbed, programs, purse };
        let laptop = grid.testbed.add_host(HostSpec::new("laptop")?)?;
        install::tools(&laptop, &grid.programs)?;
        Ok(grid)
    }

    /// Ends what runs of a grid whose folder was removed under it. Whether there was anything.
    ///
    /// # Errors
    /// As [`Testbed::end_lost`].
    pub fn end_lost(dir: &Path) -> Result<bool> {
        Testbed::end_lost(&NAME.parse()?, dir)
    }

    /// The testbed below.
    pub fn testbed(&self) -> &Testbed {
        &self.testbed
    }

    /// Where people's passwords are kept.
    pub fn purse(&self) -> &Purse {
        &self.purse
    }

    /// The host from which people work.
    ///
    /// # Errors
    /// As [`Testbed::host`].
    pub fn laptop(&self) -> Result<Host> {
        self.testbed.host("laptop")
    }

    /// Adds a site with its core and nodes, all of them running and joined.
    ///
    /// # Errors
    /// The first step that failed, with its output.
    pub fn add_site(&self, spec: &SiteSpec) -> Result<Site> {
        Site::create(&self.testbed, &self.programs, &self.purse, spec)
    }

    /// Runs the `xos` tool as `person` on the laptop; its output, when it ended well.
    ///
    /// # Errors
    /// [`Error::Failed`] with what it printed.
    pub fn xos(&self, person: &Person, args: &[&str]) -> Result<String> {
        self.xos_output(person, args)?.ok()
    }

    /// Runs the `xos` tool as `person`, whatever its exit status.
    ///
    /// # Errors
    /// When it cannot be run, or takes more than two minutes.
    pub fn xos_output(&self, person: &Person, args: &[&str]) -> Result<Output> {
        let cmd = person.command("xos").args(args).limit(Duration::from_secs(120));
        self.laptop()?.run(&cmd)
    }
}

/// Waits until `test` answers something, looking again and again.
///
/// # Errors
/// [`Error::Deadline`] naming `what` when that takes longer than 30 s; or what `test` says.
pub fn wait_for<T>(what: &str, test: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    wait_within(READY_LIMIT, what, test)
}

/// The same for what may take longer, or should not take as long.
///
/// # Errors
/// As [`wait_for`], by this limit.
pub fn wait_within<T>(
    limit: Duration,
    what: &str,
    mut test: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = test()? {
            return Ok(found);
        }
        if start.elapsed() > limit {
            return Err(Error::Deadline { what: what.to_owned(), limit });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until a TCP port of `host` accepts connections, as seen from the host itself.
fn wait_for_port(host: &Host, port: u16) -> Result<()> {
    let probe = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
    wait_for(&format!("port {port} of {}", host.name()), || {
        let out = host.run(&Cmd::shell(probe.as_str()))?;
        Ok(matches!(out.exit, Exit::Code(0)).then_some(()))
    })
}
