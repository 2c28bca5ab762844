//! Stand-in operations on coming into a VO, on what ends, and on how a VO is built and ends. All
//! know one VO, `demo.rennes`; in others nobody may do anything.

use super::{Fake, id};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use xos_api::Done;
use xos_api::vom::*;
use xos_base::{Error, Kind, Millis, PersonId, VoId};
use xos_net::{Caller, Router};

/// The secret of the only invitation.
pub const SECRET: &str = "kD3Jmj2yTq7_-";
/// A time soon after that at which the tests' clock stands.
const SOON: Millis = Millis(1_795_100_000_000);

fn refused(person: &PersonId) -> Error {
    Error::denied(format!("{person} may not do this in the VO"))
        .hint("that takes an administrator of the VO or an owner of the VO")
}

impl Fake {
    /// The caller, when it is an administrator of the VO.
    pub(super) fn admin(&self, caller: &Caller, vo: &VoId) -> Result<PersonId, Error> {
        let person = caller.person()?;
        let fits = person.name() == "vera" && vo.as_str() == "demo.rennes";
        if fits { Ok(person) } else { Err(refused(&person)) }
    }

    /// The caller, when it is a member of the VO.
    fn acting(&self, caller: &Caller, vo: &VoId) -> Result<PersonId, Error> {
        let person = caller.person()?;
        let fits = self.member(&person).is_some() && vo.as_str() == "demo.rennes";
        if fits { Ok(person) } else { Err(refused(&person)) }
    }

    pub(super) fn noted<R: std::fmt::Debug>(
        &self,
        person: &PersonId,
        r: &R,
    ) -> Result<Done, Error> {
        self.note(person, r);
        Ok(Done {})
    }

    fn terms(&self) -> Option<TermsOfUse> {
        let version = self.terms_version.load(Ordering::SeqCst);
        (version > 0).then(|| TermsOfUse {
            version,
            text: self.t(),
            since: Millis(1_790_000_000_000),
            consent_days: Some(365),
            grace_days: 14,
        })
    }

    fn questions(&self) -> Vec<Question> {
        let all = [
            ("why", QuestionKind::Line),
            ("plan", QuestionKind::Text),
            ("site", QuestionKind::Choice),
            ("adult", QuestionKind::Check),
        ];
        let question = |(name, kind): (&str, QuestionKind)| Question {
            id: name.into(),
            text: self.t(),
            kind,
            required: kind == QuestionKind::Check,
            choices: if kind == QuestionKind::Choice { vec![self.t()] } else { Vec::new() },
        };
        let count = if self.fewer_questions.load(Ordering::SeqCst) { 1 } else { all.len() };
        all.map(question).into_iter().take(count).collect()
    }

    fn form(&self, person: Option<&PersonId>) -> EnrolmentForm {
        let consent = Consent {
            agreed: Some(Agreed { version: 2, at: Millis(1_700_000_000_000) }),
            due: Some(SOON),
            lapses: Some(Millis(1_796_000_000_000)),
        };
        let member = person.is_some_and(|p| self.member(p).is_some());
        EnrolmentForm {
            terms: self.terms(),
            questions: self.questions(),
            consent: member.then_some(consent),
        }
    }

    pub(super) fn gives(&self) -> Gives {
        Gives {
            groups: vec![id("physics")],
            roles: vec![id("reviewer")],
            uses: 3,
            expires: SOON,
            person: None,
            ends: Some(Millis(1_900_000_000_000)),
            at_once: true,
        }
    }

    fn invitation(&self) -> InvitationInfo {
        InvitationInfo {
            invitation: "0123456789abcdef".into(),
            gives: self.gives(),
            by: id("vera@rennes"),
            made: Millis(1_790_000_000_000),
            left: 2,
            state: InvitationState::Open,
            hint: self.t(),
        }
    }

