//! docs/site-admin.md as far as a site is added.

use xos_testbed::Cmd;

use super::Hour;
use super::steps::{
    AGAIN, ALICE, FILES, FIRST, How, LAPTOP, Line, OWN_PRINT, PASSWORD, Place, RENNES, Step, YES,
    step,
};
use crate::world::{sh, soon};

/// Where the sources are on the machine that builds.
pub const SOURCES: &str = "/root/sources";

pub const BUILD: Place = Place::root("build", RENNES, SOURCES);
const CORE: Place = Place::root("core.rennes.example", RENNES, FILES);
const NODE: Place = Place::root("n1.rennes.example", RENNES, FILES);
const OTHER_CORE: Place = Place::root("core.pisa.example", "pisa", FILES);
const OTHER_NODE: Place = Place::root("n1.pisa.example", "pisa", FILES);
const BOB: Place = Place { user: Some("bob"), cwd: "/home/bob", ..LAPTOP };
/// At pisa, of a text that speaks of both sites.
const AT_PISA: Place = Place { site: RENNES, ..OTHER_CORE };
const ON_PISA: Place = Place { site: RENNES, ..OTHER_NODE };

const CORES: &[Place] = &[CORE, OTHER_CORE];
const NODES: &[Place] = &[NODE, OTHER_NODE];

const ONE_GRID: &str = "it stands for what only some sites have; that the core takes it is seen";

/// The whole hour, in the order of docs/site-admin.md.
pub const STEPS: &[Step] = &[
    step("1. The programs", "make release", &[BUILD], How::Typed(&[])),
    step("1. The programs", "mkdir xos-files", &[BUILD], How::Typed(&[])),
    step("1. The programs", "install -m 755 xosd xos-shim xos /usr/local/bin/", EVERY, INSTALLED)
        .before(bring_to_pisa),
    step("1. The programs", "install -m 755 xos /usr/local/bin/", &[LAPTOP], INSTALLED),
    step("2. The core", "xosd setup --site rennes", CORES, How::Typed(SETUP)),
    step("2. The core", "install -m 644 xosd-core.service", CORES, How::Typed(CORE_UNIT)),
    step("Sign in", "xos site add core.rennes.example", CORES, How::Typed(SIGN_IN)),
    step(CORE_SSH, "[ssh_host]", CORES, How::Checked("host_keys.rs has a core's sshd show itself")),
    step(CORE_SSH, "mkdir -p /etc/ssh/sshd_config.d", &[], How::Elsewhere("host_keys.rs does it")),
    step("3. Nodes", "xos node token n1", CORES, How::Typed(TOKEN)),
    step("3. Nodes", "xosd join xos-join:n1.rennes:...", NODES, How::Typed(JOIN)),
    step("3. Nodes", "install -m 644 xos-units.service", NODES, How::Typed(&[])),
    step("3. Nodes", "xos node list", CORES, How::Typed(LIST)),
    step("Names of users and groups", "install -m 644 libnss_xos.so", NODES, How::Typed(&[])),
    step("Names of users and groups", "passwd:         files systemd xos", NODES, How::Switch),
    step("Names of users and groups", "xos node accounts check", NODES, How::Typed(CLASHES)),
    step("Let members sign in", "install -m 755 xos-principals", NODES, How::Typed(&[])),
    step("Let members sign in", "[node.login]", NODES, How::Added),
    step("Let members sign in", "systemctl restart xosd", NODES, How::Typed(&[])),
    step(CONSOLE, "device = true", NODES, How::Checked(PROVED)),
    step(CONSOLE, "passwords = true", NODES, How::Checked(PROVED)),
    step(KEEP, "AllowGroups sudo adm", NODES, How::CheckedBySshd("members sign in below")),
    step(KEEP, "echo root > /etc/cron.allow", NODES, How::Typed(&[])),
    step(OWN_NAMES, "xos names give demo.rennes", &[], How::Elsewhere(NAMES_LATER)),
    step(OWN_NAMES, "xos names release alice", &[], How::Elsewhere(NAMES_LATER)),
    step(MAPFILE, "xos names import", &[], How::Elsewhere(IMPORT)),
    step(MAPFILE, "\"/DC=org/DC=example/CN=Alice Example\"", &[], How::Elsewhere(IMPORT)),
    step(MAPFILE, "find /home/ann", &[], How::Elsewhere(IMPORT)),
    step("4. People", "xos person add alice", CORES, How::Typed(PEOPLE)).before(more_people),
    step("Sign-in by your identity provider", "[[cda.providers]]", CORES, How::Checked(ONE_GRID)),
    step("Passkeys and recovery", "[cda.passkeys]", CORES, How::Checked(ONE_GRID)),
    step(
        "Sign-in by Kerberos",
        "kadmin -q",
        &[],
        How::Elsewhere("xos/tests/cli/kerberos.rs has a KDC"),
    ),
    step("Sign-in by Kerberos", "[cda.kerberos]", CORES, How::Checked(ONE_GRID)),
    step(SERVICES, "xos site client add Wiki", CORES, How::Typed(CLIENTS)),
    step(SERVICES, "oidc-gen grid", &[], How::Elsewhere("xos/tests/cli/agent.rs types it")),
    step("5. Another site", "xos site offer pisa", &[CORE], How::Typed(OFFER)),
    step("5. Another site", "xos site accept to-pisa.offer", &[AT_PISA], How::Typed(ACCEPT))
        .before(send_offer),
    step("5. Another site", "xos site list", &[CORE, AT_PISA], How::Typed(SITES)),
    step(SHARE, "xos site add core.rennes.example", &[ALICE], How::Typed(FOUND)),
    step(SHARE, "xos vo share offer demo.rennes", &[CORE, AT_PISA], How::Typed(SHARES)),
    step(SHARE, "xos vo share accept demo.rennes rennes", &[ALICE], How::Typed(&[])),
    step(SHARE, "xos vo share withdraw demo.rennes", &[AT_PISA], WITHDRAWN),
    step(SHARE, "xos site rules show", &[], How::Elsewhere(RULES)),
    step(SHARE, "[[rules]]", &[], How::Elsewhere(RULES)),
    step(TRY, "getent passwd alice.demo.rennes", &[NODE, ON_PISA], How::Typed(NAMES)),
    step(TRY, "xos login alice@rennes", &[ALICE], How::Typed(ALICE_WORKS)),
    step(TRY, "xos site add core.pisa.example", &[BOB], How::Typed(BOB_APPLIES)),
    step(TRY, "xos vo approve demo.rennes bob@pisa", &[ALICE], How::Typed(&[])),
    step(TRY, "xos login bob@pisa", &[BOB], How::Typed(BOB_WORKS)).before(node_knows_bob),
];

