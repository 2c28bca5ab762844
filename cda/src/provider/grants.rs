//! Grants: what people allowed clients, until it ends. One record in the registry for each person.
//!
//! A refresh token is good once: each use gives the next. When an old one comes again, two have
//! it, and nobody can tell who is the thief: the grant ends (RFC 9700, 4.14.2).

use super::refused::{Refused, no_grant};
use super::{digest, same, secret};
use crate::Inner;
use crate::policy::PersonGrant;
use crate::registry::{self, Found};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use xos_api::audit::{Event, Outcome};
use xos_api::cda::{Client, Scope};
use xos_api::vom::MembershipOf;
use xos_base::{Epoch, Error, Kind, MemberNumber, Membership, Millis, PersonId, SiteId, VoId};
use xos_store::{Guard, Op};

/// Most grants of one person; one more ends the one that would end first.
const GRANTS_MAX: usize = 32;
/// How often a change is tried again that others came before.
const TRIES_MAX: usize = 8;
/// Longest refresh token, in bytes.
const TOKEN_MAX: usize = 512;

/// As the member of which VO somebody signed in, and since which change of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InVo {
    vo: VoId,
    number: MemberNumber,
    epoch: Epoch,
}

impl From<&Membership> for InVo {
    fn from(m: &Membership) -> InVo {
        InVo { vo: m.vo.clone(), number: m.number, epoch: m.epoch }
    }
}

/// What a person allowed.
#[derive(Clone, Debug)]
pub(super) struct Approval {
    pub(super) person: PersonId,
    /// When they signed in.
    pub(super) signed_in: Millis,
    /// Until when tokens are given without the person.
    pub(super) until: Millis,
    pub(super) scopes: Vec<Scope>,
    pub(super) in_vo: Option<InVo>,
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GrantRecord {
    /// Stands in refresh tokens only.
    pub(super) id: String,
    pub(super) client: String,
    pub(super) scopes: Vec<Scope>,
    in_vo: Option<InVo>,
    pub(super) signed_in: Millis,
    /// When the client got its first tokens.
    #[serde(default)]
    created: Millis,
    /// When it got its last ones.
    #[serde(default)]
    used: Millis,
    /// The digest of the refresh token in force; absent: there is none.
    refresh: Option<String>,
    pub(super) until: Millis,
}

impl GrantRecord {
    /// As the member of which VO the person signed in.
    pub(super) fn vo(&self) -> Option<&VoId> {
        self.in_vo.as_ref().map(|in_vo| &in_vo.vo)
    }

    /// When the client got its first tokens, and its last ones. Records of former versions say
    /// only when the person signed in.
    pub(super) fn fetched(&self) -> (Millis, Millis) {
        let since = self.created.max(self.signed_in);
        (since, self.used.max(since))
    }

    /// What stands of its id in access tokens, which many services read.
    pub(super) fn mark(&self) -> String {
        digest(&self.id)
    }
}

/// `cda/grants/<name>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct GrantsRecord {
    grants: Vec<GrantRecord>,
}

/// A refresh token: whose, of which grant, and a secret.
pub(super) struct Refresh {
    pub(super) person: PersonId,
    pub(super) grant: String,
    secret: String,
}

impl Refresh {
    fn new(person: &PersonId, grant: &str) -> Result<Refresh, Error> {
        Ok(Refresh { person: person.clone(), grant: grant.to_owned(), secret: secret()? })
    }

    /// Reads one that a client brought, as far as it has the form of one.
    pub(super) fn read(text: &str, site: &SiteId) -> Option<Refresh> {
        let bytes = (text.len() <= TOKEN_MAX).then(|| URL_SAFE_NO_PAD.decode(text).ok())??;
        let text = String::from_utf8(bytes).ok()?;
        let mut parts = text.splitn(3, '.');
        let person = site.person(parts.next()?).ok()?;
        let (grant, secret) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        Some(Refresh { person, grant, secret })
    }

    /// As the client keeps it.
    pub(super) fn write(&self) -> String {
        let Refresh { person, grant, secret } = self;
        URL_SAFE_NO_PAD.encode(format!("{}.{grant}.{secret}", person.name()))
    }

