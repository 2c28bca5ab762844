//! One group: who is in it, who manages it, where it lies. Its managers, who need not administer
//! the VO, put people into it and make groups within it here.

use super::members::{badge, named};
use super::vo::{self, Head};
use crate::view::{Badge, Frame, page};
use crate::visit::{Shown, Stop, Visit, done};
use askama::Template;
use xos_api::Request;
use xos_api::vom::{
    AddManager, AddToGroup, CreateSubgroup, GROUP_DEPTH_MAX, GROUP_MEMBERS, GroupInfo,
    ListGroupMembers, ListGroups, MemberState, MoveGroup, PAGE_MAX, RemoveFromGroup, RemoveManager,
};
use xos_base::{Error, GroupName, PersonId, VoId};

/// Members in one part of the list.
const LIST_MAX: u32 = 100;
/// Most parts of the list of groups that are looked through.
const PARTS_MAX: usize = 20;

#[derive(Template)]
#[template(path = "group.html")]
struct View {
    frame: Frame,
    head: Head,
    name: String,
    number: u32,
    /// Everybody is in it, nobody manages it.
    everybody: bool,
    parent: Option<String>,
    below: Vec<String>,
    /// Groups into which it can be moved.
    others: Vec<String>,
    managers: Vec<Manager>,
    /// The visitor can put people in and take them out.
    fills: bool,
    members: Vec<Row>,
    next: Option<String>,
}

struct Manager {
    person: String,
    /// The visitor can end it.
    ends: bool,
}

struct Row {
    person: String,
    state: Badge,
}

/// The groups of a VO, as many as are looked through.
async fn all(visit: &Visit, vo: &VoId) -> Result<Vec<GroupInfo>, Stop> {
    let (mut groups, mut after) = (Vec::new(), None);
    for _ in 0..PARTS_MAX {
        let ask = ListGroups { vo: vo.clone(), after, limit: Some(PAGE_MAX) };
        let part = visit.ask_home(vo, ask).await?;
        groups.extend(part.groups);
        after = part.next;
        if after.is_none() {
            break;
        }
    }
    Ok(groups)
}

/// The groups above one, the nearest first.
fn above<'a>(all: &'a [GroupInfo], name: &GroupName) -> Vec<&'a GroupInfo> {
    let find = move |name: &GroupName| all.iter().find(|g| g.name == *name);
    let mut found = Vec::new();
    let mut next = find(name).and_then(|g| g.parent.as_ref());
    while let Some(g) = next.and_then(find).filter(|_| found.len() < GROUP_DEPTH_MAX) {
        found.push(g);
        next = g.parent.as_ref();
    }
    found
}

/// Where a group can be moved: neither into itself nor to where it is.
fn elsewhere(all: &[GroupInfo], group: &GroupInfo) -> Vec<String> {
    let fits = |g: &&GroupInfo| {
        g.name != group.name
            && g.name.as_str() != GROUP_MEMBERS
            && Some(&g.name) != group.parent.as_ref()
            && !above(all, &g.name).iter().any(|a| a.name == group.name)
    };
    all.iter().filter(fits).map(|g| g.name.to_string()).collect()
}

/// Whether a person manages a group, or one above it.
fn manages(all: &[GroupInfo], group: &GroupInfo, person: &PersonId) -> bool {
    group.managers.contains(person)
        || above(all, &group.name).iter().any(|g| g.managers.contains(person))
}

/// The page of one group.
pub(crate) async fn show(visit: Visit) -> Shown {
    let info = vo::info_at_home(&visit).await?;
    let (vo, name) = names(&visit)?;
    let all = all(&visit, &vo).await?;
    let group = all.iter().find(|g| g.name == name);
    let group = group.ok_or_else(|| {
        Error::not_found(format!("no group {name} in {vo}")).hint("look at the list of groups")
    })?;
    let after = visit.query.id_if("after")?;
    let ask = ListGroupMembers { vo: vo.clone(), name: name.clone(), after, limit: Some(LIST_MAX) };
    let part = visit.ask_home(&vo, ask).await?;
    let frame = Frame::of(&visit, &format!("Group {name} of {vo}"), "vos").await;
    let head = Head::new(&info, "groups");
    let me = &visit.session.person;
    let acting = info.me.as_ref().is_some_and(|m| m.state == MemberState::Active);
    let everybody = name.as_str() == GROUP_MEMBERS;
    let manager = |p: &PersonId| Manager { person: p.to_string(), ends: head.admin || p == me };
    let below = all.iter().filter(|g| g.parent.as_ref() == Some(&name));
    page(&View {
        name: name.to_string(),
        number: group.number.0,
        everybody,
        parent: group.parent.as_ref().map(GroupName::to_string),
        below: below.map(|g| g.name.to_string()).collect(),
        others: elsewhere(&all, group),
        managers: group.managers.iter().map(manager).collect(),
        fills: !everybody && (head.admin || acting && manages(&all, group, me)),
        members: part
            .members
            .into_iter()
            .map(|m| Row { person: m.person.to_string(), state: badge(&m) })
            .collect(),
        next: part.next.map(|p| p.to_string()),
        frame,
        head,
    })
}