    fn enrolment(&self, person: &PersonId) -> Enrolment {
        let value = self.t();
        Enrolment {
            person: person.clone(),
            consent: self.form(Some(person)).consent.unwrap_or_default(),
            answers: vec![Answered { question: "why".into(), text: self.t(), value }],
            invitation: Some(self.invitation()),
        }
    }

    fn history(&self) -> HistoryPage {
        let person: PersonId = id("milo@rennes");
        let reason = self.t();
        let changes = [
            Change::Applied {
                person: person.clone(),
                message: self.t(),
                agreed: Some(1),
                answers: None,
                invitation: None,
            },
            Change::MemberSuspended { person, reason },
        ];
        let entries = changes.into_iter().enumerate().map(|(i, change)| HistoryEntry {
            number: i as u64 + 1,
            time: Millis(1_790_000_000_000),
            actor: Actor::Person(id("vera@rennes")),
            change,
        });
        HistoryPage { entries: entries.collect(), next: None }
    }

    /// In two parts, the second of which stands below `next`.
    fn export(&self, r: &ExportVo) -> ExportPage {
        let group =
            |name: &str| ExportLine::Group { name: id(name), parent: None, managers: Vec::new() };
        match r.after.as_deref() {
            None => ExportPage { lines: vec![group("physics")], next: Some("groups:1".into()) },
            Some(_) => {
                let end = ExportLine::End { number: 9 };
                ExportPage { lines: vec![group("press"), end], next: None }
            }
        }
    }

    pub(super) fn register_enrolment(self: &Arc<Self>, router: &mut Router) {
        self.register_joining(router);
        self.register_ends(router);
        self.register_structure(router);
        macro_rules! changes {
            ($($t:ty),*) => {$(
                let fake = self.clone();
                router.on(move |caller: Caller, r: $t| {
                    let fake = fake.clone();
                    async move { fake.noted(&fake.admin(&caller, &r.vo)?, &r) }
                });
            )*};
        }
        changes!(
            SetQuestions,
            SetReminders,
            DescribeVo,
            SetLease,
            SetGrace,
            SetRenewal,
            SetFileAudit,
            SetExpiry,
            WithdrawInvitation,
            ForgetExpected,
            AddManager,
            RemoveManager,
            OfferHandover,
            EndHandover,
            DissolveVo,
            UndoDissolve
        );
    }

    fn register_joining(self: &Arc<Self>, router: &mut Router) {
        serve! { self, router:
            on |f: &Fake, c: Caller, r: GetEnrolmentForm| {
                let person = c.person()?;
                let own = r.vo.as_str() == "demo.rennes";
                Ok(f.form(own.then_some(&person)))
            };
            on |f: &Fake, c: Caller, r: GetEnrolment| {
                let person = c.person()?;
                if person != r.person {
                    f.admin(&c, &r.vo)?;
                }
                Ok(f.enrolment(&r.person))
            };
            on |f: &Fake, c: Caller, r: Agree| {
                let person = f.acting(&c, &r.vo)?;
                match f.terms() {
                    Some(t) if t.version == r.version => f.noted(&person, &r),
                    _ => Err(Error::new(Kind::Conflict, "the terms in force are others")),
                }
            };
            on |f: &Fake, c: Caller, r: SetTermsOfUse| {
                f.noted(&f.admin(&c, &r.vo)?, &r)?;
                f.terms_version.fetch_add(1, Ordering::SeqCst);
                f.terms().ok_or_else(|| Error::internal("no terms"))
            };
            on |f: &Fake, c: Caller, r: Invite| {
                f.noted(&f.admin(&c, &r.vo)?, &r)?;
                let secret = InvitationSecret(SECRET.into());
                Ok(Invited { invitation: f.invitation(), secret })
            };
            on |f: &Fake, c: Caller, r: ListInvitations| {
                f.admin(&c, &r.vo)?;
                Ok(InvitationPage { invitations: vec![f.invitation()], next: None })
            };
            on |f: &Fake, c: Caller, r: LookAtInvitation| {
                let person = c.person()?;
                if r.secret.0 != SECRET || f.member(&person).is_some() {
                    return Err(Error::not_found("there is no such invitation for you"));
                }
                Ok(InvitationView {
                    title: f.t(),
                    description: f.t(),
                    by: id("vera@rennes"),
                    gives: f.gives(),
                    at_once: true,
                    form: f.form(None),
                })
            };
            on |f: &Fake, c: Caller, r: Join| {
                let person = c.person()?;
                let version = f.terms_version.load(Ordering::SeqCst);
                if r.agreed != Some(version) {
                    return Err(Error::new(Kind::Conflict, f.t()));
                }
                f.note(&person, &r);
                Ok(Joined { member: f.member(&id("milo@rennes")) })
            };
        }
    }

