//! Logins to machines that a person allows in the console of their own site: for PAM's auth phase,
//! at a console and for `sudo`. A machine can only ask; what is allowed is one service on one node.
//! And logins by a password, at machines of the person's own site that take one.

use super::Password;
use super::provider::Secret;
use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{Millis, NodeId, PersonId, VoId};

/// What somebody wants to do on a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeLogin {
    /// The machine.
    pub node: NodeId,
    /// The local name of the account there.
    pub user: String,
    /// The PAM service: `login`, `sudo`, ...
    pub service: String,
    /// Whose account it is: only they can allow it, and none else sees it.
    pub person: PersonId,
    /// The VO in which the machine may act for the person while they are signed in there, so that
    /// its volume is theirs; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vo: Option<VoId>,
}

/// Begins one. For a node at its own core, which passes it on to the person's site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginNodeLogin {
    /// What is wanted.
    pub login: NodeLogin,
}
request!(BeginNodeLogin => BegunNodeLogin, Post "/v1/nodes/logins");

/// The answer to [`BeginNodeLogin`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BegunNodeLogin {
    /// For [`PollNodeLogin`].
    pub attempt: Secret,
    /// Where the person goes, on any device.
    pub address: String,
    /// What they type there.
    pub code: String,
    /// A QR code of both, in rows of half blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// How long to wait before each [`PollNodeLogin`], in seconds.
    pub interval_s: u64,
    /// When it is too late.
    pub expires: Millis,
}

/// Asks what the person decided. For whom [`BeginNodeLogin`] is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PollNodeLogin {
    /// The machine.
    pub node: NodeId,
    /// The person.
    pub person: PersonId,
    /// The attempt.
    pub attempt: Secret,
}
request!(PollNodeLogin => NodeLoginState, Post "/v1/nodes/logins/poll");

/// Where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeLoginState {
    /// The person has not decided.
    Waiting,
    /// The person said yes. It is told once.
    Allowed {
        /// The mandate of the login, signed by the home of [`NodeLogin::vo`]. Absent when none was
        /// wanted, or that home gave none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mandate: Option<String>,
    },
    /// The person said no.
    Declined,
    /// It took too long, or never was.
    Over,
}

/// Looks at a password that somebody typed at a machine. For a node, at its own core, about a
/// person of the same site who is let in by a password alone.
///
/// Refused as Unauthenticated when it is wrong; as Denied, without a look at it, when the site
/// takes none, or none of this person; as Limited after too many wrong ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckNodePassword {
    /// What is wanted.
    pub login: NodeLogin,
    /// What was typed.
    pub password: Password,
}
request!(CheckNodePassword => Done, Post "/v1/nodes/logins/password");
