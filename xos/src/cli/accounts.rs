//! `xos node accounts`: whether the machine's own names and numbers and the grid's go together.

pub mod findings;
pub mod machine;

use super::output::{Outcome, Style, Table, clean};
use super::session::Session;
use crate::daemon::config::{Config, DEFAULT_PATH};
use findings::{Finding, Given, Machine};
use machine::{LocalUser, Named, Range};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use xos_api::vom::AccountState;
use xos_base::accounts::{self, AccountsError, AccountsFile, Owner};
use xos_base::{Error, VoId};
use xos_node::agent::{Vo, kept_vos};

/// The exit status when something was found.
const FOUND_STATUS: u8 = 1;
/// Longest file that is read, in bytes.
const FILE_MAX: u64 = 256 * 1024 * 1024;
/// The module, as libc calls it.
const MODULE: &str = "libnss_xos.so.2";

/// `xos node accounts …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Look for names and numbers that both this machine and the grid use (on a node, as root).
    #[command(after_help = "\
Examples:
  xos node accounts check
  xos node accounts check --json

Exits with 1 when something was found. It reads files of this machine only, and changes nothing.")]
    Check {
        /// The configuration of the node's xosd.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
        config: PathBuf,
    },
}

/// What a check says.
#[derive(Serialize)]
struct Report {
    /// How many accounts the grid has here.
    users: usize,
    /// How many groups.
    groups: usize,
    /// How many VOs have numbers here.
    vos: usize,
    /// What would hurt.
    findings: Vec<Finding>,
}

/// Runs a command of this group.
///
/// # Errors
/// When a file cannot be read.
pub fn run(s: &Session, command: Command) -> Outcome {
    let Command::Check { config } = command;
    let machine = read(&config)?;
    let report = Report {
        users: machine.grid_users.len(),
        groups: machine.grid_groups.len(),
        vos: machine.blocks.len(),
        findings: findings::findings(&machine),
    };
    s.out.show(&report, || {
        let mut table = Table::new(&["ABOUT", "FOUND", "DO"]);
        for Finding { about, what, hint } in &report.findings {
            table.row([Style::Bad.mark(about), clean(what), clean(hint)]);
        }
        let Report { users, groups, vos, .. } = &report;
        table.text(&format!("Nothing clashes: {users} users and {groups} groups of {vos} VOs."))
    })?;
    Ok(if report.findings.is_empty() { 0 } else { FOUND_STATUS })
}

/// Reads the machine's files.
fn read(config: &Path) -> Result<Machine, Error> {
    let read = Config::read(config)?;
    let Some(node) = read.node else {
        return Err(Error::invalid(format!("{} has no section [node]", config.display()))
            .hint("run this on a node"));
    };
    let grid = AccountsFile::open(accounts::DEFAULT_PATH, Owner::Root)
        .and_then(|file| file.current())
        .map_err(unusable)?;
    let grid_users = grid.view().users().map(|u| u.map(|u| named(u.name, u.uid)));
    let groups = grid.view().groups().map(|g| g.map(|g| named(g.name, g.gid)));
    let vos = vos(&read.site.state.join("node"))?;
    let users = machine::passwd(&text("/etc/passwd")?);
    Ok(Machine {
        groups: machine::group(&text("/etc/group")?),
        grid_users: grid_users.collect::<Result<_, _>>().map_err(unusable)?,
        grid_groups: groups.collect::<Result<_, _>>().map_err(unusable)?,
        given: given(&vos, &users),
        users,
        blocks: vos.iter().map(block).collect(),
        subuid: machine::subordinate(&text("/etc/subuid")?),
        subgid: machine::subordinate(&text("/etc/subgid")?),
        login_defs: machine::login_defs(&text("/etc/login.defs")?),
        nsswitch: machine::nsswitch(&text("/etc/nsswitch.conf")?),
        module_missing: module_missing(),
        homes_taken: is_taken(&node.homes).then_some(node.homes),
    })
}

fn unusable(e: AccountsError) -> Error {
    Error::unavailable(e.to_string())
}

fn named(name: &str, id: u32) -> Named {
    Named { name: name.to_owned(), id }
}

/// Whether something else has the place of a folder. One that is not there `xosd` makes.
fn is_taken(path: &Path) -> bool {
    path.symlink_metadata().is_ok() && !path.is_dir()
}

/// The VOs that the node's `xosd` knows, those that ended too: their files may be here still.
fn vos(node: &Path) -> Result<BTreeMap<VoId, Vo>, Error> {
    let hint = "remove what is damaged and restart xosd on this node, which asks its core anew";
    kept_vos(node).map_err(|e| e.hint(hint))
}

/// The numbers of a VO.
fn block((id, vo): (&VoId, &Vo)) -> Range {
    Range { owner: id.to_string(), first: vo.base.into(), count: vo.size.into() }
}

