//! The operations: for each who asks, may they, what changes, what comes back.

pub(crate) mod applications;
pub(crate) mod audit;
pub(crate) mod enrolment;
mod exchange;
mod groups;
mod invitations;
mod log;
mod members;
mod names;
mod records;
mod rules;
mod searches;
mod serve;
mod shares;
mod structure;
mod vos;
mod why;

use crate::decide::{Command, decide};
use crate::live::Live;
use crate::policy::{Action, Carried, Grant, Subject};
use crate::{Inner, Vom, told};
use serde::Serialize;
use std::sync::Arc;
use xos_api::Done;
use xos_api::audit::Event;
use xos_base::{Error, PersonId, VoId};
use xos_net::audit::asked;
use xos_net::{Caller, Principal, Router};

impl Vom {
    /// Registers all operations.
    pub fn register(&self, router: &mut Router) {
        macro_rules! on {
            ($($method:ident),* $(,)?) => {$({
                let vom = self.clone();
                router.on(move |caller, r| {
                    let vom = vom.clone();
                    async move { vom.$method(caller, r).await }
                });
            })*};
        }
        on!(
            found_vo,
            get_vo,
            suspend_vo,
            resume_vo,
            describe_vo,
            set_lease,
            set_grace,
            set_renewal,
            set_file_audit,
            record_volume,
            apply,
            withdraw_application,
            list_applications,
            approve,
            reject,
            list_members,
            get_member,
            suspend_member,
            resume_member,
            remove_member,
            set_expiry,
            grant_role,
            withdraw_role,
            memberships,
            membership_of,
            list_groups,
            create_group,
            delete_group,
            add_to_group,
            remove_from_group,
            create_subgroup,
            move_group,
            add_manager,
            remove_manager,
            list_group_members,
            offer_handover,
            accept_handover,
            end_handover,
            dissolve_vo,
            undo_dissolve,
            erased_vos,
            export_vo,
            expect_people,
            list_expected,
            forget_expected,
            offer_share,
            withdraw_share,
            record_offer,
            record_withdrawal,
            list_shares,
            accept_share,
            refuse_share,
            end_share,
            vo_view,
            who_serves,
            served_vos,
            give_names,
            drop_name,
            release_name,
            list_names,
            get_vo_rules,
            set_vo_rules,
            get_site_rules,
            set_site_rules,
            what_if,
            why_login,
            set_terms_of_use,
            agree,
            set_questions,
            enrolment_form,
            enrolment,
            invite,
            list_invitations,
            withdraw_invitation,
            look_at_invitation,
            join,
            set_reminders,
            list_expiring,
            extend_memberships,
            reminders,
            member_history,
            report_events,
            search_audit,
            verify_audit,
            record_head,
            heads_of,
        );
        let vom = self.clone();
        router.public(move |_peer, r| {
            let vom = vom.clone();
            async move { vom.list_vos(r).await }
        });
        let vom = self.clone();
        router.stream(move |caller, r| {
            let vom = vom.clone();
            async move { vom.vo_log(caller, r).await }
        });
    }

    /// A VO known here.
    fn known(&self, vo: &VoId) -> Result<Arc<Live>, Error> {
        self.inner.vos.one(vo).ok_or_else(|| {
            if let Some(told) = self.inner.graves.told(vo) {
                return Error::not_found(told).hint("found another one: `xos vo found`");
            }
            Error::not_found(format!("site {} knows no VO {vo}", self.inner.site))
                .hint("`xos vo list` shows those that it knows")
        })
    }

    /// A VO whose home is here.
    fn home(&self, vo: &VoId) -> Result<Arc<Live>, Error> {
        if vo.site() == self.inner.site {
            return self.known(vo);
        }
        Err(Error::not_found(format!("site {} is not the home of {vo}", self.inner.site))
            .hint(format!("ask the core of site {}", vo.site())))
    }

    /// Whether the caller may do `action` in a VO as it is now.
    fn authorise(&self, live: &Live, caller: &Caller, action: Action) -> Result<Grant, Error> {
        let subject = self.inner.subject(caller, live.id())?;
        let now = self.inner.clock.now();
        self.inner.policy.authorise(&live.read(), &subject, action, now)
    }

