//! One member of a VO, and what an administrator can change about them.

use super::members::badge;
use super::vo::{self, Head};
use crate::fields::day_text;
use crate::view::{Badge, Frame, When, page};
use crate::visit::{Shown, Stop, Visit, done};
use askama::Template;
use xos_api::Request;
use xos_api::vom::{
    AddToGroup, GROUP_MEMBERS, GetMember, GrantRole, MemberState, REASON_MAX, RemoveFromGroup,
    RemoveMember, ResumeMember, SetExpiry, SuspendMember, WithdrawRole,
};
use xos_base::membership::{ROLE_ADMIN, ROLE_OWNER};
use xos_base::{GroupName, PersonId, RoleName, VoId};

#[derive(Template)]
#[template(path = "member.html")]
struct View {
    frame: Frame,
    head: Head,
    person: String,
    number: u32,
    state: Badge,
    suspended: Option<String>,
    groups: Vec<String>,
    roles: Vec<String>,
    /// Groups that the member is not in yet.
    more_groups: Vec<String>,
    /// Roles that can be suggested.
    more_roles: Vec<&'static str>,
    since: When,
    expires: Option<When>,
    /// The last day, for the form.
    last_day: String,
    /// The visitor may see what is noted of the member.
    records: bool,
    reason_max: usize,
}

#[derive(Template)]
#[template(path = "member_remove.html")]
struct Remove {
    frame: Frame,
    head: Head,
    person: String,
    myself: bool,
    reason_max: usize,
}

/// The page of one member.
pub(crate) async fn show(visit: Visit) -> Shown {
    let info = vo::info_at_home(&visit).await?;
    let (vo, person) = names(&visit)?;
    let m = visit.ask_home(&vo, GetMember { vo: vo.clone(), person: person.clone() }).await?;
    let frame = Frame::of(&visit, &format!("{person} in {vo}"), "vos").await;
    let all = info.details.as_ref().map(|d| d.groups.as_slice()).unwrap_or_default();
    let more_groups = all.iter().map(|g| &g.name).filter(|g| !m.groups.contains(g));
    let more_roles = [ROLE_ADMIN, ROLE_OWNER].into_iter();
    let head = Head::new(&info, "members");
    page(&View {
        frame,
        records: head.admin || person == visit.session.person,
        head,
        person: person.to_string(),
        number: m.number.0,
        state: badge(&m),
        more_groups: more_groups.map(GroupName::to_string).collect(),
        more_roles: more_roles.filter(|r| !m.roles.iter().any(|h| h.as_str() == *r)).collect(),
        // Everybody is in `members`, and stays there.
        groups: m.groups.iter().map(GroupName::to_string).filter(|g| g != GROUP_MEMBERS).collect(),
        roles: m.roles.iter().map(RoleName::to_string).collect(),
        since: m.since.into(),
        expires: m.expires.map(When::from),
        last_day: m.expires.map(day_text).unwrap_or_default(),
        suspended: match m.state {
            MemberState::Active => None,
            MemberState::Suspended { reason } => Some(reason),
        },
        reason_max: REASON_MAX,
    })
}

fn names(visit: &Visit) -> Result<(VoId, PersonId), Stop> {
    Ok((visit.vo()?, visit.place("person")?))
}

/// Makes a change and shows the member again.
async fn change<R: Request>(
    visit: &Visit,
    request: impl FnOnce(VoId, PersonId) -> Result<(R, String), Stop>,
) -> Shown {
    let (vo, person) = names(visit)?;
    let (request, notice) = request(vo.clone(), person.clone())?;
    visit.ask_home(&vo, request).await?;
    done(visit, format!("/vo/{vo}/member/{person}"), notice)
}

/// Suspends the member.
pub(crate) async fn suspend(visit: Visit) -> Shown {
    let reason = visit.form.text("reason").to_owned();
    change(&visit, |vo, person| {
        let notice = format!("{person} is suspended.");
        Ok((SuspendMember { vo, person, reason }, notice))
    })
    .await
}

/// Lets the member act again.
pub(crate) async fn resume(visit: Visit) -> Shown {
    change(&visit, |vo, person| {
        let notice = format!("{person} may act again.");
        Ok((ResumeMember { vo, person }, notice))
    })
    .await
}

/// Sets when the membership ends.
pub(crate) async fn expire(visit: Visit) -> Shown {
    let expires = visit.form.day("until", "the last day")?;
    change(&visit, |vo, person| {
        let notice = match expires {
            Some(end) => format!("{person} is a member until {}.", When::from(end).text),
            None => format!("The membership of {person} has no end now."),
        };
        Ok((SetExpiry { vo, person, expires }, notice))
    })
    .await
}

/// Gives a role.
pub(crate) async fn grant(visit: Visit) -> Shown {
    let role: RoleName = visit.form.id("role")?;
    change(&visit, |vo, person| {
        let notice = format!("{person} has the role {role} now.");
        Ok((GrantRole { vo, person, role }, notice))
    })
    .await
}

/// Takes a role.
pub(crate) async fn withdraw(visit: Visit) -> Shown {
    let role: RoleName = visit.form.id("role")?;
    change(&visit, |vo, person| {
        let notice = format!("{person} no longer has the role {role}.");
        Ok((WithdrawRole { vo, person, role }, notice))
    })
    .await
}

/// Puts the member into a group.
pub(crate) async fn add(visit: Visit) -> Shown {
    let name: GroupName = visit.form.id("group")?;
    change(&visit, |vo, person| {
        let notice = format!("{person} is in the group {name} now.");
        Ok((AddToGroup { vo, name, person }, notice))
    })
    .await
}

/// Takes the member out of a group.
pub(crate) async fn drop_group(visit: Visit) -> Shown {
    let name: GroupName = visit.form.id("group")?;
    change(&visit, |vo, person| {
        let notice = format!("{person} is no longer in the group {name}.");
        Ok((RemoveFromGroup { vo, name, person }, notice))
    })
    .await
}

/// Asks whether the membership shall really end.
pub(crate) async fn confirm_remove(visit: Visit) -> Shown {
    let info = vo::info_at_home(&visit).await?;
    let (vo, person) = names(&visit)?;
    let frame = Frame::of(&visit, &format!("Remove {person} from {vo}"), "vos").await;
    page(&Remove {
        frame,
        head: Head::new(&info, "members"),
        myself: person == visit.session.person,
        person: person.to_string(),
        reason_max: REASON_MAX,
    })
}

/// Ends the membership.
pub(crate) async fn remove(visit: Visit) -> Shown {
    let (vo, person) = names(&visit)?;
    let reason = visit.form.text("reason").to_owned();
    let r = RemoveMember { vo: vo.clone(), person: person.clone(), reason };
    visit.ask_home(&vo, r).await?;
    if person == visit.session.person {
        return done(&visit, "/".into(), format!("You left {vo}."));
    }
    done(&visit, format!("/vo/{vo}/members"), format!("{person} is no longer a member of {vo}."))
}
