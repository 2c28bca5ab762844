//! The keys as their files say, after what is due in these was done.

use super::authority::{self, Authority, AuthorityFile, Role};
use super::files;
use super::list::{KeyList, Several};
use super::place::Place;
use super::purpose::Purpose;
use crate::jwt::JwtKey;
use crate::ssh::SshSigner;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;
use std::time::Duration;
use xos_api::site::SiteKeys as PublicKeys;
use xos_base::{Error, Millis, SiteId};
use xos_net::key::{KeyId, PrivateKey};
use xos_net::sign::vouch;
use zeroize::Zeroizing;

/// All keys but the root's and the core's own.
pub(super) struct State {
    lists: Lists,
    pub(super) signing: Several<Arc<dyn PrivateKey>>,
    pub(super) ssh_people: Several<SshSigner>,
    pub(super) ssh_machines: Several<SshSigner>,
    pub(super) jwt: Several<JwtKey>,
    pub(super) people: Arc<Authority>,
    pub(super) machines: Arc<Authority>,
    said: PublicKeys,
    /// The root's word on the keys that others check by, [`PublicKeys`].
    pub(super) vouched: String,
}

/// The files with several keys.
struct Lists {
    signing: List,
    ssh_people: List,
    ssh_machines: List,
    jwt: List,
}

/// One of them.
struct List {
    file: &'static str,
    text: Zeroizing<String>,
    keys: KeyList,
    signing: usize,
}

impl List {
    /// Reads it, takes out what counts no more, and has destroyed what was taken out of `old`, so
    /// that nobody uses it.
    fn read(
        purpose: Purpose,
        place: &Place,
        old: Option<&List>,
        now: Millis,
    ) -> Result<List, Error> {
        let file = purpose.file();
        let mut text = files::read(&place.dir.join(file))?;
        let mut keys = KeyList::read(file, purpose.kind(), &text)?;
        let gone = keys.expire(now, purpose.keeps_former())?;
        let dropped = keys.dropped.len();
        if old.is_none_or(|o| *o.text == *text) {
            keys.dropped.retain(|id| !place.is_destroyed(*id));
        }
        if gone > 0 || keys.dropped.len() < dropped {
            text = keys.text()?;
            files::replace(&place.dir, file, text.as_bytes())?;
            tracing::info!(file, gone, "former keys were taken out");
        }
        let signing = keys.signing(now);
        Ok(List { file, text, keys, signing })
    }

    fn is_as(&self, other: &List) -> bool {
        *self.text == *other.text && self.signing == other.signing
    }

    fn named(&self) -> (&str, &KeyList) {
        (self.file, &self.keys)
    }
}

impl Lists {
    fn read(place: &Place, old: Option<&Lists>, now: Millis) -> Result<Lists, Error> {
        let read = |purpose, of: fn(&Lists) -> &List| List::read(purpose, place, old.map(of), now);
        Ok(Lists {
            signing: read(Purpose::Signing, |l| &l.signing)?,
            ssh_people: read(Purpose::SshPeople, |l| &l.ssh_people)?,
            ssh_machines: read(Purpose::SshMachines, |l| &l.ssh_machines)?,
            jwt: read(Purpose::Jwt, |l| &l.jwt)?,
        })
    }

    fn are_as(&self, other: &Lists) -> bool {
        self.signing.is_as(&other.signing)
            && self.ssh_people.is_as(&other.ssh_people)
            && self.ssh_machines.is_as(&other.ssh_machines)
            && self.jwt.is_as(&other.jwt)
    }
}

/// What reading needs to know.
pub(super) struct Around<'a> {
    pub(super) site: &'a SiteId,
    pub(super) place: &'a Place,
    pub(super) root: &'a Authority,
}

