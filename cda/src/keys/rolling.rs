//! Replacing keys without an outage, beside a core that runs.
//!
//! A key with several in its file rolls in steps whose dates are written down with it: the new one
//! is named to others, and signs once everybody knows it; the former one counts until what it
//! signed has expired. An authority is replaced at once: the root signed both, and certificates
//! hold by the root.

use super::authority::{self, Authority, Role, span_of};
use super::list::{Dates, Entry, KeyList};
use super::place::{Kept, Place, label};
use super::purpose::Purpose;
use super::state::{authority_file, key_list};
use super::{FOLDER, files};
use crate::config::{Config, REFRESH_MAX_S};
use crate::ops::OFFER_LIFE;
use crate::{jwt, ssh};
use rustls_pki_types::CertificateDer;
use ssh_key::HashAlg;
use ssh_key::public::KeyData;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use xos_api::site::{DESCRIPTOR_LIST_MAX, LOG_KEYS_MAX};
use xos_base::{Error, Millis, SiteId};
use xos_net::identity::{hex, key_fingerprint, root_fingerprint, sha256};
use xos_net::key::{KeyKind, Vault};

/// For clocks that differ, and for whoever was not reached at once.
const SLACK: Duration = Duration::from_secs(3600);
/// After this time every site that was reached has heard of a new key, and so have its nodes. Other
/// sites are told at once; this is for those that hear it at their next refresh.
pub const KNOWN_AFTER: Duration = Duration::from_secs(REFRESH_MAX_S + 3600);
/// How long a former key for JWTs counts. No JWT lives nearly as long.
const JWT_COUNTS: Duration = Duration::from_secs(24 * 3600);

/// What a key does at the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It signs.
    Signs,
    /// Others know it already; it signs from then on.
    SignsFrom(Millis),
    /// It signs no more, and what it signed counts: until then, or for ever.
    Counts(Option<Millis>),
    /// It is gone; entries of VO logs that it signed count.
    CountsForLogs,
    /// It signs no more, and what it signed is refused.
    Refused,
}

/// One key of the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyView {
    /// What it is for.
    pub purpose: &'static str,
    /// Its kind.
    pub kind: KeyKind,
    /// Whether it lies in the vault.
    pub in_vault: bool,
    /// What people know it by: a key for SSH as ssh-keygen shows it, one for JWTs by its `kid`, the
    /// root as setup showed it, and others by SHA-256 over the public key.
    pub fingerprint: String,
    /// When it was made, or certified; 0: not known.
    pub since: Millis,
    /// What it does.
    pub state: KeyState,
}

fn place(state: &Path, vault: Option<Arc<dyn Vault>>) -> Result<Place, Error> {
    let dir = state.join(FOLDER);
    match dir.exists() {
        true => Ok(Place { dir, vault }),
        false => Err(Error::not_found(format!("there are no keys in {}", dir.display()))
            .hint("a site's keys lie on its core; `xosd setup` makes them")),
    }
}

/// All keys of the site in `state` at `now`. The vault is not asked. Blocks on the disk.
///
/// # Errors
/// [`xos_base::Kind::Internal`] when a file cannot be read; [`xos_base::Kind::NotFound`] when there
/// are none.
pub fn list_keys(state: &Path, now: Millis) -> Result<Vec<KeyView>, Error> {
    list(&place(state, None)?, now)
}

pub(super) fn list(place: &Place, now: Millis) -> Result<Vec<KeyView>, Error> {
    let mut all = Vec::new();
    for role in [Role::Root, Role::People, Role::Machines] {
        let file = authority_file(role, place)?;
        let view = |der: &CertificateDer<'_>, state: KeyState| {
            Ok::<_, Error>(KeyView {
                purpose: role.purpose(),
                kind: KeyKind::P256,
                in_vault: state == KeyState::Signs && matches!(file.kept, Kept::Vault(..)),
                fingerprint: match role {
                    Role::Root => root_fingerprint(der),
                    _ => format!("sha256:{}", key_fingerprint(der)?),
                },
                since: span_of(der)?.from,
                state,
            })
        };
        all.push(view(&file.der, KeyState::Signs)?);
        for der in &file.refused {
            all.push(view(der, KeyState::Refused)?);
        }
    }
    for purpose in [Purpose::Signing, Purpose::SshPeople, Purpose::SshMachines, Purpose::Jwt] {
        all.extend(views(purpose, &key_list(purpose, place)?, now)?);
    }
    Ok(all)
}

