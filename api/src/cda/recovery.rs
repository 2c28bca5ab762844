//! Recovery: a site administrator takes all ways in from a person and gives them a code by which
//! they make a new one themselves.

use super::{Ceremony, OneTimeCode, Password};
use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{Millis, PersonId};

/// How long a recovery code holds, in seconds.
pub const RECOVERY_LIFE_S: u64 = 3600;

/// Takes password, passkeys and linked accounts from a person and ends their sessions. For the
/// site's other administrators: nobody recovers themselves. A code from before is void.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoverPerson {
    /// The person.
    pub person: PersonId,
}
request!(RecoverPerson => RecoveryCode, Post "/v1/people/{person}/recover");

/// The answer to [`RecoverPerson`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoveryCode {
    /// The person.
    pub person: PersonId,
    /// The code, good once.
    pub code: OneTimeCode,
    /// The console's page where it is used.
    pub address: String,
    /// When it is too late.
    pub expires: Millis,
}

/// Sets a password by a recovery code. Needs no other proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishRecovery {
    /// The person's name, `alice` or `alice@rennes`.
    pub user: String,
    /// The code; case, blanks and hyphens do not matter.
    pub code: OneTimeCode,
    /// The new password.
    pub password: Password,
}
request!(FinishRecovery => Done, Post "/v1/recovery/password");

/// Begins to make a passkey by a recovery code; [`super::EnrolPasskey`] finishes it and uses the
/// code up. Needs no other proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginRecovery {
    /// As [`FinishRecovery::user`].
    pub user: String,
    /// As [`FinishRecovery::code`].
    pub code: OneTimeCode,
}
request!(BeginRecovery => Ceremony, Post "/v1/recovery/passkey");

/// Tells a person that an administrator recovered their access, or set their password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recovered {
    /// The administrator.
    pub by: PersonId,
    /// When.
    pub at: Millis,
}
