//! Reads members and groups by requests of the API.

use super::answers::{Refused, Shown};
use super::filter::Filter;
use super::resources::{Attributes, group, list, provider_config, resource_types, schemas, user};
use crate::fields::Fields;
use serde_json::Value;
use std::collections::BTreeMap;
use xos_api::vom::{GetMember, GetVo, GroupInfo, ListGroups, ListMembers, MemberInfo, PAGE_MAX};
use xos_base::{Error, GroupNumber, Kind, PersonId, VoId};
use xos_net::{Caller, Grid};

/// Most resources in one answer; also what is given when no count is named.
const COUNT_MAX: usize = 500;
/// Most members that the groups of one answer name together.
const MEMBERS_MAX: usize = 10_000;
/// By what members are found, in lower case.
const OF_USERS: [&str; 6] =
    ["id", "externalid", "username", "displayname", "active", "groups.value"];
/// By what groups are found.
const OF_GROUPS: [&str; 5] = ["id", "externalid", "displayname", "members", "members.value"];

/// What a query asks for.
#[derive(Debug)]
pub(super) struct Wanted {
    filter: Filter,
    start: usize,
    count: usize,
    attributes: Attributes,
}

impl Wanted {
    /// Reads it. Values below what they can be stand for that (RFC 7644, 3.4.2.4).
    ///
    /// # Errors
    /// [`Refused`] naming the parameter.
    pub(super) fn parse(query: &Fields) -> Result<Wanted, Refused> {
        let number = |name: &str, absent: usize| match query.text(name) {
            "" => Ok(absent),
            text => match text.parse::<i64>() {
                Ok(n) => Ok(usize::try_from(n).unwrap_or(0)),
                Err(_) => Err(Refused::value(format!("{name} is a number"))),
            },
        };
        Ok(Wanted {
            filter: Filter::parse(query.raw("filter"))?,
            start: number("startIndex", 1)?.max(1),
            count: number("count", COUNT_MAX)?.min(COUNT_MAX),
            attributes: Attributes::parse(
                query.text("attributes"),
                query.text("excludedAttributes"),
            )?,
        })
    }
}

/// Somebody who asks about a VO.
pub(super) struct Asking {
    pub(super) grid: Grid,
    pub(super) caller: Caller,
    pub(super) vo: VoId,
    /// What the addresses of resources begin with.
    pub(super) base: String,
}

impl Asking {
    /// What `tail`, the path below the VO, shows.
    ///
    /// # Errors
    /// [`Refused`] with what SCIM says of it.
    pub(super) async fn answer(&self, tail: &str, wanted: &Wanted) -> Result<Shown, Refused> {
        let (kind, id) = tail.split_once('/').map_or((tail, None), |(kind, id)| (kind, Some(id)));
        let shown = match (kind, id) {
            ("Users", None) => self.users(wanted).await?,
            ("Users", Some(id)) => {
                let member = self.member(id).await?.ok_or_else(|| none(tail))?;
                let numbers = self.numbers().await?;
                wanted.attributes.of(self.user(&member, &numbers))
            }
            ("Groups", None) => self.groups(wanted, |_| true).await?,
            ("Groups", Some(id)) => {
                let alone = Wanted { filter: Filter::default(), start: 1, ..wanted.copy() };
                let mut page = self.groups(&alone, |g| g.number.to_string() == id).await?;
                let found = page["Resources"].as_array_mut().and_then(Vec::pop);
                found.ok_or_else(|| none(tail))?
            }
            ("ServiceProviderConfig", None) => provider_config(&self.base, COUNT_MAX),
            ("ResourceTypes", id) => one_or_all(resource_types(&self.base), id, tail)?,
            ("Schemas", id) => one_or_all(schemas(&self.base), id, tail)?,
            _ => return Err(none(tail)),
        };
        Ok(Shown(shown))
    }

    fn user(&self, member: &MemberInfo, numbers: &BTreeMap<String, GroupNumber>) -> Value {
        user(member, |name| numbers.get(name).copied(), &self.base)
    }

