//! Entries for `fuzz/`: decoders of what comes from outside, each alone. No part of the interface.

use super::proof::proved;
use crate::principals::find;
use xos_base::local::{Account, Principals};
use xos_base::{Epoch, MemberNumber, Millis};

/// The authority whose certificates count: the public key of the Ed25519 seed of 32 ones.
const AUTHORITY: [u8; 32] = [
    0x8a, 0x88, 0xe3, 0xdd, 0x74, 0x09, 0xf1, 0x95, 0xfd, 0x52, 0xdb, 0x2d, 0x3c, 0xba, 0x5d, 0x72,
    0xca, 0x67, 0x09, 0xbf, 0x1d, 0x94, 0x12, 0x1b, 0xf3, 0x74, 0x88, 0x01, 0xb4, 0x0f, 0x6f, 0x5c,
];
/// When certificates and records are read.
const NOW: Millis = Millis(2_000_000_000_000);
/// Whose they are.
const USER: &str = "ann.demo.rennes";
/// Their uid.
const UID: u32 = 1_900_000_007;

/// What sshd leaves in `SSH_AUTH_INFO_0`.
pub fn ssh_auth_info(text: &str) {
    let (Ok(person), Ok(vo)) = ("ann@rennes".parse(), "demo.rennes".parse()) else { return };
    let account = Account {
        name: USER.to_owned(),
        uid: UID,
        gid: 1_900_000_001,
        home: format!("/home/xos/{USER}"),
        person,
        vo,
        number: MemberNumber(7),
        epoch: Epoch(4),
        expires: None,
    };
    // Whether it is refused does not matter, only that it is answered.
    proved(text, &account, &[AUTHORITY], NOW).ok();
}

/// The file by which sshd is answered while `xosd` does not run.
pub fn principals_file(text: &str) {
    for authority in ["AAAA1", ""] {
        let (user, authority) = (USER.to_owned(), authority.to_owned());
        let call = Principals { user, uid: UID, certificate: String::new(), authority };
        find(text, &call, NOW);
    }
}