    fn digest(&self) -> String {
        digest(&self.secret)
    }
}

/// What comes of a refresh token.
enum Turned {
    Next,
    Reused,
    Gone,
}

fn changed_too_often(person: &PersonId) -> Error {
    Error::unavailable(format!("what {person} allowed changes too often at this moment"))
        .hint("try again in a moment")
}

impl Inner {
    /// Reads a refresh token, as far as it has the form of one.
    pub(super) fn read_refresh(&self, text: &str) -> Option<Refresh> {
        Refresh::read(text, &self.site)
    }

    /// What a person allowed, and what has not ended by itself.
    pub(super) async fn grants(&self, person: &PersonId) -> Result<Vec<GrantRecord>, Error> {
        let key = registry::key("grants", person.name())?;
        let found = self.registry.read::<GrantsRecord>(&key).await?;
        let now = self.now();
        let grants = found.map(|f| f.value.grants).unwrap_or_default();
        Ok(grants.into_iter().filter(|g| now < g.until).collect())
    }

    /// Changes what a person allowed; `change` may be called several times.
    async fn change_grants<T: Send>(
        &self,
        person: &PersonId,
        mut change: impl FnMut(&mut Vec<GrantRecord>) -> T + Send,
    ) -> Result<T, Error> {
        let key = registry::key("grants", person.name())?;
        for _ in 0..TRIES_MAX {
            let found = self.registry.read::<GrantsRecord>(&key).await?;
            let guard = found.as_ref().map_or_else(|| Guard::Absent(key.clone()), Found::guard);
            let before = found.map(|f| f.value.grants).unwrap_or_default();
            let now = self.now();
            let mut grants: Vec<_> = before.iter().filter(|g| now < g.until).cloned().collect();
            let outcome = change(&mut grants);
            if grants == before {
                return Ok(outcome);
            }
            let op = match grants.is_empty() {
                true => Op::Del(key.clone()),
                false => registry::put(key.clone(), &GrantsRecord { grants })?,
            };
            if self.registry.change(vec![guard], vec![op]).await? {
                return Ok(outcome);
            }
        }
        Err(changed_too_often(person))
    }

    /// The grant of that id that an approval makes, for a client; with the scope `offline_access`
    /// its first refresh token. It counts once it is kept.
    pub(super) fn new_grant(
        &self,
        id: String,
        client: &Client,
        approval: &Approval,
    ) -> Result<(GrantRecord, Option<Refresh>), Error> {
        let away = approval.scopes.contains(&Scope::OfflineAccess);
        let refresh = away.then(|| Refresh::new(&approval.person, &id)).transpose()?;
        let now = self.now();
        let until = match away {
            true => approval.until,
            false => now.plus(crate::jwt::LIFE_MAX),
        };
        let record = GrantRecord {
            id,
            client: client.id.clone(),
            scopes: approval.scopes.clone(),
            in_vo: approval.in_vo.clone(),
            signed_in: approval.signed_in,
            created: now,
            used: now,
            refresh: refresh.as_ref().map(Refresh::digest),
            until,
        };
        Ok((record, refresh))
    }

    /// Keeps a new grant.
    pub(super) async fn keep_grant(
        &self,
        person: &PersonId,
        grant: &GrantRecord,
    ) -> Result<(), Error> {
        self.change_grants(person, |grants| {
            if grants.len() >= GRANTS_MAX {
                let first = grants.iter().enumerate().min_by_key(|(_, g)| g.until);
                if let Some((first, _)) = first {
                    grants.remove(first);
                }
            }
            grants.push(grant.clone());
        })
        .await
    }

    /// Ends a grant, if it stands.
    pub(super) async fn end_grant(&self, person: &PersonId, id: &str) -> Result<(), Error> {
        let mut event = Event::new(self.now(), "end_grant");
        event.who = format!("core of {}", self.site);
        event.person = Some(person.clone());
        self.told.note(event);
        self.change_grants(person, |grants| grants.retain(|g| g.id != id)).await
    }

    /// Ends all grants of a client; whether one stood.
    pub(super) async fn end_grants_of(
        &self,
        person: &PersonId,
        client: &str,
    ) -> Result<bool, Error> {
        self.change_grants(person, |grants| {
            let before = grants.len();
            grants.retain(|g| g.client != client);
            grants.len() < before
        })
        .await
    }