    fn register_ends(self: &Arc<Self>, router: &mut Router) {
        serve! { self, router:
            on |f: &Fake, c: Caller, r: ListExpiring| {
                f.admin(&c, &r.vo)?;
                let member = ExpiringMember {
                    person: id("milo@rennes"),
                    expires: Some(SOON),
                    due: Some(Millis(1_794_000_000_000)),
                    lapses: Some(SOON),
                };
                Ok(ExpiringPage { members: vec![member], next: None })
            };
            on |f: &Fake, c: Caller, r: ExtendMemberships| {
                f.noted(&f.admin(&c, &r.vo)?, &r)?;
                let extended = |person: PersonId| Extended {
                    trouble: (person.name() == "susi").then(|| Error::denied(f.t())),
                    person,
                };
                Ok(r.persons.into_iter().map(extended).collect::<Vec<_>>())
            };
            on |f: &Fake, c: Caller, r: Reminders| {
                let person = c.person()?;
                assert_eq!(person, r.person, "reminders of somebody else");
                let reminder = |what, days| Reminder {
                    vo: id("demo.rennes"),
                    title: f.t(),
                    what,
                    at: SOON,
                    days,
                    todo: f.t(),
                };
                let all = vec![reminder(Ending::Consent, 7), reminder(Ending::Membership, 0)];
                Ok(if person.name() == "milo" { all } else { Vec::new() })
            };
            on |f: &Fake, c: Caller, r: MemberHistory| {
                let person = c.person()?;
                if person != r.person || r.vo.as_str() != "demo.rennes" {
                    f.admin(&c, &r.vo)?;
                }
                Ok(f.history())
            };
            on |f: &Fake, c: Caller, r: ExportVo| {
                f.admin(&c, &r.vo)?;
                Ok(f.export(&r))
            };
            on |f: &Fake, c: Caller, r: ListExpected| {
                f.admin(&c, &r.vo)?;
                let expected = ExpectedPerson {
                    person: id("otto@pisa"),
                    groups: vec![id("press")],
                    roles: Vec::new(),
                    expires: None,
                };
                Ok(ExpectedPage { people: vec![expected], next: None })
            };
        }
    }

    fn register_structure(self: &Arc<Self>, router: &mut Router) {
        serve! { self, router:
            on |f: &Fake, c: Caller, r: CreateSubgroup| {
                f.noted(&f.acting(&c, &r.vo)?, &r)?;
                Ok(f.groups().remove(2))
            };
            on |f: &Fake, c: Caller, r: MoveGroup| {
                f.noted(&f.admin(&c, &r.vo)?, &r)?;
                Ok(f.groups().remove(2))
            };
            on |f: &Fake, c: Caller, r: ListGroupMembers| {
                f.acting(&c, &r.vo)?;
                let members = ["milo@rennes", "susi@rennes"];
                let members = members.iter().filter_map(|p| f.member(&id(p))).collect();
                Ok(MemberPage { members, next: None })
            };
            on |f: &Fake, c: Caller, r: AcceptHandover| {
                f.noted(&f.acting(&c, &r.vo)?, &r)
            };
        }
    }
}