/// What the audit is told when the keys are others than before: of each key that is new, has a new
/// certificate, signs now, or is gone.
pub(crate) fn changes<'a>(
    before: &'a [KeyView],
    after: &'a [KeyView],
) -> impl Iterator<Item = (&'static str, String)> + 'a {
    fn like(a: &KeyView, b: &KeyView) -> bool {
        (a.purpose, &a.fingerprint) == (b.purpose, &b.fingerprint)
    }
    fn told(what: &'static str, key: &KeyView) -> (&'static str, String) {
        (what, format!("{} {}", key.purpose, key.fingerprint))
    }
    let new = after.iter().filter_map(move |key| match before.iter().find(|b| like(b, key)) {
        None => Some(told("add_key", key)),
        Some(was) if was.since != key.since => Some(told("renew_certificate", key)),
        Some(was) if key.state == KeyState::Signs && was.state != key.state => {
            Some(told("use_key", key))
        }
        Some(_) => None,
    });
    let gone = before.iter().filter(move |key| !after.iter().any(|a| like(a, key)));
    new.chain(gone.map(move |key| told("drop_key", key)))
}

fn views(purpose: Purpose, list: &KeyList, now: Millis) -> Result<Vec<KeyView>, Error> {
    let signing = list.signing(now);
    let view = |(i, entry): (usize, &Entry)| {
        let state = match i.cmp(&signing) {
            _ if !entry.kept.signs() => KeyState::CountsForLogs,
            std::cmp::Ordering::Less => KeyState::SignsFrom(entry.dates.signs),
            std::cmp::Ordering::Equal => KeyState::Signs,
            std::cmp::Ordering::Greater => KeyState::Counts(entry.dates.until),
        };
        Ok::<_, Error>(KeyView {
            purpose: purpose.name(),
            kind: list.kind,
            in_vault: matches!(entry.kept, Kept::Vault(..)),
            fingerprint: fingerprint(purpose, &entry.kept.public(list.kind)?)?,
            since: entry.dates.made,
            state,
        })
    };
    list.entries.iter().enumerate().map(view).collect()
}

fn fingerprint(purpose: Purpose, public: &[u8]) -> Result<String, Error> {
    Ok(match purpose {
        Purpose::SshPeople | Purpose::SshMachines => {
            KeyData::Ed25519(ssh::ed25519(public)?).fingerprint(HashAlg::Sha256).to_string()
        }
        Purpose::Jwt => jwt::jwk(public)?.kid,
        _ => format!("sha256:{}", hex(&sha256(public))),
    })
}

/// How long a new key is known before it signs, and how long the former one counts after that.
fn periods(purpose: Purpose, config: &Config) -> (Duration, Duration) {
    let life = |s: u64| Duration::from_secs(s).saturating_add(SLACK);
    match purpose {
        Purpose::Signing => (KNOWN_AFTER, life(config.mandate_s).max(OFFER_LIFE + SLACK)),
        Purpose::SshPeople => (KNOWN_AFTER, life(config.certificate_s)),
        // People's computers learn it when they sign in.
        Purpose::SshMachines => (life(config.renewal_s).max(KNOWN_AFTER), life(config.machine_s)),
        Purpose::Jwt => (KNOWN_AFTER, JWT_COUNTS),
        Purpose::People | Purpose::Machines => (Duration::ZERO, Duration::ZERO),
    }
}

/// Makes a new key for `purpose`, in `vault` if there is one, and writes down when it signs and how
/// long the former one counts. The core of `site`, with its state in `state`, may run meanwhile: it
/// takes that up by itself. With `at_once` the new key signs at once and the former ones count no
/// more: for when somebody else has got hold of one. Gives the keys for that purpose as they are
/// then. Blocks on the disk.
///
/// # Errors
/// [`xos_base::Kind::Conflict`] when a new key waits already to be signed with, or too many count
/// still; those of the disk and of the vault. Nothing has changed then.
pub fn roll_key(
    (state, site): (&Path, &SiteId),
    config: &Config,
    vault: Option<Arc<dyn Vault>>,
    (purpose, at_once): (Purpose, bool),
    now: Millis,
) -> Result<Vec<KeyView>, Error> {
    let place = place(state, vault)?;
    let alone = files::lock(&place.dir)?;
    match purpose {
        Purpose::People => roll_authority(Role::People, site, &place, at_once, now)?,
        Purpose::Machines => roll_authority(Role::Machines, site, &place, at_once, now)?,
        _ if at_once => replace_list(purpose, site, &place, now)?,
        _ => roll_list(purpose, site, &place, periods(purpose, config), now)?,
    }
    drop(alone);
    tracing::info!(%site, purpose = purpose.name(), at_once, "a key is replaced");
    let all = list_keys(state, now)?;
    Ok(all.into_iter().filter(|k| k.purpose == purpose.name()).collect())
}

fn roll_authority(
    role: Role,
    site: &SiteId,
    place: &Place,
    at_once: bool,
    now: Millis,
) -> Result<(), Error> {
    let file = Role::Root.file();
    let root = Authority::read(file, &files::read(&place.dir.join(file))?, place)?;
    let old = authority_file(role, place)?;
    if at_once && old.refused.len() >= DESCRIPTOR_LIST_MAX / 2 {
        return Err(full(role.purpose(), "are refused"));
    }
    let text = authority::replace(role, site, (&old, at_once), (&root, place), now)?;
    files::replace(&place.dir, role.file(), text.as_bytes())
}

fn full(purpose: &str, what: &str) -> Error {
    Error::conflict(format!("too many former keys for {purpose} {what}"))
        .hint("`xosd keys list` shows until when")
}

/// Puts a new key first that signs once others know it.
fn roll_list(
    purpose: Purpose,
    site: &SiteId,
    place: &Place,
    (known, counts): (Duration, Duration),
    now: Millis,
) -> Result<(), Error> {
    let mut list = key_list(purpose, place)?;
    let name = purpose.name();
    if let Some(waiting) = list.able().find(|e| e.dates.signs > now) {
        return Err(Error::conflict(format!(
            "a new key for {name} waits already: it signs from {}",
            waiting.dates.signs
        ))
        .hint("to replace the keys at once, since one is in other hands: --now"));
    }
    check_room(purpose, &list)?;
    let signs = now.plus(known);
    for entry in list.entries.iter_mut().filter(|e| e.kept.signs()) {
        entry.dates.until.get_or_insert(signs.plus(counts));
    }
    let kept = place.make(purpose.kind(), &label(site, name))?;
    let dates = Dates { made: now, signs, until: None };
    list.entries.insert(0, Entry { dates, kept });
    files::replace(&place.dir, purpose.file(), list.text()?.as_bytes())
}

/// Puts a new key in place of all others.
fn replace_list(purpose: Purpose, site: &SiteId, place: &Place, now: Millis) -> Result<(), Error> {
    let mut list = key_list(purpose, place)?;
    check_room(purpose, &list)?;
    let all: Vec<usize> = (0..list.able().count()).collect();
    let waiting = list.able().filter(|e| e.dates.signs > now).count();
    list.take(&all, purpose.keeps_former())?;
    // What never signed has no log that needs it.
    if purpose.keeps_former() {
        list.entries.drain(..waiting);
    }
    let kept = place.make(purpose.kind(), &label(site, purpose.name()))?;
    list.entries.insert(0, Entry { dates: Dates::at_once(now), kept });
    files::replace(&place.dir, purpose.file(), list.text()?.as_bytes())
}

/// Refuses a key more than others would read.
fn check_room(purpose: Purpose, list: &KeyList) -> Result<(), Error> {
    if list.able().count() >= DESCRIPTOR_LIST_MAX {
        return Err(full(purpose.name(), "still count"));
    }
    if purpose.keeps_former() && list.entries.len() >= LOG_KEYS_MAX {
        return Err(Error::conflict(format!(
            "{LOG_KEYS_MAX} former keys for {} are kept for VO logs, and there is no room for more",
            purpose.name()
        )));
    }
    Ok(())
}