const EVERY: &[Place] = &[CORE, NODE, OTHER_CORE, OTHER_NODE];
const INSTALLED: How = How::Typed(&[]);
const CORE_SSH: &str = "Show who the core is by ssh";
const CONSOLE: &str = "Let members prove themselves at a console and for `sudo`";
const PROVED: &str = "the tests of `pam_xos` prove people so";
const KEEP: &str = "Keep grid accounts to their units";
const OWN_NAMES: &str = "Names of your own choice";
const MAPFILE: &str = "Taking names from a grid-mapfile";
const NAMES_LATER: &str = "names.rs gives names; here no VO is there yet";
const IMPORT: &str = "the tests of xos/src/cli/names read such files; here no VO is there yet";
const RULES: &str = "standing.rs sets rules; the people here are to come in";
const SERVICES: &str = "Let your other services use the grid's sign-in";
const SHARE: &str = "6. Giving a VO a share";
const TRY: &str = "7. Try it";
const WITHDRAWN: How = How::TypedLast(ENDED, "people try the machines of pisa before");

const SETUP: &[Line] = &[Line::of("xosd setup")
    .answers(&[("Password of ada: ", PASSWORD), (AGAIN, PASSWORD)])
    .says(&["Site rennes is set up", "ada@rennes"])
    .keeps("fingerprint of rennes", "sha256:")];
const CORE_UNIT: &[Line] =
    &[Line::of("systemctl status").says(&["core of rennes, root {fingerprint of rennes}"])];
const SIGN_IN: &[Line] = &[
    Line::of("xos site add").reads(&[OWN_PRINT]).says(&["Site rennes is known"]),
    Line::of("xos login").answers(&[("Password of ada@rennes: ", PASSWORD)]),
];
const TOKEN: &[Line] = &[Line::of("xos node token").keeps("token of rennes", "xos-join:")];
const JOIN: &[Line] = &[Line::of("xosd join")
    .reads(&[("xos-join:n1.rennes:...", "{token of rennes}", "each token is another")])
    .says(&["This machine is node n1.rennes now"])];
