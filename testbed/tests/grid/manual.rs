//! docs/site-admin.md, "Add your site in an hour", and what docs/user.md begins with: a person
//! types each line, on machines that are as bare as Debian's.
//!
//! Two sites are added: what the text says of rennes, the administrators of pisa read as if it
//! spoke of theirs. Hosts get nothing but names in /etc/hosts, the accounts of people on their
//! computer, and Debian's sshd. What cannot be typed here as it stands is in [`Hour::instead`], in
//! [`site`] and in [`people`], each with its reason.

mod people;
mod site;
mod steps;
pub mod terminal;
mod text;
mod units;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::MutexGuard;

use tempfile::TempDir;
use xos_testbed::grid::Site;
use xos_testbed::{Cmd, Host, HostSpec, Testbed, TestbedConfig};

use self::site::{BUILD, SOURCES};
use self::steps::{How, LAPTOP, Line, Place, Step};
use self::terminal::Typist;
use self::text::{Block, blocks};
use self::units::Units;
use crate::tool::{Said, skipped};
use crate::world::{COMMAND_MAX, alone, last_words, programs, sh, soon};

const FOR_SITES: &str = include_str!("../../../docs/site-admin.md");
/// The heading at which a site is added.
const ADDED: &str = "Where things lie";
const FOR_PEOPLE: &str = include_str!("../../../docs/user.md");
/// The heading at which a person has come in.
const CAME_IN: &str = "Joining a VO";
/// What the test needs beside sshd: Debian's util-linux, passwd and systemd.
const NEEDS: [&str; 5] = [
    "/usr/bin/script",
    "/usr/bin/setpriv",
    "/usr/bin/findmnt",
    "/usr/sbin/useradd",
    "/usr/bin/systemd-notify",
];
const HOSTS: [&str; 6] = [
    BUILD.host,
    LAPTOP.host,
    "core.rennes.example",
    "n1.rennes.example",
    "core.pisa.example",
    "n1.pisa.example",
];
const ACCOUNTS: [&str; 2] = ["alice", "bob"];
/// What `make release` leaves and the text copies.
const BUILT: [&str; 10] = [
    "xosd",
    "xos-shim",
    "xos-principals",
    "xos",
    "libpam_xos.so",
    "libnss_xos.so",
    "xos-agent",
    "xos-cell",
    "xos-ghost",
    "xos-proc",
];
/// What the text copies from the sources.
const FROM_SOURCES: [(&str, &str); 5] = [
    ("xos/systemd/xosd-core.service", include_str!("../../../xos/systemd/xosd-core.service")),
    ("xos/systemd/xosd-node.service", include_str!("../../../xos/systemd/xosd-node.service")),
    ("xos/systemd/xos-units.service", include_str!("../../../xos/systemd/xos-units.service")),
    ("pam-xos/sshd_config.d/xos.conf", include_str!("../../../pam-xos/sshd_config.d/xos.conf")),
    ("pam-xos/pam-configs/xos", include_str!("../../../pam-xos/pam-configs/xos")),
];
/// Configurations.
const XOSD: &str = "/etc/xos/xosd.toml";
const SSHD: &str = "/etc/ssh/sshd_config";
const SWITCH: &str = "/etc/nsswitch.conf";

/// If it failed, an administrator who does what the manual says would be left without a site, or
/// their people before a machine that does not let them in.
#[test]
fn the_manual_adds_a_site_as_it_stands() {
    let needs = || NEEDS.iter().all(|program| Path::new(program).exists());
    if !Site::can_be_signed_in_to() || !needs() {
        return skipped("needs Debian's openssh-server, libpam-runtime, passwd and systemd");
    }
    let Some(mut hour) = Hour::begin() else { return };
    hour.go_through(FOR_SITES, ADDED, site::STEPS);
    hour.go_through(FOR_PEOPLE, CAME_IN, people::STEPS);
}

impl Step {
    fn is(&self, block: &Block) -> bool {
        self.heading == block.heading && block.first().starts_with(self.first)
    }
}