/// The names that the site gave to accounts of members, of those who have one now.
fn given(vos: &BTreeMap<VoId, Vo>, users: &[LocalUser]) -> Vec<Given> {
    let local: HashSet<String> = users.iter().map(|u| u.user.name.clone()).collect();
    let served = vos.iter().filter(|(_, vo)| vo.state != AccountState::Ended);
    let members = served.flat_map(|(id, vo)| vo.members.values().map(move |m| (id, vo, m)));
    let given = members.filter_map(|(id, vo, m)| {
        Some(Given {
            name: m.given.as_ref()?.to_string(),
            person: m.person.to_string(),
            vo: id.to_string(),
            uid: vo.uid(m.number),
            default: vo.default_name(m, &local),
        })
    });
    given.collect()
}

/// A file's text; of one that is not there, none.
pub(super) fn text(path: impl AsRef<Path>) -> Result<String, Error> {
    let path = path.as_ref();
    let fail = |e: std::io::Error| {
        let shown = path.display();
        match e.kind() {
            ErrorKind::PermissionDenied => {
                Error::denied(format!("you may not read {shown}")).hint("run this as root")
            }
            _ => Error::internal(format!("cannot read {shown}: {e}")),
        }
    };
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(String::new()),
        file => file.map_err(fail)?,
    };
    let mut bytes = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut bytes).map_err(fail)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where libc would find the module, when it does not: beside itself, in folders that it searches
/// for every program, or in the list that ldconfig makes.
fn module_missing() -> Option<PathBuf> {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let folders = [format!("/usr/lib/{triple}"), format!("/lib/{triple}")];
    let folders =
        folders.into_iter().chain(["/usr/lib64", "/lib64", "/usr/lib", "/lib"].map(str::to_owned));
    let folders: Vec<PathBuf> = folders.map(PathBuf::from).collect();
    let listed = fs::read("/etc/ld.so.cache")
        .is_ok_and(|list| list.windows(MODULE.len()).any(|name| name == MODULE.as_bytes()));
    if listed || folders.iter().any(|folder| folder.join(MODULE).exists()) {
        return None;
    }
    let own = folders.iter().find(|folder| folder.join("libc.so.6").exists());
    own.or(folders.first()).map(|folder| folder.join(MODULE))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, numbers of a VO would not be looked at, and the check would say that all is
    /// well.
    #[test]
    fn the_numbers_of_vos_are_read_from_the_nodes_record() {
        let dir = tempfile::tempdir().unwrap();
        assert!(vos(dir.path()).unwrap().is_empty(), "a node that has just joined");
        fs::create_dir(dir.path().join("vos")).unwrap();
        let path = dir.path().join("vos/demo.rennes.json");
        let vo = r#"{"number":1,"base":1879048192,"size":65536,"state":"active","members":{},"groups":{}}"#;
        fs::write(&path, vo).unwrap();
        assert_eq!(
            vos(dir.path()).unwrap().iter().map(block).collect::<Vec<_>>(),
            [Range::new("demo.rennes", 1_879_048_192, 1_879_048_192 + 65_535)]
        );
        fs::write(&path, "{").unwrap();
        let e = vos(dir.path()).unwrap_err();
        assert!(e.to_string().contains("demo.rennes.json"), "{e}");
    }

    /// If it failed, a name that does not count on this machine would pass for one that does.
    #[test]
    fn names_that_the_site_gave_are_read_with_what_holds_instead() {
        let vo = |state: &str| {
            let json = serde_json::json!({
                "number": 1, "base": 1_879_048_192_u32, "size": 65_536, "state": state,
                "members": {
                    "1": {"number": 1, "person": "ann@rennes", "name": "ann.demo.rennes",
                          "given": "ann", "state": "active", "since": 0, "epoch": 1, "groups": []},
                    "2": {"number": 2, "person": "bob@rennes", "name": "bob.demo.rennes",
                          "state": "active", "since": 0, "epoch": 1, "groups": []},
                },
                "groups": {},
            });
            serde_json::from_str::<Vo>(&json.to_string()).unwrap()
        };
        let id: VoId = "demo.rennes".parse().unwrap();
        let users = machine::passwd("ann.demo.rennes:x:1000:1000::/:/s\n");
        let found = given(&BTreeMap::from([(id.clone(), vo("active"))]), &users);
        assert_eq!(found.len(), 1, "{found:?}");
        let Given { name, uid, default, .. } = &found[0];
        assert_eq!((name.as_str(), *uid), ("ann", 1_879_048_193));
        assert_eq!(default, "u1879048193", "a local user has that name too");
        assert!(given(&BTreeMap::from([(id, vo("ended"))]), &users).is_empty());
    }

    /// If it failed, every new node would be found fault with, or a file in the way passed over.
    #[test]
    fn a_folder_of_homes_that_is_not_there_yet_is_no_fault() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_taken(dir.path()) && !is_taken(&dir.path().join("a/b")));
        fs::write(dir.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        assert!(is_taken(&dir.path().join("file")) && is_taken(&dir.path().join("link")));
    }
}
