//! A site: its core and nodes.

use super::{PORT, Person, Purse, install, wait_for, wait_for_port};
use crate::{Cmd, Error, Host, HostSpec, Process, Result, Testbed};
use std::path::Path;

/// Where sshd listens.
const SSH_PORT: u16 = 22;

/// What a site is made from.
#[derive(Clone, Debug)]
pub struct SiteSpec {
    /// The site's id.
    pub name: String,
    /// How many nodes, called `n1`, `n2`, …
    pub nodes: usize,
    /// Processors that each node offers, in thousandths of one.
    pub cpu_milli: u32,
    /// Memory that each node offers, in bytes.
    pub memory_bytes: u64,
    /// Whether people may sign in to the nodes by ssh.
    pub login: bool,
    /// Lines for the section `[node.login]` of the nodes, where people may sign in.
    pub login_config: String,
    /// Whether the nodes may be in a cluster.
    pub cluster: bool,
    /// Lines for the section `[cluster]` of the core.
    pub cluster_config: String,
    /// Lines for the core's configuration beyond what `xosd setup` writes.
    pub core_config: String,
}

impl SiteSpec {
    /// A site with two nodes of two processors and 2 GiB.
    pub fn new(name: &str) -> SiteSpec {
        SiteSpec {
            name: name.to_owned(),
            nodes: 2,
            cpu_milli: 2000,
            memory_bytes: 2 << 30,
            login: false,
            login_config: String::new(),
            cluster: false,
            cluster_config: String::new(),
            core_config: String::new(),
        }
    }
}

/// A running site.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its id.
    pub name: String,
    /// Its core.
    pub core: Host,
    /// Its nodes, `n1` first.
    pub nodes: Vec<Host>,
    /// Its first administrator.
    pub admin: Person,
    /// The fingerprint of its root.
    pub fingerprint: String,
}

impl Site {
    /// Whether this machine has what [`SiteSpec::login`] needs: OpenSSH's server, and Debian's way
    /// to name PAM modules.
    pub fn can_be_signed_in_to() -> bool {
        install::LOGIN_NEEDS.iter().all(|program| Path::new(program).exists())
    }

    pub(super) fn create(
        testbed: &Testbed,
        programs: &Path,
        purse: &Purse,
        spec: &SiteSpec,
    ) -> Result<Site> {
        let name = spec.name.as_str();
        let admin = purse.person("ada", name)?;
        let core = testbed.add_host(HostSpec::new(&format!("{name}-core"))?)?;
        install::daemon(&core, programs, false)?;
        install::tools(&core, programs)?;
        let address = format!("{name}-core:{PORT}");
        let args = ["setup", "--site", name, "--address", &address, "--name", "localhost"];
        let setup = Cmd::new("xosd")
            .args(args)
            .args(["--name", &format!("{name}-core"), "--admin", "ada", "--password-file", "-"])
            .stdin(admin.password.as_bytes());
        let said = core.run(&setup)?.ok()?;
        let fingerprint = said
            .split_whitespace()
            .find(|w| w.starts_with("sha256:"))
            .ok_or_else(|| Error::Start {
                what: "xosd setup".into(),
                reason: format!("it printed no fingerprint: {said}"),
            })?
            .to_owned();
        if !spec.core_config.is_empty() || !spec.cluster_config.is_empty() {
            let path = "/etc/xos/xosd.toml";
            let config = String::from_utf8_lossy(&core.read_file(path)?).into_owned();
            let section = format!("[cluster]\n{}", spec.cluster_config);
            let config = config.replacen("[cluster]", &section, 1) + &spec.core_config;
            core.write_file(path, config.as_bytes(), 0o600)?;
        }
        let mut site = Site { name: name.to_owned(), core, nodes: Vec::new(), admin, fingerprint };
        site.start_core()?;
        site.sign_in_admin()?;
        for i in 1..=spec.nodes {
            let node = site.add_node(testbed, programs, &format!("n{i}"), spec)?;
            site.nodes.push(node);
        }
        site.wait_for_nodes()?;
        Ok(site)
    }

    /// Starts the core's `xosd` and waits until its port answers.
    ///
    /// # Errors
    /// When it ends or does not answer in time.
    pub fn start_core(&self) -> Result<Process> {
        let process = start_xosd(&self.core)?;
        wait_for_port(&self.core, PORT)?;
        Ok(process)
    }

