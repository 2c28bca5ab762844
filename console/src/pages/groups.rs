//! The groups of a VO.

use super::vo::{self, Head};
use crate::view::{Frame, page};
use crate::visit::{Shown, Visit, done};
use askama::Template;
use xos_api::vom::{CreateGroup, DeleteGroup, GROUP_MEMBERS, GroupInfo, ListGroups, PAGE_MAX};
use xos_base::{GroupName, GroupNumber};

#[derive(Template)]
#[template(path = "groups.html")]
struct View {
    frame: Frame,
    head: Head,
    groups: Vec<GroupInfo>,
    /// The group that cannot be deleted.
    everybody: &'static str,
    next: Option<u32>,
}

#[derive(Template)]
#[template(path = "group_delete.html")]
struct Delete {
    frame: Frame,
    head: Head,
    group: String,
    members: u64,
}

/// The list of groups.
pub(crate) async fn show(visit: Visit) -> Shown {
    let info = vo::info_at_home(&visit).await?;
    let vo = visit.vo()?;
    let after = visit.query.number("after", "the group's number")?.map(GroupNumber);
    let r = ListGroups { vo: vo.clone(), after, limit: Some(PAGE_MAX) };
    let part = visit.ask_home(&vo, r).await?;
    let frame = Frame::of(&visit, &format!("Groups of {vo}"), "vos").await;
    page(&View {
        frame,
        head: Head::new(&info, "groups"),
        groups: part.groups,
        everybody: GROUP_MEMBERS,
        next: part.next.map(|n| n.0),
    })
}

/// Makes a group.
pub(crate) async fn create(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let name: GroupName = visit.form.id("name")?;
    visit.ask_home(&vo, CreateGroup { vo: vo.clone(), name: name.clone() }).await?;
    done(&visit, format!("/vo/{vo}/groups"), format!("There is a group {name} now."))
}

/// Asks whether the group shall really go.
pub(crate) async fn confirm_delete(visit: Visit) -> Shown {
    let info = vo::info_at_home(&visit).await?;
    let group: GroupName = visit.place("group")?;
    let frame = Frame::of(&visit, &format!("Delete the group {group}"), "vos").await;
    let all = info.details.iter().flat_map(|d| &d.groups);
    let members = all.filter(|g| g.name == group).map(|g| g.members).sum();
    page(&Delete { frame, head: Head::new(&info, "groups"), group: group.to_string(), members })
}

/// Deletes a group.
pub(crate) async fn delete(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let name: GroupName = visit.place("group")?;
    visit.ask_home(&vo, DeleteGroup { vo: vo.clone(), name: name.clone() }).await?;
    done(&visit, format!("/vo/{vo}/groups"), format!("The group {name} is deleted."))
}
