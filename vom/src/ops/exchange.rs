//! Export of a VO, and people whom it expects.

use super::Vom;
use crate::decide::Command;
use crate::ops::applications::CHANGES_PER_HOUR;
use crate::policy::{Action, Carried, Subject};
use crate::registry::{EXPECTED_AT_ONCE, Expected};
use crate::state::{MEMBERS_MAX, Vo, page_size};
use crate::told;
use xos_api::Done;
use xos_api::vom::{
    Change, EXPECT_MAX, ExpectPeople, ExpectedPage, ExpectedPerson, Expecting, ExportLine,
    ExportPage, ExportVo, ForgetExpected, ListExpected, PAGE_MAX,
};
use xos_base::{Error, Kind, MemberNumber, PersonId, VoId};
use xos_net::Caller;

/// Most people whom one VO expects.
pub const EXPECTED_MAX: u64 = MEMBERS_MAX as u64;
/// How often a note is tried while others note people too.
const TRIES_MAX: usize = 5;

/// Where an export goes on.
enum At {
    Head,
    Groups(usize),
    Rules(usize),
    Members(Option<PersonId>),
    Expected(Option<PersonId>),
    Shares,
    Entries(u64),
}

impl At {
    fn parse(text: Option<&str>) -> Result<At, Error> {
        let wrong = || Error::invalid("that is not where an export goes on: use what `next` said");
        let Some(text) = text else { return Ok(At::Head) };
        let (what, rest) = text.split_once(':').ok_or_else(wrong)?;
        match (what, rest) {
            ("groups", n) => n.parse().map(At::Groups).map_err(|_| wrong()),
            ("rules", n) => n.parse().map(At::Rules).map_err(|_| wrong()),
            ("expected", "") => Ok(At::Expected(None)),
            ("expected", p) => p.parse().map(|p| At::Expected(Some(p))).map_err(|_| wrong()),
            ("members", "") => Ok(At::Members(None)),
            ("members", p) => p.parse().map(|p| At::Members(Some(p))).map_err(|_| wrong()),
            ("shares", "") => Ok(At::Shares),
            ("entries", n) => n.parse().map(At::Entries).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl Vom {
    /// Noted once for all parts of an export.
    pub(super) async fn export_vo(&self, caller: Caller, r: ExportVo) -> Result<ExportPage, Error> {
        let part = self.exported(&caller, &r).await;
        let (inner, look) = (&self.inner, format!("{} exports {}", caller.describe(), r.vo));
        if part.is_ok() && !inner.looks.fresh(&look, inner.clock.now()) {
            return part;
        }
        let noted = self.noted(&caller, "export_vo", (&r.vo, &r), part).await;
        if noted.is_err() {
            inner.looks.forget(&look);
        }
        noted
    }

    async fn exported(&self, caller: &Caller, r: &ExportVo) -> Result<ExportPage, Error> {
        let live = self.home(&r.vo)?;
        self.authorise(&live, caller, Action::Export)?;
        let at = At::parse(r.after.as_deref())?;
        if let At::Entries(after) = at {
            let entries = self.inner.registry.entries(&r.vo, after).await?;
            let next = after.saturating_add(entries.len() as u64);
            if entries.is_empty() {
                return Ok(last(&live.read(), Vec::new()));
            }
            let lines = entries.into_iter().map(|jws| ExportLine::Entry { jws }).collect();
            return Ok(ExportPage { lines, next: Some(format!("entries:{next}")) });
        }
        if let At::Expected(after) = at {
            return self.export_expected(&r.vo, after.as_ref()).await;
        }
        let vo = live.read();
        Ok(page(&vo, at, r.log))
    }

    async fn export_expected(
        &self,
        vo: &VoId,
        after: Option<&PersonId>,
    ) -> Result<ExportPage, Error> {
        let listed = self.inner.registry.expected_after(vo, after, PAGE_MAX as usize);
        let (people, more) = listed.await?;
        let last = people.last().filter(|_| more).map(|p| format!("expected:{}", p.person));
        let line = |ExpectedPerson { person, groups, roles, expires }| ExportLine::Expected {
            person,
            groups,
            roles,
            expires,
        };
        let next = Some(last.unwrap_or_else(|| "shares:".to_owned()));
        Ok(ExportPage { lines: people.into_iter().map(line).collect(), next })
    }

    /// Who asks, if they may admit people.
    fn admits(&self, caller: &Caller, vo: &VoId) -> Result<(Subject, PersonId), Error> {
        let live = self.home(vo)?;
        let grant = self.authorise(&live, caller, Action::Admit)?;
        let by = grant.subject().person().cloned();
        let by = by.ok_or_else(|| Error::denied(format!("{} is no person", grant.subject())))?;
        self.limit(&[(&format!("{by} in {vo}"), CHANGES_PER_HOUR)])?;
        Ok((grant.subject().clone(), by))
    }

    /// Who is expected is noted, not what would come of it.
    pub(super) async fn expect_people(
        &self,
        caller: Caller,
        r: ExpectPeople,
    ) -> Result<Vec<Expecting>, Error> {
        let expected = self.expected(&caller, &r).await;
        if r.dry_run && expected.is_ok() {
            return expected;
        }
        self.noted(&caller, "expect_people", (&r.vo, &r), expected).await
    }

    async fn expected(&self, caller: &Caller, r: &ExpectPeople) -> Result<Vec<Expecting>, Error> {
        let (subject, by) = self.admits(caller, &r.vo)?;
        few(r.people.len())?;
        let mut all = Vec::with_capacity(r.people.len());
        for people in r.people.chunks(EXPECTED_AT_ONCE) {
            all.extend(self.expect_some(&r.vo, people, &subject, &by, r.dry_run).await?);
        }
        if !r.dry_run {
            for p in &r.people {
                let waits = self.home(&r.vo)?.read().applications.contains_key(&p.person);
                if waits {
                    self.admit_expected(&r.vo, &p.person).await;
                }
            }
        }
        Ok(all)
    }

    /// Notes some people in one step.
    async fn expect_some(
        &self,
        vo: &VoId,
        people: &[ExpectedPerson],
        subject: &Subject,
        by: &PersonId,
        dry_run: bool,
    ) -> Result<Vec<Expecting>, Error> {
        let registry = &self.inner.registry;
        let mut tries = 0;
        loop {
            let former = registry.expecting(vo).await?;
            let (mut outcomes, mut put, mut count) = (Vec::new(), Vec::<Expected>::new(), 0);
            for person in people {
                let again = put.iter().any(|e| e.as_what.person == person.person);
                let numbers = self.home(vo)?.read().group_numbers(&person.groups);
                let expected = Expected { as_what: person.clone(), by: by.clone(), numbers };
                let outcome = match self.unfit(vo, person, subject)? {
                    Some(outcome) => outcome,
                    None if again => refused("stands twice in one request"),
                    None => match registry.expected(vo, &person.person).await? {
                        Some(known) if known == expected => Expecting::Same,
                        Some(_) => Expecting::Changed,
                        None => Expecting::New,
                    },
                };
                count += u64::from(outcome == Expecting::New);
                if matches!(outcome, Expecting::New | Expecting::Changed) {
                    put.push(expected);
                }
                outcomes.push(outcome);
            }
            let count = former.count.saturating_add(count);
            if count > EXPECTED_MAX {
                return Err(Error::too_large(format!(
                    "a VO expects at most {EXPECTED_MAX} people"
                ))
                .hint("drop those who do not come: xos vo expected drop"));
            }
            if dry_run || put.is_empty() {
                return Ok(outcomes);
            }
            match registry.change_expected(vo, &put, &[], former, count).await {
                Ok(()) => return Ok(outcomes),
                Err(e) if e.kind == Kind::Conflict && tries < TRIES_MAX => tries += 1,
                Err(e) => return Err(e),
            }
        }
    }

    /// Why a person is not noted, if so: what an approval would say now.
    fn unfit(
        &self,
        vo: &VoId,
        p: &ExpectedPerson,
        subject: &Subject,
    ) -> Result<Option<Expecting>, Error> {
        let live = self.home(vo)?;
        let (state, now) = (live.read(), self.inner.clock.now());
        if state.members.contains_key(&p.person) {
            return Ok(Some(Expecting::Member));
        }
        if state.epochs.contains_key(&p.person) {
            return Ok(Some(refused("was a member before: decide when they apply")));
        }
        if !state.active() {
            return Ok(Some(refused("the VO does not work")));
        }
        if p.expires.is_some_and(|t| t <= now) {
            return Ok(Some(refused("the membership would have ended already")));
        }
        let action = approval(p).action(&state, subject.person());
        let may = self.inner.policy.authorise(&state, subject, action, now).map(drop);
        let may = may.and_then(|()| Ok(state.check_change(&admission(&state, p))?));
        Ok(may.err().map(|e| Expecting::Refused { reason: e.message }))
    }

    /// Admits somebody who applied and is expected. Whoever expected them must be able to admit
    /// them still; if not, the application waits like any other.
    pub(super) async fn admit_expected(&self, vo: &VoId, person: &PersonId) {
        match self.try_admit(vo, person).await {
            Ok(()) => {}
            Err(error) => tracing::warn!(%vo, %person, %error, "expected, but not admitted"),
        }
    }

    async fn try_admit(&self, vo: &VoId, person: &PersonId) -> Result<(), Error> {
        let Some(expected) = self.inner.registry.expected(vo, person).await? else {
            return Ok(());
        };
        let live = self.home(vo)?;
        // A note from before they left must not bring back whom somebody removed.
        if live.read().epochs.contains_key(person) {
            return self.drop_expected(vo, std::slice::from_ref(person)).await;
        }
        same_groups(&live.read(), &expected)?;
        let noted_by = expected.by.clone();
        let by = Subject::Person { person: expected.by, site_admin: false, carried: Carried::All };
        let (inner, command) = (&self.inner, approval(&expected.as_what));
        let event = told::for_them(&noted_by, inner.clock.now(), vo, &command)?;
        let admitted = inner.command(&live, &by, &command).await;
        inner.told.end(event, admitted).await?;
        self.drop_expected(vo, std::slice::from_ref(person)).await
    }

    /// Drops the note on somebody who is a member now. One that stays lets nobody in: who was a
    /// member is not admitted by it.
    pub(super) async fn expected_came(&self, vo: &VoId, person: &PersonId) {
        if let Err(error) = self.drop_expected(vo, std::slice::from_ref(person)).await {
            tracing::warn!(%vo, %person, %error, "is a member, and stays in the list of expected");
        }
    }

    /// Expects people no longer.
    pub(super) async fn drop_expected(&self, vo: &VoId, people: &[PersonId]) -> Result<(), Error> {
        let registry = &self.inner.registry;
        for people in people.chunks(EXPECTED_AT_ONCE) {
            let mut tries = 0;
            loop {
                let former = registry.expecting(vo).await?;
                let mut gone: Vec<PersonId> = Vec::new();
                for person in people {
                    if !gone.contains(person) && registry.expected(vo, person).await?.is_some() {
                        gone.push(person.clone());
                    }
                }
                if gone.is_empty() {
                    break;
                }
                let count = former.count.saturating_sub(gone.len() as u64);
                match registry.change_expected(vo, &[], &gone, former, count).await {
                    Ok(()) => break,
                    Err(e) if e.kind == Kind::Conflict && tries < TRIES_MAX => tries += 1,
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }

    pub(super) async fn list_expected(
        &self,
        caller: Caller,
        r: ListExpected,
    ) -> Result<ExpectedPage, Error> {
        let live = self.home(&r.vo)?;
        self.authorise(&live, &caller, Action::SeeApplications)?;
        let size = page_size(r.limit);
        let listed = self.inner.registry.expected_after(&r.vo, r.after.as_ref(), size);
        let (people, more) = listed.await?;
        let next = people.last().filter(|_| more).map(|p| p.person.clone());
        Ok(ExpectedPage { people, next })
    }

    pub(super) async fn forget_expected(
        &self,
        caller: Caller,
        r: ForgetExpected,
    ) -> Result<Done, Error> {
        let forgotten = match self.admits(&caller, &r.vo).and_then(|_| few(r.people.len())) {
            Ok(()) => self.drop_expected(&r.vo, &r.people).await.map(|()| Done {}),
            Err(e) => Err(e),
        };
        self.noted(&caller, "forget_expected", (&r.vo, &r), forgotten).await
    }
}

fn few(people: usize) -> Result<(), Error> {
    if people <= EXPECT_MAX {
        return Ok(());
    }
    Err(Error::too_large(format!("{people} people at once; at most {EXPECT_MAX} are taken"))
        .hint("ask in parts"))
}

/// Whether the groups of a note are those that had their names when it was made.
fn same_groups(vo: &Vo, expected: &Expected) -> Result<(), Error> {
    if vo.group_numbers(&expected.as_what.groups) == expected.numbers {
        return Ok(());
    }
    Err(Error::conflict("a group in the note was deleted since, and perhaps made anew")
        .hint("import the person again, or decide about the application"))
}

fn refused(reason: &str) -> Expecting {
    Expecting::Refused { reason: reason.to_owned() }
}

fn approval(p: &ExpectedPerson) -> Command {
    Command::Approve {
        person: p.person.clone(),
        groups: p.groups.clone(),
        roles: p.roles.clone(),
        expires: p.expires,
    }
}

fn admission(vo: &Vo, p: &ExpectedPerson) -> Change {
    Change::Admitted {
        person: p.person.clone(),
        number: MemberNumber(vo.next_member),
        epoch: vo.next_epoch(&p.person),
        groups: p.groups.clone(),
        roles: p.roles.clone(),
        expires: p.expires,
    }
}

fn page(vo: &Vo, at: At, log: bool) -> ExportPage {
    let size = PAGE_MAX as usize;
    let then = |lines, next: String| ExportPage { lines, next: Some(next) };
    match at {
        At::Head => then(vo.export_head(), "groups:0".to_owned()),
        At::Groups(from) => some(vo.export_groups(), from, ("groups", "rules:0")),
        // After the groups, which they name.
        At::Rules(from) => {
            let rules = vo.rules.rules().map(|rule| ExportLine::Rule { rule: rule.clone() });
            some(rules.collect(), from, ("rules", "members:"))
        }
        At::Members(after) => {
            let (lines, next) = vo.export_members(after.as_ref(), size);
            then(lines, next.map_or("expected:".to_owned(), |p| format!("members:{p}")))
        }
        At::Shares | At::Expected(_) | At::Entries(_) => {
            let lines = vo.share_infos().into_iter().map(|share| ExportLine::Share { share });
            let lines = lines.collect();
            if log { then(lines, "entries:0".to_owned()) } else { last(vo, lines) }
        }
    }
}

/// Lines from one on, and then the others of them or what comes after.
fn some(all: Vec<ExportLine>, from: usize, (these, then): (&str, &str)) -> ExportPage {
    let end = from.saturating_add(PAGE_MAX as usize);
    let next = if end < all.len() { format!("{these}:{end}") } else { then.to_owned() };
    let lines = all.into_iter().skip(from).take(PAGE_MAX as usize).collect();
    ExportPage { lines, next: Some(next) }
}

fn last(vo: &Vo, mut lines: Vec<ExportLine>) -> ExportPage {
    lines.push(ExportLine::End { number: vo.number });
    ExportPage { lines, next: None }
}
