//! Members and their roles.

use super::Vom;
use crate::decide::Command;
use crate::policy::Action;
use crate::state::Violation;
use xos_api::Done;
use xos_api::vom::{
    GetMember, GrantRole, ListMembers, MemberInfo, MemberPage, MembershipNow, MembershipOf,
    MembershipView, Memberships, RemoveMember, ResumeMember, SetExpiry, SuspendMember,
    WithdrawRole,
};
use xos_base::{Error, PersonId, VoId};
use xos_net::{Caller, Principal};

/// Most VOs in the answer to [`Memberships`].
const MEMBERSHIPS_MAX: usize = 1000;

impl Vom {
    pub(super) async fn list_members(
        &self,
        caller: Caller,
        r: ListMembers,
    ) -> Result<MemberPage, Error> {
        let live = self.known(&r.vo)?;
        self.authorise(&live, &caller, Action::See)?;
        Ok(live.read().member_page(r.after.as_ref(), r.limit, self.inner.clock.now()))
    }

    pub(super) async fn get_member(
        &self,
        caller: Caller,
        r: GetMember,
    ) -> Result<MemberInfo, Error> {
        let live = self.known(&r.vo)?;
        self.authorise(&live, &caller, Action::See)?;
        self.member_now(&r.vo, &r.person)
    }

    /// A member as the VO has it now.
    pub(super) fn member_now(&self, vo: &VoId, person: &PersonId) -> Result<MemberInfo, Error> {
        let info = self.known(vo)?.read().member_info(person, self.inner.clock.now());
        info.ok_or_else(|| Violation::NotMember(person.clone()).into())
    }

    pub(super) async fn suspend_member(
        &self,
        caller: Caller,
        r: SuspendMember,
    ) -> Result<Done, Error> {
        let command = Command::SuspendMember { person: r.person, reason: r.reason };
        self.change(&caller, &r.vo, command).await
    }

    pub(super) async fn resume_member(
        &self,
        caller: Caller,
        r: ResumeMember,
    ) -> Result<Done, Error> {
        self.change(&caller, &r.vo, Command::ResumeMember { person: r.person }).await
    }

    pub(super) async fn remove_member(
        &self,
        caller: Caller,
        r: RemoveMember,
    ) -> Result<Done, Error> {
        let command = Command::RemoveMember { person: r.person.clone(), reason: r.reason };
        self.change_and_forget(&caller, &r.vo, &r.person, command).await
    }

    pub(super) async fn set_expiry(&self, caller: Caller, r: SetExpiry) -> Result<Done, Error> {
        let command = Command::SetExpiry { person: r.person, expires: r.expires };
        self.change(&caller, &r.vo, command).await
    }

    pub(super) async fn grant_role(&self, caller: Caller, r: GrantRole) -> Result<Done, Error> {
        let command = Command::GrantRole { person: r.person, role: r.role };
        self.change(&caller, &r.vo, command).await
    }

    pub(super) async fn withdraw_role(
        &self,
        caller: Caller,
        r: WithdrawRole,
    ) -> Result<Done, Error> {
        let command = Command::WithdrawRole { person: r.person, role: r.role };
        self.change(&caller, &r.vo, command).await
    }

    pub(super) async fn memberships(
        &self,
        caller: Caller,
        r: Memberships,
    ) -> Result<Vec<MembershipView>, Error> {
        self.may_see_memberships(&caller, &r.person)?;
        let (mut found, now) = (Vec::new(), self.inner.clock.now());
        for live in self.inner.vos.after(None, usize::MAX) {
            let vo = live.read();
            let Some(member) = vo.member_info(&r.person, now) else { continue };
            found.push(MembershipView {
                vo: vo.id.clone(),
                title: vo.title.clone(),
                vo_state: vo.state.clone(),
                member,
            });
            if found.len() >= MEMBERSHIPS_MAX {
                break;
            }
        }
        Ok(found)
    }

    /// The own core, and the person themselves when they came as a person: a credential in one VO
    /// does not tell which others its holder is in.
    pub(super) fn may_see_memberships(
        &self,
        caller: &Caller,
        person: &PersonId,
    ) -> Result<(), Error> {
        let allowed = match caller.principal() {
            Principal::Core(site) => *site == self.inner.site,
            Principal::Person(p) => p == person,
            _ => false,
        };
        if allowed || caller.site_admin() {
            return Ok(());
        }
        Err(Error::denied(format!("{} may not see what {person} is in", caller.describe()))
            .hint("sign in without a VO to see your own VOs"))
    }

    pub(super) async fn membership_of(
        &self,
        caller: Caller,
        r: MembershipOf,
    ) -> Result<MembershipNow, Error> {
        let live = self.home(&r.vo)?;
        self.authorise(&live, &caller, Action::Serve)?;
        let vo = live.read();
        let membership = vo.membership(&r.person, self.inner.clock.now())?;
        r.since.map_or(Ok(()), |since| vo.mandated(&r.person, since))?;
        let suspended = vo.members.get(&r.person).and_then(|m| m.suspended);
        Ok(MembershipNow { membership, renewal_s: vo.renewal_s(), suspended })
    }
}