    /// Makes the change that a command asks for, at the VO's home. A caller who goes away does
    /// not undo it half-way: it runs as a task of its own.
    async fn change(&self, caller: &Caller, vo: &VoId, command: Command) -> Result<Done, Error> {
        // The command says what it is.
        let event = self.event(caller, "", (vo, &command))?;
        let (vom, caller, vo) = (self.clone(), caller.clone(), vo.clone());
        let task = tokio::spawn(async move {
            let made = vom.made(&caller, &vo, &command).await;
            vom.inner.told.end(event, made).await
        });
        task.await.map_err(|e| {
            tracing::error!(error = %e, "a change ended without a result");
            Error::internal("the change failed").hint("look whether it was made")
        })?
    }

    async fn made(&self, caller: &Caller, vo: &VoId, command: &Command) -> Result<Done, Error> {
        let live = self.home(vo)?;
        let subject = self.inner.subject(caller, vo)?;
        if let Some(person) = subject.person() {
            self.limit_change(person, vo, command, only_takes(command))?;
        }
        self.inner.command(&live, &subject, command).await.map(|()| Done {})
    }

    /// Notes that a change was refused before it came to the VO's log, and refuses it.
    async fn refuse<T>(
        &self,
        caller: &Caller,
        what: &str,
        vo: &VoId,
        why: Error,
    ) -> Result<T, Error> {
        let mut event = asked(caller, self.inner.clock.now(), what);
        event.vo = Some(vo.clone());
        self.inner.told.end(event, Err(why)).await
    }

    /// Notes how an operation went that is no change of a VO's log.
    async fn noted<T>(
        &self,
        caller: &Caller,
        what: &str,
        (vo, said): (&VoId, &impl Serialize),
        result: Result<T, Error>,
    ) -> Result<T, Error> {
        let event = self.event(caller, what, (vo, said))?;
        self.inner.told.end(event, result).await
    }

    fn event(
        &self,
        caller: &Caller,
        what: &str,
        (vo, said): (&VoId, &impl Serialize),
    ) -> Result<Event, Error> {
        told::request(caller, (self.inner.clock.now(), what), vo, said)
    }
}

impl Inner {
    /// Who the caller is to a VO.
    ///
    /// A site vouches for its own people and for memberships in its own VOs. A credential in a
    /// VO of another site is no proof of who somebody is elsewhere.
    pub(crate) fn subject(&self, caller: &Caller, vo: &VoId) -> Result<Subject, Error> {
        let person = |person: &PersonId, carried| Subject::Person {
            person: person.clone(),
            site_admin: caller.site_admin(),
            carried,
        };
        match caller.principal() {
            Principal::Core(site) if *site == self.site => Ok(Subject::OwnCore(site.clone())),
            Principal::Core(site) => Ok(Subject::Core(site.clone())),
            Principal::Person(p) => Ok(person(p, Carried::All)),
            Principal::Member(m) if m.vo == *vo => {
                Ok(person(&m.person, Carried::Roles(m.roles.iter().cloned().collect())))
            }
            Principal::Member(m) if m.vo.site() == self.site || m.vo.site() == m.person.site() => {
                Ok(person(&m.person, Carried::Nothing))
            }
            Principal::Member(m) => Err(Error::denied(format!(
                "a credential in {} does not prove here who you are",
                m.vo
            ))
            .hint(format!("sign in at {} without a VO, or to {vo}", m.person.site()))),
            Principal::Node(node) => {
                Err(Error::denied(format!("node {node} has no business with VOs")))
            }
        }
    }

    /// Authorises, decides, commits; the same for every change.
    pub(crate) async fn command(
        self: &Arc<Inner>,
        live: &Arc<Live>,
        subject: &Subject,
        command: &Command,
    ) -> Result<(), Error> {
        let made = live.commit(&self.registry, &self.signer, |vo| {
            let now = self.clock.now();
            let action = command.action(vo, subject.person());
            let grant = self.policy.authorise(vo, subject, action, now)?;
            let change = decide(vo, command, &grant, now)?;
            Ok(change.map(|c| (grant.subject().actor(), c, now)))
        });
        if let Some(number) = made.await? {
            tracing::info!(vo = %live.id(), number, by = %subject, "changed");
            self.grown(live);
        }
        Ok(())
    }
}

/// Whether a command only takes something away.
fn only_takes(command: &Command) -> bool {
    matches!(
        command,
        Command::Reject { .. }
            | Command::SuspendMember { .. }
            | Command::RemoveMember { .. }
            | Command::WithdrawRole { .. }
            | Command::RemoveFromGroup { .. }
            | Command::RefuseShare { .. }
            | Command::EndShare { .. }
            | Command::WithdrawShare { .. }
            | Command::SuspendVo { .. }
            | Command::WithdrawInvitation { .. }
    )
}
