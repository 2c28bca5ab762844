//! How a VO is built and ends: groups within groups, their managers, handing over, dissolving.

use super::Vom;
use crate::decide::{Command, Structural};
use crate::policy::Action;
use crate::state::Violation;
use xos_api::Done;
use xos_api::vom::{
    AcceptHandover, AddManager, CreateSubgroup, DissolveVo, EndHandover, ErasedVo, ErasedVos,
    GroupInfo, ListGroupMembers, MemberPage, MoveGroup, OfferHandover, RemoveManager, UndoDissolve,
};
use xos_base::{Error, GroupName, VoId};
use xos_net::{Caller, Principal};

impl Vom {
    async fn structural(&self, caller: &Caller, vo: &VoId, s: Structural) -> Result<Done, Error> {
        self.change(caller, vo, Command::Structure(s)).await
    }

    fn group_now(&self, vo: &VoId, name: GroupName) -> Result<GroupInfo, Error> {
        let info = self.home(vo)?.read().group_info(&name);
        info.ok_or_else(|| Violation::NoGroup(name).into())
    }

    pub(super) async fn create_subgroup(
        &self,
        caller: Caller,
        r: CreateSubgroup,
    ) -> Result<GroupInfo, Error> {
        let create = Structural::CreateSubgroup { parent: r.parent, name: r.name.clone() };
        self.structural(&caller, &r.vo, create).await?;
        self.group_now(&r.vo, r.name)
    }

    pub(super) async fn move_group(
        &self,
        caller: Caller,
        r: MoveGroup,
    ) -> Result<GroupInfo, Error> {
        let to = Structural::MoveGroup { name: r.name.clone(), parent: r.parent };
        self.structural(&caller, &r.vo, to).await?;
        self.group_now(&r.vo, r.name)
    }

    pub(super) async fn add_manager(&self, caller: Caller, r: AddManager) -> Result<Done, Error> {
        let add = Structural::AddManager { name: r.name, person: r.person };
        self.structural(&caller, &r.vo, add).await
    }

    pub(super) async fn remove_manager(
        &self,
        caller: Caller,
        r: RemoveManager,
    ) -> Result<Done, Error> {
        let remove = Structural::RemoveManager { name: r.name, person: r.person };
        self.structural(&caller, &r.vo, remove).await
    }

    pub(super) async fn list_group_members(
        &self,
        caller: Caller,
        r: ListGroupMembers,
    ) -> Result<MemberPage, Error> {
        let live = self.known(&r.vo)?;
        self.authorise(&live, &caller, Action::See)?;
        let vo = live.read();
        if !vo.groups.contains_key(&r.name) {
            return Err(Violation::NoGroup(r.name).into());
        }
        Ok(vo.group_member_page(&r.name, r.after.as_ref(), r.limit, self.inner.clock.now()))
    }

    pub(super) async fn offer_handover(
        &self,
        caller: Caller,
        r: OfferHandover,
    ) -> Result<Done, Error> {
        self.structural(&caller, &r.vo, Structural::OfferHandover { to: r.to }).await
    }

    pub(super) async fn accept_handover(
        &self,
        caller: Caller,
        r: AcceptHandover,
    ) -> Result<Done, Error> {
        self.structural(&caller, &r.vo, Structural::AcceptHandover { by: r.by }).await
    }

    pub(super) async fn end_handover(&self, caller: Caller, r: EndHandover) -> Result<Done, Error> {
        self.structural(&caller, &r.vo, Structural::EndHandover { by: r.by }).await
    }

    pub(super) async fn dissolve_vo(&self, caller: Caller, r: DissolveVo) -> Result<Done, Error> {
        self.structural(&caller, &r.vo, Structural::Dissolve { reason: r.reason }).await
    }

    pub(super) async fn undo_dissolve(
        &self,
        caller: Caller,
        r: UndoDissolve,
    ) -> Result<Done, Error> {
        self.structural(&caller, &r.vo, Structural::UndoDissolve).await
    }

    pub(super) async fn erased_vos(
        &self,
        caller: Caller,
        _: ErasedVos,
    ) -> Result<Vec<ErasedVo>, Error> {
        let own = matches!(caller.principal(), Principal::Core(site) if *site == self.inner.site);
        if !own {
            self.site_admin(&caller)?;
        }
        Ok(self.erased())
    }
}