    /// Starts the `xosd` of a node.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_node(&self, node: &Host) -> Result<Process> {
        start_xosd(node)
    }

    /// Boots a node that was killed, as an init system does: its `xosd`, and sshd where people sign
    /// in to it (`login`). What is in memory, as `/run`, is new.
    ///
    /// # Errors
    /// The first step that failed, with its output.
    pub fn boot_node(&self, node: &Host, login: bool) -> Result<()> {
        node.restart()?;
        start_xosd(node)?;
        if login {
            node.run(&Cmd::new("mkdir").args(["-p", "/run/sshd"]))?.ok()?;
            start_sshd(node)?;
        }
        Ok(())
    }

    /// The same as [`Site::start_node`], as an init system does that listens at `socket`, a
    /// path in the host, to what services tell by sd_notify(3).
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_node_notifying(&self, node: &Host, socket: &str) -> Result<Process> {
        node.spawn(&xosd()?.env("NOTIFY_SOCKET", socket))
    }

    /// Runs the `xos` tool on the core as its administrator.
    ///
    /// # Errors
    /// [`Error::Failed`] with what it printed.
    pub fn admin(&self, args: &[&str]) -> Result<String> {
        self.core.run(&self.admin.command("xos").args(args))?.ok()
    }

    /// Signs the administrator in (again).
    ///
    /// # Errors
    /// As [`Site::admin`].
    pub fn sign_in_admin(&self) -> Result<()> {
        let address = format!("{}-core:{PORT}", self.name);
        self.admin(&["site", "add", &address, "--fingerprint", &self.fingerprint])?;
        let login = self
            .admin
            .command("xos")
            .args(["login", &self.admin.id(), "--password-file", "-"])
            .stdin(self.admin.password.as_bytes());
        self.core.run(&login)?.ok().map(drop)
    }

    fn add_node(
        &self,
        testbed: &Testbed,
        programs: &Path,
        label: &str,
        spec: &SiteSpec,
    ) -> Result<Host> {
        let host = testbed.add_host(HostSpec::new(&format!("{}-{label}", self.name))?)?;
        install::daemon(&host, programs, true)?;
        install::tools(&host, programs)?;
        let made = self.admin(&["node", "token", label])?;
        let token = made.split_whitespace().find(|w| w.starts_with("xos-join:"));
        let token = token.ok_or_else(|| Error::Start {
            what: "xos node token".into(),
            reason: format!("it printed no token: {made}"),
        })?;
        let core = format!("{}-core:{PORT}", self.name);
        let join = Cmd::new("xosd").args(["join", "-", "--core", &core]).stdin(token.as_bytes());
        host.run(&join)?.ok()?;
        let path = "/etc/xos/xosd.toml";
        let config = String::from_utf8_lossy(&host.read_file(path)?).into_owned();
        let offer =
            format!("[node]\ncpu_milli = {}\nmemory_bytes = {}", spec.cpu_milli, spec.memory_bytes);
        let mut config = config.replacen("[node]", &offer, 1);
        if spec.login {
            install::login(&host, programs)?;
            config.push_str("\n[node.login]\n");
            config.push_str(&spec.login_config);
        }
        if spec.cluster {
            install::movable(&host, programs)?;
            config.push_str("\n[node.cluster]\n");
        }
        host.write_file(path, config.as_bytes(), 0o600)?;
        start_xosd(&host)?;
        if spec.login {
            start_sshd(&host)?;
        }
        Ok(host)
    }

    /// Waits until every node is connected.
    ///
    /// # Errors
    /// When one is not in time.
    pub fn wait_for_nodes(&self) -> Result<()> {
        let wanted = self.nodes.len();
        wait_for(&format!("the nodes of {}", self.name), || {
            let list = self.admin(&["node", "list"])?;
            let connected = list.lines().filter(|l| l.contains(" connected")).count();
            Ok((connected >= wanted).then_some(()))
        })
    }
}

/// Starts `xosd` as an init system does.
fn start_xosd(host: &Host) -> Result<Process> {
    host.spawn(&xosd()?)
}

/// Starts sshd once its host certificate is there.
fn start_sshd(host: &Host) -> Result<()> {
    let certificate = "/var/lib/xos/node/ssh/ssh_host_ed25519_key-cert.pub";
    wait_for(&format!("the SSH host certificate of {}", host.name()), || {
        let there = host.run(&Cmd::new("test").args(["-s", certificate]))?;
        Ok(there.exit.is_success().then_some(()))
    })?;
    sshd(host).map(drop)
}

/// Starts sshd as an init system does, and waits until it answers.
///
/// # Errors
/// When it cannot be started, or does not answer in time.
pub fn sshd(host: &Host) -> Result<Process> {
    let log = crate::Stdio::LogAs("sshd".parse()?);
    let sshd = Cmd::new("/usr/sbin/sshd").args(["-D", "-e"]).own_cgroup("sshd".parse()?).stdio(log);
    let process = host.spawn(&sshd)?;
    wait_for_port(host, SSH_PORT)?;
    Ok(process)
}

/// `xosd` in a cgroup of its own, as an init system starts it.
fn xosd() -> Result<Cmd> {
    let log = crate::Stdio::LogAs("xosd".parse()?);
    Ok(Cmd::new("xosd").arg("run").own_cgroup("xosd".parse()?).stdio(log))
}
