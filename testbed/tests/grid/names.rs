//! A site calls the account of a member otherwise: libc, ssh, jobs and homes on its machines.

use xos_testbed::grid::{Site, SiteSpec};
use xos_testbed::{Cmd, Host};

use crate::tool::skipped;
use crate::world::{VO, World, sh, soon};

/// What the site of rennes calls Milo.
const NAME: &str = "milo";
/// What he is called by the common rule; his home is called so in any case.
const DEFAULT: &str = "milo.demo.rennes";

/// If it failed, a site could not call people as its machines always did, or a name would cost
/// somebody their files or give them another's: see each step.
#[test]
fn a_site_calls_members_as_it_likes() {
    if !Site::can_be_signed_in_to() {
        return skipped("needs sshd and pam-auth-update: Debian's openssh-server, libpam-runtime");
    }
    let site = |name: &str| SiteSpec { login: true, ..SiteSpec::new(name) };
    let Some(w) = World::with(&site("rennes"), &site("pisa")) else { return };
    w.step("a_name_reaches_every_node_of_the_site", a_name_reaches_every_node);
    w.step("ssh_goes_on_by_the_former_name", ssh_goes_on_by_the_former_name);
    w.step("jobs_and_su_know_the_name", jobs_and_su_know_the_name);
    w.step("a_local_user_of_the_name_is_left_alone", a_local_user_is_left_alone);
    w.step("the_former_name_comes_back", the_former_name_comes_back);
}

/// What `getent passwd` says, in its fields; `None` when nobody is called so.
fn getent(host: &Host, key: &str) -> Option<Vec<String>> {
    let out = host.run(&Cmd::new("getent").args(["passwd", key])).unwrap();
    let fields =
        || String::from_utf8_lossy(&out.stdout).trim().split(':').map(str::to_owned).collect();
    out.exit.is_success().then(fields)
}

/// If it failed, the machines of one site would call one person by two names.
fn a_name_reaches_every_node(w: &World) {
    let before = getent(&w.rennes.nodes[0], DEFAULT).expect("an account");
    w.rennes.admin(&["names", "give", VO, &w.milo.id(), NAME]).unwrap();
    for node in &w.rennes.nodes {
        let named = soon("the name is there", || getent(node, NAME));
        assert_eq!(named[0], NAME);
        assert_eq!(named[2..], before[2..], "uid, gid, home and shell are as they were");
        assert_eq!(getent(node, &before[2]).unwrap()[0], NAME);
        assert_eq!(sh(node, &format!("id -u {DEFAULT}")), before[2], "the former name leads there");
    }
    for node in &w.pisa.nodes {
        assert!(getent(node, NAME).is_none(), "another site's name");
        assert!(getent(node, DEFAULT).is_some());
    }
}

/// If it failed, people would be locked out by a name that they have not heard of.
fn ssh_goes_on_by_the_former_name(w: &World) {
    let config = format!("/home/{}/.xos/ssh/config", w.milo.name);
    let ask = "id -un; pwd; id -Gn; stat -c %U .";
    let args = ["-F", &config, "-o", "BatchMode=yes", "n1.rennes", ask];
    let by_former = w.run(&w.milo, "ssh", &args).ok();
    let by_tool = w.run(&w.milo, "xos", &["ssh", "n1.rennes", "--", ask]).ok();
    let home = format!("/home/xos/{DEFAULT}");
    for said in [by_former, by_tool] {
        let said: Vec<&str> = said.lines().collect();
        assert_eq!((said[0], said[1], said[3]), (NAME, home.as_str(), NAME));
        assert!(said[2].contains("members.demo.rennes"), "{said:?}");
    }
}

/// If it failed, a job and a shell of one person would see two people, or an administrator could
/// not become them.
fn jobs_and_su_know_the_name(w: &World) {
    let script = "echo $USER; id -un; echo $HOME";
    let said = w.xsub(&w.milo, &["--on", "rennes", "--", "sh", "-c", script]).ok();
    let home = format!("/home/xos/{DEFAULT}");
    assert_eq!(said.lines().collect::<Vec<_>>(), [NAME, NAME, &home]);
    for name in [NAME, DEFAULT] {
        assert_eq!(sh(&w.rennes.nodes[0], &format!("su {name} -c 'id -un'")), NAME);
    }
}

/// If it failed, a member could be taken for a local user of the machine, or the reverse, and
/// nobody would say so.
fn a_local_user_is_left_alone(w: &World) {
    let node = &w.rennes.nodes[1];
    let uid = getent(node, NAME).expect("the name")[2].clone();
    sh(node, &format!("echo '{NAME}:x:4242:4242::/:/bin/sh' >> /etc/passwd"));
    // Names are looked through when accounts change.
    w.rennes.admin(&["names", "give", VO, &w.vera.id(), "vera"]).unwrap();
    soon("the account is called as before", || {
        getent(node, &uid).filter(|fields| fields[0] == DEFAULT)
    });
    assert_eq!(getent(node, NAME).unwrap()[2], "4242");
    let check = node.run(&Cmd::new("xos").args(["node", "accounts", "check"])).unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(!check.exit.is_success() && said.contains(&w.milo.id()), "{said}");
    assert!(said.contains(&format!("is called {DEFAULT}")), "{said}");
    let other = getent(&w.rennes.nodes[0], &uid).unwrap();
    assert_eq!(other[0], NAME, "the other machine has no such user");
}

/// If it failed, a name could never be taken back, or would go to the next person with whatever
/// the site gave to it.
fn the_former_name_comes_back(w: &World) {
    w.rennes.admin(&["names", "give", VO, &w.milo.id(), "--default"]).unwrap();
    let node = &w.rennes.nodes[0];
    soon("the name has gone", || getent(node, NAME).is_none().then_some(()));
    assert_eq!(getent(node, DEFAULT).unwrap()[5], format!("/home/xos/{DEFAULT}"));
    let taken = w.rennes.admin(&["names", "give", VO, &w.petra.id(), NAME]);
    let told = taken.unwrap_err().to_string();
    assert!(told.contains("stays, the name of milo@rennes"), "{told}");
}
