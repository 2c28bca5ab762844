//! The groups of a VO, as the tree that they are.

use super::vo::{self, Head};
use crate::view::{Frame, page};
use crate::visit::{Shown, Visit, done};
use askama::Template;
use std::collections::{HashMap, HashSet};
use xos_api::vom::{CreateGroup, DeleteGroup, GROUP_MEMBERS, GroupInfo, ListGroups, PAGE_MAX};
use xos_base::{GroupName, GroupNumber};

#[derive(Template)]
#[template(path = "groups.html")]
struct View {
    frame: Frame,
    head: Head,
    groups: Vec<Row>,
    next: Option<u32>,
}

struct Row {
    /// How many groups of this page stand above it.
    depth: usize,
    name: String,
    number: u32,
    members: u64,
    parent: Option<String>,
    managers: usize,
    /// Everybody is in it: it cannot be deleted.
    everybody: bool,
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
        groups: tree(part.groups).into_iter().map(row).collect(),
        next: part.next.map(|n| n.0),
    })
}

fn row((depth, g): (usize, GroupInfo)) -> Row {
    Row {
        depth,
        name: g.name.to_string(),
        number: g.number.0,
        members: g.members,
        parent: g.parent.map(|p| p.to_string()),
        managers: g.managers.len(),
        everybody: g.name.as_str() == GROUP_MEMBERS,
    }
}

/// Groups in the order of their tree: those within another one follow it, a step deeper. One whose
/// upper group stands in another part of the list begins at the margin.
fn tree(groups: Vec<GroupInfo>) -> Vec<(usize, GroupInfo)> {
    let names: HashSet<GroupName> = groups.iter().map(|g| g.name.clone()).collect();
    let mut within: HashMap<Option<GroupName>, Vec<GroupInfo>> = HashMap::new();
    for g in groups {
        let above = g.parent.clone().filter(|p| names.contains(p));
        within.entry(above).or_default().push(g);
    }
    let mut take = |above: Option<GroupName>, depth: usize| {
        let groups = within.remove(&above).unwrap_or_default();
        groups.into_iter().rev().map(|g| (depth, g)).collect::<Vec<_>>()
    };
    let mut waiting = take(None, 0);
    let mut all = Vec::new();
    while let Some((depth, g)) = waiting.pop() {
        waiting.extend(take(Some(g.name.clone()), depth + 1));
        all.push((depth, g));
    }
    all
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

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a group would be missing from the list, or stand under another one than the
    /// one that it is in.
    #[test]
    fn groups_within_others_follow_them() {
        let group = |(number, (name, parent)): (usize, (&str, &str))| GroupInfo {
            name: name.parse().unwrap(),
            number: GroupNumber(number as u32),
            members: 0,
            parent: (!parent.is_empty()).then(|| parent.parse().unwrap()),
            managers: Vec::new(),
        };
        let all = [("members", ""), ("optics", "physics"), ("physics", ""), ("far", "elsewhere")];
        let all = all.into_iter().chain([("lasers", "optics"), ("press", "")]).enumerate();
        let shown: Vec<(usize, String)> = tree(all.map(group).collect())
            .into_iter()
            .map(|(d, g)| (d, g.name.to_string()))
            .collect();
        let want = [
            (0, "members"),
            (0, "physics"),
            (1, "optics"),
            (2, "lasers"),
            (0, "far"),
            (0, "press"),
        ];
        assert_eq!(shown, want.map(|(d, n)| (d, n.to_owned())));
    }
}