const LIST: &[Line] = &[Line::of("xos node list").says(&["n1.rennes", " connected"]).until()];
const CLASHES: &[Line] = &[Line::of("xos node accounts check").says(&["Nothing clashes"])];
const PEOPLE: &[Line] = &[
    Line::of("add alice")
        .answers(&[("First password of alice@rennes: ", FIRST), (AGAIN, FIRST)])
        .says(&["alice@rennes can sign in"]),
    Line::of("add bob").answers(&[("First password of bob@rennes: ", PASSWORD), (AGAIN, PASSWORD)]),
    Line::of("person list").says(&["alice@rennes", "bob@rennes", "site admin"]),
    Line::of("passwd alice")
        .answers(&[("New password of alice@rennes: ", PASSWORD), (AGAIN, PASSWORD)]),
    Line::of("disable mallory").says(&["mallory@rennes cannot sign in"]),
    Line::of("recover alice")
        .reads(&[("alice", "dora", "alice works below, by the password that she has")])
        .says(&["All ways in of dora@rennes are gone"]),
];
const CLIENTS: &[Line] = &[
    Line::of("add Wiki").says(&["client secret"]).keeps("client of rennes", "client id: "),
    Line::of("client list").says(&["Wiki", "oidc-agent", "Storage"]),
    Line::of("client remove")
        .reads(&[(
            "0123456789abcdef0123456789abcdef",
            "{client of rennes}",
            "each client has its own number",
        )])
        .answers(YES)
        .says(&["is removed"]),
];
const OFFER: &[Line] = &[Line::of("xos site offer").reads(&[(
    "sha256:...",
    "{fingerprint of pisa}",
    "each root has its own fingerprint",
)])];
const ACCEPT: &[Line] = &[Line::of("xos site accept")
    .reads(&[OWN_PRINT])
    .answers(YES)
    .says(&["{fingerprint of rennes}", "pisa and rennes trust each other now"])];
const SITES: &[Line] = &[Line::of("xos site list").says(&[
    "this site",
    "{fingerprint of rennes}",
    "{fingerprint of pisa}",
])];
const FOUND: &[Line] = &[
    Line::of("xos site add").answers(YES).says(&["{fingerprint of rennes}"]),
    Line::of("xos login").answers(&[("Password of alice@rennes: ", PASSWORD)]),
];
const SHARES: &[Line] = &[
    Line::of("share offer").reads(&[("2027-12-31", "365d", "one day it will be over")]),
    Line::of("share served").says(&["demo.rennes"]),
];
const NAMES: &[Line] = &[
    Line::of("getent").says(&["alice.demo.rennes:", "/home/xos/alice.demo.rennes"]).until(),
    Line::of("findmnt").says(&["/xtreemfs/demo.rennes"]).until(),
];
const ALICE_WORKS: &[Line] = &[
    Line::of("xos login").answers(&[("Password of alice@rennes: ", PASSWORD)]),
    Line::of("ssh n1.rennes").says(&["alice.demo.rennes\n"]),
    Line::of("ssh n1.pisa").says(&["alice.demo.rennes\n"]),
    Line::of("hello").says(&["hello\n"]),
    Line::of("tail /dev/zero").code(137).says(&["used more memory than it asked for"]),
];
const BOB_APPLIES: &[Line] = &[
    Line::of("xos site add").answers(YES).says(&["{fingerprint of pisa}"]),
    Line::of("xos login").answers(&[("Password of bob@pisa: ", PASSWORD)]),
];
const BOB_WORKS: &[Line] = &[
    Line::of("xos login").answers(&[("Password of bob@pisa: ", PASSWORD)]),
    Line::of("ssh n1.rennes").says(&["bob.demo.rennes\n"]),
    Line::of("hello").says(&["hello\n"]),
];

const ENDED: &[Line] =
    &[Line::of("share withdraw").says(&["pisa no longer works for demo.rennes"])];

/// The administrators of pisa build for themselves, and people get `xos` from theirs.
fn bring_to_pisa(hour: &mut Hour) {
    for to in [OTHER_CORE, OTHER_NODE, LAPTOP] {
        hour.copy(&format!("{SOURCES}/xos-files"), BUILD, to.host);
    }
}

/// Of whom the text says what is done when they are there.
fn more_people(hour: &mut Hour) {
    for place in CORES {
        for name in ["mallory", "dora"] {
            let prompt = place.read(&format!("First password of {name}@rennes: "));
            let answers = [(prompt, FIRST.to_owned()), (AGAIN.to_owned(), FIRST.to_owned())];
            hour.types(place, &format!("xos person add {name}"), &answers).ok();
        }
    }
}

/// By a way that others do not read.
fn send_offer(hour: &mut Hour) {
    hour.copy(&format!("{FILES}/to-pisa.offer"), CORE, AT_PISA.host);
    sh(&hour.host(AT_PISA.host), &format!("mv /root/to-pisa.offer {FILES}/"));
}

/// Which takes a moment; before, sshd would ask for a password that nobody has.
fn node_knows_bob(hour: &mut Hour) {
    let node = hour.host(NODE.host);
    soon("the node knows bob", || {
        let found = node.run(&Cmd::new("getent").args(["passwd", "bob.demo.rennes"])).unwrap();
        found.exit.is_success().then_some(())
    });
}
