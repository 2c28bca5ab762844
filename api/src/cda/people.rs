//! The people of a site.

use super::Password;
use crate::request;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{Millis, PersonId, VoId};

/// A person of this site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// The person.
    pub person: PersonId,
    /// Administers this site.
    pub site_admin: bool,
    /// Cannot sign in.
    pub disabled: bool,
    /// Since when the site knows them.
    pub created: Millis,
}

/// Whom the core takes the caller for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhoAmI {}
request!(WhoAmI => Whoami, Get "/v1/me");

/// The answer to [`WhoAmI`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Whoami {
    /// The caller in one phrase: `alice@rennes of demo.rennes`.
    pub caller: String,
    /// The person, when the caller is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<PersonId>,
    /// The VO that the caller acts in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vo: Option<VoId>,
    /// Administers this site.
    pub site_admin: bool,
}

/// Makes a person known. For the site's administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePerson {
    /// The name without the site: 1 to 32 of a-z, 0-9, '-' and '_', beginning with a letter.
    pub name: String,
    /// The first password, [`super::PASSWORD_MIN`] to [`super::PASSWORD_MAX`] bytes.
    pub password: Password,
    /// Shall administer this site.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub site_admin: bool,
}
request!(CreatePerson => Person, Post "/v1/people");

/// Makes oneself known, where the site allows it. Needs no proof of identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// As [`CreatePerson::name`].
    pub name: String,
    /// As [`CreatePerson::password`].
    pub password: Password,
}
request!(Register => Person, Post "/v1/register");

/// Lists the people of this site by name. For its administrators.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListPeople {
    /// Only people after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<PersonId>,
    /// At most so many, not over [`super::PAGE_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
request!(ListPeople => PeoplePage, Get "/v1/people");

/// A part of the list of people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeoplePage {
    /// By name.
    pub people: Vec<Person>,
    /// Give this as `after` for the next part; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<PersonId>,
}

/// Disables or enables a person, or makes them administrator or not. For the site's other
/// administrators: nobody changes themselves, so that one always remains.
///
/// Who is disabled gets no new token or certificate; tokens in hand end within minutes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPerson {
    /// The person.
    pub person: PersonId,
    /// Absent: as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Absent: as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site_admin: Option<bool>,
}
request!(SetPerson => Person, Put "/v1/people/{person}");

/// Sets a password: one's own, naming the present one, or as administrator another's.
///
/// Sessions from before end. A person whose password an administrator set is told so
/// ([`super::SignedIn::recovered`]), and a recovery code from before is void.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPassword {
    /// The person.
    pub person: PersonId,
    /// The present password; needed for one's own. Who has none yet needs a sign-in of the last
    /// [`super::LINK_AGE_MAX_S`] seconds instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<Password>,
    /// The new one.
    pub password: Password,
}
request!(SetPassword => PasswordSet, Post "/v1/people/{person}/password");

/// The answer to [`SetPassword`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordSet {
    /// The person had none until now, and came in by something else or not at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub first: bool,
}