    /// A member, if the text is one's id.
    async fn member(&self, id: &str) -> Result<Option<MemberInfo>, Error> {
        let Ok(person) = id.parse::<PersonId>() else { return Ok(None) };
        let get = GetMember { vo: self.vo.clone(), person };
        match self.grid.local(self.caller.clone(), get).await {
            Ok(member) => Ok(Some(member)),
            Err(e) if e.kind == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn all_groups(&self) -> Result<Vec<GroupInfo>, Error> {
        let (mut groups, mut after) = (Vec::new(), None);
        loop {
            let list = ListGroups { vo: self.vo.clone(), after, limit: Some(PAGE_MAX) };
            let page = self.grid.local(self.caller.clone(), list).await?;
            groups.extend(page.groups);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(groups),
            }
        }
    }

    async fn numbers(&self) -> Result<BTreeMap<String, GroupNumber>, Error> {
        let groups = self.all_groups().await?;
        Ok(groups.into_iter().map(|g| (g.name.to_string(), g.number)).collect())
    }

    /// Looks at members, by person, until `look` wants no more.
    async fn each_member(&self, mut look: impl FnMut(MemberInfo) -> bool) -> Result<(), Error> {
        let mut after = None;
        loop {
            let list = ListMembers { vo: self.vo.clone(), after, limit: Some(PAGE_MAX) };
            let page = self.grid.local(self.caller.clone(), list).await?;
            if !page.members.into_iter().all(&mut look) {
                return Ok(());
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    async fn users(&self, wanted: &Wanted) -> Result<Value, Refused> {
        let filter = &wanted.filter;
        filter.only(&OF_USERS)?;
        let numbers = self.numbers().await?;
        let fits = |m: &MemberInfo| {
            filter.holds(|attribute, value| match attribute {
                "displayname" => m.person.name() == value,
                "active" => m.acts.to_string() == value,
                "groups.value" => m.groups.iter().any(|name| {
                    numbers.get(name.as_str()).is_some_and(|number| number.to_string() == value)
                }),
                _ => m.person.as_str() == value,
            })
        };
        let named = ["id", "externalid", "username"].into_iter().find_map(|a| filter.wants(a));
        let (mut found, mut total) = (Vec::new(), 0);
        let skip = wanted.start - 1;
        let mut take = |member: MemberInfo| {
            total += 1;
            if total > skip && found.len() < wanted.count {
                found.push(member);
            }
        };
        if let Some(id) = named {
            self.member(id).await?.into_iter().filter(&fits).for_each(take);
        } else if filter.0.is_empty() {
            // How many there are the VO knows; none is looked at beyond what is shown.
            let mut left = skip.saturating_add(wanted.count);
            if left > 0 {
                self.each_member(|member| {
                    take(member);
                    left = left.saturating_sub(1);
                    left > 0
                })
                .await?;
            }
            let vo = self.grid.local(self.caller.clone(), GetVo { vo: self.vo.clone() }).await?;
            let members = vo.details.map_or(0, |details| details.members);
            total = usize::try_from(members).unwrap_or(usize::MAX);
        } else {
            self.each_member(|member| {
                if fits(&member) {
                    take(member);
                }
                true
            })
            .await?;
        }
        let shown = found.iter().map(|m| wanted.attributes.of(self.user(m, &numbers))).collect();
        Ok(list(shown, total, wanted.start))
    }

    async fn groups(
        &self,
        wanted: &Wanted,
        is_wanted: impl Fn(&GroupInfo) -> bool,
    ) -> Result<Value, Refused> {
        let filter = &wanted.filter;
        filter.only(&OF_GROUPS)?;
        let with = match filter.wants("members.value").or_else(|| filter.wants("members")) {
            Some(id) => Some(self.member(id).await?.map(|m| m.groups).unwrap_or_default()),
            None => None,
        };
        let mut groups = self.all_groups().await?;
        groups.retain(|g| {
            is_wanted(g)
                && with.as_ref().is_none_or(|with| with.contains(&g.name))
                && filter.holds(|attribute, value| match attribute {
                    "id" => g.number.to_string() == value,
                    "displayname" | "externalid" => g.name.as_str() == value,
                    _ => true,
                })
        });
        let total = groups.len();
        let page: Vec<GroupInfo> =
            groups.into_iter().skip(wanted.start - 1).take(wanted.count).collect();
        let members = match wanted.attributes.show("members") {
            true => Some(self.members_of(&page).await?),
            false => None,
        };
        let shown = page.iter().map(|g| {
            let of_group = members.as_ref().map(|m| m.get(g.name.as_str()));
            let of_group = of_group.map(|m| m.map(Vec::as_slice).unwrap_or_default());
            wanted.attributes.of(group(g, of_group, &self.base))
        });
        Ok(list(shown.collect(), total, wanted.start))
    }

    /// Who is in these groups, by the group's name.
    async fn members_of(
        &self,
        groups: &[GroupInfo],
    ) -> Result<BTreeMap<String, Vec<PersonId>>, Refused> {
        let sum = groups.iter().fold(0, |sum: u64, g| sum.saturating_add(g.members));
        if usize::try_from(sum).unwrap_or(usize::MAX) > MEMBERS_MAX {
            return Err(Refused::too_many(format!(
                "these groups have {sum} members, and an answer names {MEMBERS_MAX}; ask with \
                 excludedAttributes=members, and for Users by groups.value"
            )));
        }
        let mut members: BTreeMap<String, Vec<PersonId>> =
            groups.iter().map(|g| (g.name.to_string(), Vec::new())).collect();
        if sum > 0 {
            self.each_member(|member| {
                for name in &member.groups {
                    if let Some(of_group) = members.get_mut(name.as_str()) {
                        of_group.push(member.person.clone());
                    }
                }
                true
            })
            .await?;
        }
        Ok(members)
    }
}

impl Wanted {
    fn copy(&self) -> Wanted {
        Wanted {
            filter: self.filter.clone(),
            start: self.start,
            count: COUNT_MAX,
            attributes: self.attributes.clone(),
        }
    }
}

fn one_or_all(all: Vec<Value>, id: Option<&str>, tail: &str) -> Result<Value, Refused> {
    match id {
        Some(id) => all.into_iter().find(|r| r["id"] == id).ok_or_else(|| none(tail)),
        None => {
            let total = all.len();
            Ok(list(all, total, 1))
        }
    }
}

fn none(tail: &str) -> Refused {
    Error::not_found(format!("{} does not exist here", xos_net::path::shown(tail))).into()
}