    /// The grant of a client's refresh token. When the token was used before, the grant ends.
    pub(super) async fn grant_of(
        &self,
        token: &Refresh,
        client: &Client,
    ) -> Result<GrantRecord, Refused> {
        let grants = self.grants(&token.person).await?;
        let found = grants.into_iter().find(|g| g.id == token.grant && g.client == client.id);
        let found = found.ok_or_else(no_grant)?;
        match &found.refresh {
            Some(kept) if same(kept, &token.digest()) => Ok(found),
            Some(_) => {
                let why = "a refresh token came a second time";
                self.note_reuse(&token.person, Some(client), why);
                self.end_grant(&token.person, &token.grant).await?;
                Err(no_grant())
            }
            None => Err(no_grant()),
        }
    }

    /// Notes that what is good once came again: somebody else has it.
    pub(super) fn note_reuse(&self, person: &PersonId, client: Option<&Client>, why: &str) {
        let mut event = Event::new(self.now(), "reuse_token");
        event.on = client.map_or_else(String::new, |c| c.id.clone());
        event.person = Some(person.clone());
        (event.outcome, event.why) = (Outcome::Refused, why.to_owned());
        self.told.note(event);
    }

    /// Exchanges a refresh token for the next one.
    pub(super) async fn turn_refresh(&self, token: &Refresh) -> Result<Refresh, Refused> {
        let next = Refresh::new(&token.person, &token.grant)?;
        let (old, new, now) = (token.digest(), next.digest(), self.now());
        let turned = self
            .change_grants(&token.person, |grants| {
                let Some(at) = grants.iter().position(|g| g.id == token.grant) else {
                    return Turned::Gone;
                };
                if grants[at].refresh.as_ref().is_some_and(|kept| same(kept, &old)) {
                    grants[at].refresh = Some(new.clone());
                    grants[at].used = now;
                    return Turned::Next;
                }
                grants.remove(at);
                Turned::Reused
            })
            .await?;
        match turned {
            Turned::Next => Ok(next),
            Turned::Reused => {
                let why = "a refresh token came twice at the same time";
                self.note_reuse(&token.person, None, why);
                Err(no_grant())
            }
            Turned::Gone => Err(no_grant()),
        }
    }

    /// The membership under a grant that still stands: its person may sign in and has not ended
    /// their sessions since, and the membership is the one it was, nothing taken from it. For
    /// tokens it ends when the VO wants a newer sign-in, if not before.
    async fn membership_under(
        &self,
        person: &PersonId,
        grant: &GrantRecord,
    ) -> Result<Option<Membership>, Error> {
        let who =
            PersonGrant { person: person.clone(), signed_in: grant.signed_in, until: grant.until };
        self.enabled(&who).await?;
        let Some(in_vo) = &grant.in_vo else { return Ok(None) };
        let (vo, since) = (in_vo.vo.clone(), Some(in_vo.epoch));
        let member = self.member_now(MembershipOf { vo, person: person.clone(), since }).await?;
        let who = who.within(&in_vo.vo, &member, self.now())?;
        let m = member.membership;
        if m.number != in_vo.number || m.epoch != in_vo.epoch {
            return Err(Error::denied(format!("the membership in {} has changed", m.vo)));
        }
        let expires = m.expires.map_or(who.until, |e| e.min(who.until));
        Ok(Some(Membership { expires: Some(expires), ..m }))
    }

    /// As [`Inner::membership_under`]; a grant that does not stand any more ends.
    pub(super) async fn standing(
        &self,
        person: &PersonId,
        grant: &GrantRecord,
    ) -> Result<Option<Membership>, Refused> {
        match self.membership_under(person, grant).await {
            Err(e) if is_final(e.kind) => {
                self.end_grant(person, &grant.id).await?;
                Err(no_grant())
            }
            other => Ok(other?),
        }
    }
}

/// Whether a right is gone, and not only out of sight.
pub(super) fn is_final(kind: Kind) -> bool {
    matches!(kind, Kind::Denied | Kind::Unauthenticated | Kind::NotFound)
}
