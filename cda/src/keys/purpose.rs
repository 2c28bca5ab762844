//! What the keys of a site are for.

use xos_net::key::KeyKind;

/// A purpose of which the key can be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Statements: VO logs, tokens, mandates, tickets.
    Signing,
    /// SSH certificates of people.
    SshPeople,
    /// SSH certificates of machines.
    SshMachines,
    /// JWTs for services outside.
    Jwt,
    /// The authority below the root that makes members' certificates.
    People,
    /// The one that makes machines' certificates.
    Machines,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Purpose; 6] = [
        Purpose::Signing,
        Purpose::SshPeople,
        Purpose::SshMachines,
        Purpose::Jwt,
        Purpose::People,
        Purpose::Machines,
    ];

    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Signing => "signing",
            Purpose::SshPeople => "ssh-people",
            Purpose::SshMachines => "ssh-machines",
            Purpose::Jwt => "jwt",
            Purpose::People => "people",
            Purpose::Machines => "machines",
        }
    }

    /// The name of its file.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Purpose::Signing => "signing.pem",
            Purpose::SshPeople => "ssh-people.pem",
            Purpose::SshMachines => "ssh-machines.pem",
            Purpose::Jwt => "jwt.pem",
            Purpose::People => "people.pem",
            Purpose::Machines => "machines.pem",
        }
    }

    /// The kind of its keys.
    pub(crate) fn kind(self) -> KeyKind {
        match self {
            Purpose::Signing | Purpose::SshPeople | Purpose::SshMachines => KeyKind::Ed25519,
            Purpose::Jwt | Purpose::People | Purpose::Machines => KeyKind::P256,
        }
    }

    /// Whether the public part of a former key is kept: a site that comes to serve a VO reads its
    /// log from the beginning.
    pub(crate) fn keeps_former(self) -> bool {
        self == Purpose::Signing
    }
}
