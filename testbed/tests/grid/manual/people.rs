//! docs/user.md up to a person's first session on a machine.

use super::Hour;
use super::steps::{AGAIN, ALICE, How, Line, PASSWORD, Place, Step, YES, step};
use crate::world::sh;

/// What alice, who founded a VO and owns it, does in the order of docs/user.md.
pub const STEPS: &[Step] = &[
    step("First contact", "xos site add core.rennes.example", AT, How::Typed(CONTACT)),
    step("Signing in", "xos login alice@rennes", AT, How::Typed(FIRST_SIGN_IN)),
    step("Signing in", "xos login --provider uni", AT, How::Typed(PROVIDER)),
    step("Signing in", "xos account link uni", &[], How::Elsewhere(ACCOUNT)),
    step("Signing in", "xos login --kerberos", AT, How::Typed(KERBEROS)),
    step("Signing in", "xos account services", &[], How::Elsewhere(ACCOUNT)),
    step("Passkeys", "xos login alice@rennes --code", AT, How::Typed(CODE)),
    step("Your credentials", "xos id", AT, How::Typed(CREDENTIALS)).before(sign_in),
    step("Your credentials", "xos renew --install", AT, How::Typed(&[])),
    step("Sign in to machines", "ssh n1.rennes", AT, How::Typed(MACHINES)).before(have_data),
];

const AT: &[Place] = &[ALICE];
const NEW: &str = "battery horse correct";
const SIGN_IN: &[(&str, &str)] = &[("Password of alice@rennes: ", NEW)];
const ACCOUNT: &str = "xos/tests/cli/account.rs has a provider that people link";
/// What a shell shows when it waits.
const PROMPT: &str = "$ ";

const CONTACT: &[Line] =
    &[Line::of("xos site add").answers(YES).says(&["{fingerprint of rennes}"])];
const FIRST_SIGN_IN: &[Line] = &[
    Line::of("# with your first password")
        .answers(&[("Password of alice@rennes: ", PASSWORD)])
        .says(&["Signed in as alice@rennes"]),
    Line::of("xos person passwd").answers(&[
        ("Your present password: ", PASSWORD),
        ("New password of alice@rennes: ", NEW),
        (AGAIN, NEW),
    ]),
    Line::of("# with the new one").answers(SIGN_IN),
    Line::of("xos id").says(&["alice@rennes", "demo.rennes"]),
    Line::of("xos logout").says(&["keys and certificates are removed"]),
];
/// Such a site has none: people are told so.
const PROVIDER: &[Line] = &[
    Line::of("# opens your browser").code(66).says(&["rennes has no identity provider uni"]),
    Line::of("--device").code(66).says(&["rennes has no identity provider uni"]),
];
const KERBEROS: &[Line] =
    &[Line::of("--kerberos").code(66).says(&["rennes takes no Kerberos tickets"])];
const CODE: &[Line] = &[Line::of("--code")
    .answers(&[("Code from the console for alice@rennes: ", "not from the console")])
    .code(78)
    .says(&["this code is wrong"])];
const CREDENTIALS: &[Line] = &[
    Line::of("# all three").says(&["demo.rennes", "SHA256:"]),
    Line::of("# prints a fresh token").says(&["eyJ"]),
    Line::of("curl -H").reads(&[("curl", "echo", "no service outside is in reach")]).says(&["eyJ"]),
    Line::of("--role")
        .reads(&[("editor", "owner", "it is the role that she has")])
        .answers(SIGN_IN)
        .says(&["Narrowed"]),
    Line::of("--group")
        .reads(&[("physics", "members", "the VO has no other group")])
        .answers(SIGN_IN)
        .says(&["Narrowed"]),
];
const MACHINES: &[Line] = &[
    Line::of("# after `xos login`").answers(&[
        (PROMPT, "mkdir results; echo I am $(id -un)"),
        ("I am alice.demo.rennes", "exit"),
    ]),
    Line::of("scp input.dat"),
    Line::of("# the same, without").answers(&[
        (PROMPT, "cp input.dat results; echo there are $(ls results)"),
        ("there are input.dat", "exit"),
    ]),
    Line::of("xos scp"),
    Line::of("# as a member of another VO")
        .reads(&[("other.pisa", "demo.rennes", "she is in one VO")])
        .answers(&[(PROMPT, "exit")]),
];

/// After she signed out.
fn sign_in(hour: &mut Hour) {
    let answers = SIGN_IN.iter().map(|(ask, say)| ((*ask).to_owned(), (*say).to_owned()));
    hour.types(&ALICE, "xos login alice@rennes", &answers.collect::<Vec<_>>()).ok();
}

fn have_data(hour: &mut Hour) {
    let home = ALICE.cwd;
    sh(&hour.host(ALICE.host), &format!("echo data > {home}/input.dat; chown alice: {home}/*"));
}