impl State {
    /// Reads the files; nothing when all is as in `old`. Held meanwhile: [`files::lock`].
    pub(super) fn read(
        around: &Around<'_>,
        old: Option<&State>,
        now: Millis,
    ) -> Result<Option<State>, Error> {
        let place = around.place;
        let lists = Lists::read(place, old.map(|o| &o.lists), now)?;
        let people = around.authority(Role::People, old.map(|o| &o.people), now)?;
        let machines = around.authority(Role::Machines, old.map(|o| &o.machines), now)?;
        let same = |o: &State| {
            o.lists.are_as(&lists)
                && Arc::ptr_eq(&o.people, &people)
                && Arc::ptr_eq(&o.machines, &machines)
        };
        if old.is_some_and(same) {
            return Ok(None);
        }
        let signing = Several::open(lists.signing.named(), place, now, Ok)?;
        let ssh_people = Several::open(lists.ssh_people.named(), place, now, SshSigner::new)?;
        let ssh_machines = Several::open(lists.ssh_machines.named(), place, now, SshSigner::new)?;
        let jwt = Several::open(lists.jwt.named(), place, now, JwtKey::new)?;
        let mut refused = people.file.refused_keys()?;
        refused.extend(machines.file.refused_keys()?);
        let former = lists.signing.keys.former().map(|e| e.kept.public(lists.signing.keys.kind));
        let former = former.collect::<Result<Vec<_>, Error>>()?;
        let said = PublicKeys {
            site: around.site.clone(),
            keys: signing.all.iter().map(|k| STANDARD.encode(k.public())).collect(),
            ssh_people: ssh_people.all.iter().map(|k| k.public()).collect(),
            ssh_machines: ssh_machines.all.iter().map(|k| k.public()).collect(),
            logs: former.iter().map(|k| STANDARD.encode(k)).collect(),
            refused,
            issued: now,
        };
        let (said, vouched) = around.vouched(said, old)?;
        Ok(Some(State {
            lists,
            signing,
            ssh_people,
            ssh_machines,
            jwt,
            people,
            machines,
            said,
            vouched,
        }))
    }
}

impl Around<'_> {
    /// The authority, renewed if it is due.
    fn authority(
        &self,
        role: Role,
        old: Option<&Arc<Authority>>,
        now: Millis,
    ) -> Result<Arc<Authority>, Error> {
        let file = role.file();
        let read = files::read(&self.place.dir.join(file))?;
        let present = match old {
            Some(old) if *old.text == *read => old.clone(),
            _ => Arc::new(Authority::read(file, &read, self.place)?),
        };
        let present = match old.is_none_or(|o| *o.text == *read) {
            true => self.without_dropped(file, present)?,
            false => present,
        };
        if !present.span.is_due(now) || present.span.until >= self.root.span.until {
            return Ok(present);
        }
        let below = (self.root, self.place);
        let text = authority::renew(role, self.site, &present.file, below, now)?;
        let renewed = Authority::read(file, &text, self.place)?;
        files::replace(&self.place.dir, file, text.as_bytes())?;
        tracing::info!(authority = file, "authority renewed");
        Ok(Arc::new(renewed))
    }

    /// Has destroyed what was dropped for this authority, which is in use already.
    fn without_dropped(
        &self,
        file: &str,
        present: Arc<Authority>,
    ) -> Result<Arc<Authority>, Error> {
        let left = present.file.dropped.iter().copied();
        let left: Vec<KeyId> = left.filter(|id| !self.place.is_destroyed(*id)).collect();
        if left.len() == present.file.dropped.len() {
            return Ok(present);
        }
        let text = AuthorityFile { dropped: left, ..present.file.clone() }.text();
        files::replace(&self.place.dir, file, text.as_bytes())?;
        Ok(Arc::new(Authority::read(file, &text, self.place)?))
    }

    /// The root's word on `said`: the former one when that says the same, else a later one.
    ///
    /// At a start it is said anew: then it counts instead of what was said before a key was taken
    /// out of a file, or before a backup was restored.
    fn vouched(
        &self,
        mut said: PublicKeys,
        old: Option<&State>,
    ) -> Result<(PublicKeys, String), Error> {
        if let Some(old) = old {
            let issued = said.issued;
            said.issued = old.said.issued;
            if said == old.said {
                return Ok((said, old.vouched.clone()));
            }
            // A clock that was set back must not make it the earlier word.
            said.issued = issued.max(old.said.issued.plus(Duration::from_millis(1)));
        }
        let vouched = vouch(self.root.issuer.key().key(), &said)?;
        Ok((said, vouched))
    }
}

/// What stands in the file of an authority.
pub(super) fn authority_file(role: Role, place: &Place) -> Result<AuthorityFile, Error> {
    let file = role.file();
    AuthorityFile::read(file, &files::read(&place.dir.join(file))?)
}

/// The keys in the file of `purpose`, which has several.
pub(super) fn key_list(purpose: Purpose, place: &Place) -> Result<KeyList, Error> {
    let file = purpose.file();
    KeyList::read(file, purpose.kind(), &files::read(&place.dir.join(file))?)
}