/// The hour: machines, and what has been read on their screens.
pub struct Hour {
    units: Units,
    known: BTreeMap<String, String>,
    /// Dropped before the folder.
    testbed: Testbed,
    folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Drop for Hour {
    fn drop(&mut self) {
        if std::thread::panicking() {
            last_words(self.folder.path());
        }
    }
}

impl Hour {
    /// Bare machines; `None`, with the reason printed, where this one cannot carry them.
    fn begin() -> Option<Hour> {
        let alone = alone()?;
        let folder = tempfile::tempdir().unwrap();
        let mut config = TestbedConfig::new(folder.path(), "xos").unwrap();
        config.helper = Some(programs().join("testbed"));
        let testbed = Testbed::create(config).unwrap();
        let (units, known) = (Units::default(), BTreeMap::new());
        let mut hour = Hour { units, known, testbed, folder, _alone: alone };
        for name in HOSTS {
            let host = hour.testbed.add_host(HostSpec::new(name).unwrap()).unwrap();
            // What the machine that carries the test may have of its own.
            sh(&host, "rm -rf /root/.xos /root/.ssh /root/xos-files /etc/xos");
        }
        for node in HOSTS.into_iter().filter(|name| name.starts_with("n1.")) {
            let node = hour.host(node);
            hour.units.start_ssh(&node);
        }
        for person in ACCOUNTS {
            sh(&hour.host(LAPTOP.host), &format!("useradd -m -s /bin/bash {person}"));
        }
        hour.sources();
        Some(hour)
    }

    /// The sources on the machine that builds, as far as the text speaks of them. `make release`
    /// has been done by whoever runs the test; what debuggers need is left out.
    fn sources(&self) {
        let build = self.host(BUILD.host);
        for (name, text) in FROM_SOURCES {
            build.write_file(format!("{SOURCES}/{name}"), text.as_bytes(), 0o644).unwrap();
        }
        let (from, to) = (programs().display(), format!("{SOURCES}/target/release"));
        sh(&build, &format!("mkdir -p {to}"));
        for name in BUILT {
            let strip = format!("strip -o {to}/{name} {from}/{name} || cp {from}/{name} {to}/");
            let cmd = Cmd::shell(strip).limit(COMMAND_MAX);
            Said::of(&build, &cmd, name).ok();
        }
    }

    fn host(&self, name: &str) -> Host {
        self.testbed.host(name).unwrap()
    }

    /// A host's root folder, as seen from outside.
    fn root(&self, name: &str) -> PathBuf {
        let hosts = self.testbed.hosts().unwrap();
        let init = hosts.iter().find(|host| host.name.as_str() == name).and_then(|h| h.init);
        PathBuf::from(format!("/proc/{}/root", init.expect("a host that runs")))
    }

    /// Brings a file or folder into the folder of root on another machine.
    fn copy(&self, what: &str, from: Place, to: &str) {
        let from = self.root(from.host).join(what.trim_start_matches('/'));
        let done = Command::new("cp").arg("-r").arg(from).arg(self.root(to).join("root")).status();
        assert!(done.unwrap().success(), "{what} does not come to {to}");
    }

    /// Does what a document says before the heading `end`. A block that no step names, and a step
    /// whose block is not there, are failures.
    fn go_through(&mut self, document: &str, end: &str, steps: &[Step]) {
        let blocks = blocks(document, end);
        let named = |at: usize| blocks.get(at).map(|b| (b.heading.as_str(), b.first()));
        for (at, step) in steps.iter().enumerate() {
            let here = blocks.get(at).is_some_and(|block| step.is(block));
            assert!(here, "{:?} {:?}, not {:?}", step.heading, step.first, named(at));
        }
        assert_eq!(named(steps.len()), None, "no step names this block");
        for (step, block) in steps.iter().zip(&blocks) {
            self.follow(step, block);
        }
        for (step, block) in steps.iter().zip(&blocks) {
            if let How::TypedLast(lines, why) = step.how {
                println!("({}, last: {why})", step.heading);
                self.type_block(step, block, lines);
            }
        }
    }

    /// Does what a block says.
    fn follow(&mut self, step: &Step, block: &Block) {
        println!("## {}: {}", step.heading, block.first());
        if let Some(before) = step.before {
            before(self);
        }
        match step.how {
            How::Typed(lines) => self.type_block(step, block, lines),
            How::TypedLast(..) => {}
            How::Elsewhere(why) => println!("(not here: {why})"),
            How::Added => self.each(step, block, |host, text| {
                let whole = read(host, XOSD) + "\n" + text;
                host.write_file(XOSD, whole.as_bytes(), 0o600).unwrap();
            }),
            How::Checked(why) => self.each(step, block, |host, text| {
                println!("(checked only: {why})");
                checked(host, &format!("{}\n{text}", read(host, XOSD)));
            }),
            How::Switch => self.each(step, block, switch),
            How::CheckedBySshd(why) => self.each(step, block, |host, text| {
                println!("(checked only: {why})");
                let copy = format!("{}\n{text}", read(host, SSHD));
                host.write_file("/root/sshd_config", copy.as_bytes(), 0o600).unwrap();
                sh(host, "/usr/sbin/sshd -t -f /root/sshd_config");
            }),
        }
    }

    fn each(&self, step: &Step, block: &Block, act: impl Fn(&Host, &str)) {
        for place in step.at {
            act(&self.host(place.host), &place.read(&block.text()));
        }
    }

