//! Testbeds made for real: needs root, network namespaces, overlayfs and cgroups.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

mod files;
mod life;
mod network;
mod programs;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use xos_testbed::{Cmd, Error, Host, HostSpec, Testbed, TestbedConfig};

/// A testbed in a folder of its own.
struct Bed {
    // Dropped before the folder.
    testbed: Testbed,
    folder: TempDir,
}

impl Bed {
    /// `None`, with the reason printed, where the machine cannot do this.
    fn new(name: &str) -> Option<Bed> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let testbed = create(config(folder.path(), name))?;
        Some(Bed { testbed, folder })
    }

    fn host(&self, name: &str) -> Host {
        self.testbed.add_host(HostSpec::new(name).expect("a name")).expect("a host")
    }
}

fn config(dir: &Path, name: &str) -> TestbedConfig {
    let mut config = TestbedConfig::new(dir, name).expect("a name");
    config.helper = Some(env!("CARGO_BIN_EXE_testbed").into());
    config
}

/// What every testbed needs of the machine: namespaces, a bridge and veth pairs.
const PROBE: &str = "ip link add br0 type bridge && ip link add h1 type veth peer name h2";

/// Says that a test is skipped, and why; with `XOS_NO_SKIP=1` that is a failure.
#[track_caller]
fn skipped(why: &str) {
    assert!(std::env::var_os("XOS_NO_SKIP").is_none_or(|v| v != "1"), "not to be skipped: {why}");
    println!("skipped: {why}");
}

/// Skips only for what the machine lacks; any other failure is one of the testbed.
fn create(config: TestbedConfig) -> Option<Testbed> {
    let probe = Command::new("unshare").args(["-mnpuiC", "--fork", "sh", "-c", PROBE]).output();
    let probe = probe.expect("unshare of util-linux");
    if !probe.status.success() {
        skipped(&format!("no namespaces here: {}", String::from_utf8_lossy(&probe.stderr).trim()));
        return None;
    }
    match Testbed::create(config) {
        Ok(testbed) => Some(testbed),
        Err(Error::NeedsRoot) => {
            skipped("needs root");
            None
        }
        Err(Error::NoCgroups) => {
            skipped("needs a cgroup hierarchy");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The output of a script that must succeed.
fn sh(host: &Host, script: &str) -> String {
    host.run(&Cmd::shell(script)).and_then(xos_testbed::Output::ok).expect(script).trim().to_owned()
}

/// What the machine shows of one testbed: mounts, interfaces, cgroups, processes.
#[derive(Debug, PartialEq, Eq)]
struct Traces(BTreeSet<String>);

impl Traces {
    /// Everything that names the testbed `name` in the folder `dir`.
    fn of(name: &str, dir: &Path) -> Traces {
        let mut found = BTreeSet::new();
        let dir = dir.to_str().expect("a plain path");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        found.extend(mounts.lines().filter(|line| line.contains(dir)).map(str::to_owned));
        let cgroup = format!("xos-testbed-{name}-");
        for entry in list("/sys/fs/cgroup").into_iter().chain([".".to_owned()]) {
            let hierarchy = format!("/sys/fs/cgroup/{entry}");
            let ours = list(&hierarchy).into_iter().filter(|one| one.starts_with(&cgroup));
            found.extend(ours.map(|one| format!("{hierarchy}/{one}")));
        }
        for pid in list("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok()) {
            // A zombie has ended; the machine's first process collects it when it likes.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X'])) {
                continue;
            }
            let read = |file| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let words = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            if words.contains(dir) || String::from_utf8_lossy(&read("cgroup")).contains(&cgroup) {
                found.insert(format!("process {pid}: {words}"));
            }
        }
        Traces(found)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The machine's interfaces and named network namespaces.
fn machine_network() -> (Vec<String>, Vec<String>) {
    (list("/sys/class/net"), list("/run/netns"))
}

fn list(path: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