fn names(visit: &Visit) -> Result<(VoId, GroupName), Stop> {
    Ok((visit.vo()?, visit.place("group")?))
}

/// Makes a change and shows the group again.
async fn change<R: Request>(visit: &Visit, r: R, notice: String) -> Shown {
    let (vo, name) = names(visit)?;
    visit.ask_home(&vo, r).await?;
    done(visit, format!("/vo/{vo}/group/{name}"), notice)
}

/// Puts a member in.
pub(crate) async fn add(visit: Visit) -> Shown {
    let ((vo, name), person) = (names(&visit)?, named(&visit, "person")?);
    let notice = format!("{person} is in the group {name} now.");
    change(&visit, AddToGroup { vo, name, person }, notice).await
}

/// Takes a member out.
pub(crate) async fn drop_member(visit: Visit) -> Shown {
    let ((vo, name), person) = (names(&visit)?, named(&visit, "person")?);
    let notice = format!("{person} is no longer in the group {name}.");
    change(&visit, RemoveFromGroup { vo, name, person }, notice).await
}

/// Makes a group within it.
pub(crate) async fn create_within(visit: Visit) -> Shown {
    let ((vo, parent), name) = (names(&visit)?, visit.form.id::<GroupName>("name")?);
    let notice = format!("There is a group {name} in {parent} now.");
    change(&visit, CreateSubgroup { vo, parent, name }, notice).await
}

/// Moves it with what lies within it.
pub(crate) async fn move_to(visit: Visit) -> Shown {
    let ((vo, name), parent) = (names(&visit)?, visit.form.id_if::<GroupName>("parent")?);
    let notice = match &parent {
        Some(parent) => format!("The group {name} is in {parent} now."),
        None => format!("The group {name} is in no other group now."),
    };
    change(&visit, MoveGroup { vo, name, parent }, notice).await
}

/// Lets a member manage it.
pub(crate) async fn add_manager(visit: Visit) -> Shown {
    let ((vo, name), person) = (names(&visit)?, named(&visit, "person")?);
    let notice = format!("{person} manages the group {name} now.");
    change(&visit, AddManager { vo, name, person }, notice).await
}

/// Lets a member manage it no longer.
pub(crate) async fn drop_manager(visit: Visit) -> Shown {
    let ((vo, name), person) = (names(&visit)?, named(&visit, "person")?);
    let notice = format!("{person} manages the group {name} no longer.");
    change(&visit, RemoveManager { vo, name, person }, notice).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_base::GroupNumber;

    fn groups() -> Vec<GroupInfo> {
        let all = [
            ("members", "", ""),
            ("physics", "", "milo@rennes"),
            ("optics", "physics", ""),
            ("lasers", "optics", "susi@rennes"),
            ("press", "", ""),
        ];
        let group = |(name, parent, manager): (&str, &str, &str)| GroupInfo {
            name: name.parse().unwrap(),
            number: GroupNumber(1),
            members: 0,
            parent: (!parent.is_empty()).then(|| parent.parse().unwrap()),
            managers: manager.parse::<PersonId>().into_iter().collect(),
        };
        all.map(group).to_vec()
    }

    /// If it failed, a manager would miss the forms of their groups, or see those of others.
    #[test]
    fn who_manages_a_group_manages_those_below_it() {
        let all = groups();
        let found = |who: &str| -> Vec<String> {
            let who: PersonId = who.parse().unwrap();
            let own = all.iter().filter(|g| manages(&all, g, &who));
            own.map(|g| g.name.to_string()).collect()
        };
        assert_eq!(found("milo@rennes"), ["physics", "optics", "lasers"]);
        assert_eq!(found("susi@rennes"), ["lasers"]);
        assert!(found("nina@rennes").is_empty());
    }

    /// If it failed, the form would offer to put a group into itself.
    #[test]
    fn a_group_is_moved_neither_into_itself_nor_to_where_it_is() {
        let all = groups();
        let to = |i: usize| elsewhere(&all, &all[i]);
        assert_eq!(to(1), ["press"]);
        assert_eq!(to(2), ["press"]);
        assert_eq!(to(3), ["physics", "press"]);
    }
}