    fn type_block(&mut self, step: &Step, block: &Block, lines: &[Line]) {
        let commands = block.commands();
        for line in lines {
            let meant = commands.iter().filter(|command| command.contains(line.holds)).count();
            assert_eq!(meant, 1, "{}: lines with {:?}", step.heading, line.holds);
        }
        for place in step.at {
            for command in &commands {
                let known = lines.iter().find(|line| command.contains(line.holds));
                self.type_line(place, command, known.unwrap_or(&Line::PLAIN));
            }
        }
    }

    fn type_line(&mut self, place: &Place, command: &str, known: &Line) {
        let mut line = place.read(command);
        for (shown, instead, why) in known.reads {
            let (shown, instead) = (place.read(shown), self.fill(&place.read(instead)));
            assert!(line.contains(&shown), "no {shown:?} in {line}");
            println!("({instead} for {shown}: {why})");
            line = line.replace(&shown, &instead);
        }
        let answers: Vec<(String, String)> =
            known.answers.iter().map(|(ask, say)| (place.read(ask), (*say).to_owned())).collect();
        let wanted: Vec<String> =
            known.says.iter().map(|words| self.fill(&place.read(words))).collect();
        let fits = |said: &Said| {
            said.code == known.code && wanted.iter().all(|words| said.out.contains(words))
        };
        let said = if known.until {
            soon(&line, || Some(self.types(place, &line, &answers)).filter(fits))
        } else {
            self.types(place, &line, &answers)
        };
        let Said { code, out, .. } = &said;
        assert!(fits(&said), "on {} `{line}` ended with {code}, not {wanted:?}: {out}", place.host);
        if let Some((name, begins)) = known.keeps {
            let word = word(out, begins).unwrap_or_else(|| panic!("no {name} in {out}"));
            self.known.insert(place.read(name), word.to_owned());
        }
    }

    /// Types a line at a terminal.
    fn types(&mut self, place: &Place, line: &str, answers: &[(String, String)]) -> Said {
        println!("{}@{}: {line}", place.user.unwrap_or("root"), place.host);
        let said = self.instead(place, line).unwrap_or_else(|| {
            let (host, root) = (self.host(place.host), self.root(place.host));
            let typist = Typist { host: &host, root: &root, user: place.user, cwd: place.cwd };
            typist.types(line, answers)
        });
        println!("{}", said.out);
        said
    }

    /// What is done for a line that cannot be typed on such machines.
    fn instead(&mut self, place: &Place, line: &str) -> Option<Said> {
        let words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
        let words: Vec<&str> = words.collect();
        let out = match words.as_slice() {
            // Its programs are those with which the test came.
            ["make", "release"] => String::new(),
            // Root of one machine cannot sign in to another yet: that is the site's own affair.
            ["scp", "-r", folder, to] => {
                let to = to.strip_prefix("root@").and_then(|to| to.strip_suffix(':'));
                let to = to.unwrap_or_else(|| panic!("whose machine? {line}"));
                self.copy(&format!("{}/{folder}", place.cwd), *place, to);
                String::new()
            }
            // The first process of a host is not systemd.
            ["systemctl", args @ ..] => {
                let (host, root) = (self.host(place.host), self.root(place.host));
                self.units.systemctl(&host, &root, args)
            }
            _ => return None,
        };
        Some(Said { line: line.to_owned(), code: 0, out, err: String::new() })
    }

    /// Puts what is known in the place of its name in braces.
    fn fill(&self, text: &str) -> String {
        let known = self.known.iter();
        known.fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), value)
        })
    }
}

fn read(host: &Host, path: &str) -> String {
    String::from_utf8(host.read_file(path).unwrap()).unwrap()
}

/// `xosd check` finds a configuration right.
fn checked(host: &Host, text: &str) {
    let path = "/root/checked.toml";
    host.write_file(path, text.as_bytes(), 0o600).unwrap();
    Said::of(host, &Cmd::new("xosd").args(["check", "--config", path]), "xosd check").ok();
}

/// Replaces the lines of the same databases.
fn switch(host: &Host, text: &str) {
    let database = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    let kept: Vec<String> = read(host, SWITCH)
        .lines()
        .filter(|line| !text.lines().any(|new| database(new) == database(line)))
        .map(str::to_owned)
        .collect();
    host.write_file(SWITCH, format!("{text}{}\n", kept.join("\n")).as_bytes(), 0o644).unwrap();
}

/// The word of a text that begins so; where a space ends it, the word behind.
fn word<'a>(text: &'a str, begins: &str) -> Option<&'a str> {
    if begins.ends_with(' ') {
        return text.split_once(begins)?.1.split_whitespace().next();
    }
    text.split_whitespace().find(|word| word.starts_with(begins))
}
