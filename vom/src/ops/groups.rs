//! Groups of a VO.

use super::Vom;
use crate::decide::Command;
use crate::policy::Action;
use crate::state::Violation;
use xos_api::Done;
use xos_api::vom::{
    AddToGroup, CreateGroup, DeleteGroup, GroupInfo, GroupPage, ListGroups, RemoveFromGroup,
};
use xos_base::Error;
use xos_net::Caller;

impl Vom {
    pub(super) async fn list_groups(
        &self,
        caller: Caller,
        r: ListGroups,
    ) -> Result<GroupPage, Error> {
        let live = self.known(&r.vo)?;
        self.authorise(&live, &caller, Action::See)?;
        Ok(live.read().group_page(r.after, r.limit))
    }

    pub(super) async fn create_group(
        &self,
        caller: Caller,
        r: CreateGroup,
    ) -> Result<GroupInfo, Error> {
        self.change(&caller, &r.vo, Command::CreateGroup { name: r.name.clone() }).await?;
        let info = self.home(&r.vo)?.read().group_info(&r.name);
        info.ok_or_else(|| Violation::NoGroup(r.name).into())
    }

    pub(super) async fn delete_group(&self, caller: Caller, r: DeleteGroup) -> Result<Done, Error> {
        self.change(&caller, &r.vo, Command::DeleteGroup { name: r.name }).await
    }

    pub(super) async fn add_to_group(&self, caller: Caller, r: AddToGroup) -> Result<Done, Error> {
        let command = Command::AddToGroup { name: r.name, person: r.person };
        self.change(&caller, &r.vo, command).await
    }

    pub(super) async fn remove_from_group(
        &self,
        caller: Caller,
        r: RemoveFromGroup,
    ) -> Result<Done, Error> {
        let command = Command::RemoveFromGroup { name: r.name, person: r.person };
        self.change(&caller, &r.vo, command).await
    }
}
