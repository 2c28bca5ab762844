//! Invitations into a VO: made, shown once, listed, withdrawn.

use super::members::named;
use super::vo::{self, Head};
use crate::view::{Badge, Frame, When, list_text, page};
use crate::visit::{Shown, Stop, Visit, done};
use askama::Template;
use std::time::Duration;
use xos_api::vom::{
    GROUP_MEMBERS, Gives, INVITATION_DAYS_MAX, INVITATION_HINT_MAX, INVITATION_USES_MAX,
    InvitationInfo, InvitationState, Invite, ListInvitations, WithdrawInvitation,
};
use xos_base::{Error, PersonId};

/// Invitations in one part of the list.
const LIST_MAX: u32 = 100;
/// How long an invitation holds when nothing else is said, in days.
const DAYS_DEFAULT: u64 = 7;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Template)]
#[template(path = "invitations.html")]
struct View {
    frame: Frame,
    head: Head,
    /// The invitation that was just made.
    made: Option<Made>,
    invitations: Vec<Row>,
    next: Option<String>,
    /// Groups that it can give.
    groups: Vec<String>,
    days_default: u64,
    days_max: u64,
    uses_max: u32,
    hint_max: usize,
}

struct Made {
    /// Where the invited go at this console.
    link: String,
    /// The same at any other one.
    path: String,
    until: When,
}

struct Row {
    id: String,
    state: Badge,
    open: bool,
    whom: String,
    groups: String,
    roles: String,
    at_once: bool,
    left: u32,
    uses: u32,
    expires: When,
    ends: Option<When>,
    by: String,
}

impl From<InvitationInfo> for Row {
    fn from(i: InvitationInfo) -> Row {
        let person = i.gives.person.as_ref().map(PersonId::to_string);
        let whom = [person, Some(i.hint).filter(|hint| !hint.is_empty())];
        Row {
            state: badge(i.state),
            open: i.state == InvitationState::Open,
            whom: list_text(&whom.into_iter().flatten().collect::<Vec<_>>()),
            groups: list_text(&i.gives.groups),
            roles: list_text(&i.gives.roles),
            at_once: i.gives.at_once,
            left: i.left,
            uses: i.gives.uses,
            expires: i.gives.expires.into(),
            ends: i.gives.ends.map(When::from),
            by: i.by.to_string(),
            id: i.invitation,
        }
    }
}

fn badge(state: InvitationState) -> Badge {
    let (word, sign, class) = match state {
        InvitationState::Open => ("open", "○", "good"),
        InvitationState::UsedUp => ("used up", "✓", "off"),
        InvitationState::Expired => ("expired", "–", "off"),
        InvitationState::Withdrawn => ("withdrawn", "✕", "off"),
    };
    Badge { word, sign, class }
}

/// The list, with the form for a new one.
pub(crate) async fn show(visit: Visit) -> Shown {
    list(&visit, None).await
}

async fn list(visit: &Visit, made: Option<Made>) -> Shown {
    let info = vo::info_at_home(visit).await?;
    let vo = visit.vo()?;
    let after = Some(visit.query.text("after").to_owned()).filter(|after| !after.is_empty());
    let ask = ListInvitations { vo: vo.clone(), after, limit: Some(LIST_MAX) };
    let part = visit.ask_home(&vo, ask).await?;
    let frame = Frame::of(visit, &format!("Invitations into {vo}"), "vos").await;
    let groups = info.details.iter().flat_map(|d| &d.groups).map(|g| g.name.to_string());
    page(&View {
        frame,
        head: Head::new(&info, "invitations"),
        made,
        invitations: part.invitations.into_iter().map(Row::from).collect(),
        next: part.next,
        groups: groups.filter(|g| g != GROUP_MEMBERS).collect(),
        days_default: DAYS_DEFAULT,
        days_max: INVITATION_DAYS_MAX,
        uses_max: INVITATION_USES_MAX,
        hint_max: INVITATION_HINT_MAX,
    })
}

/// What the form says.
fn gives(visit: &Visit) -> Result<Gives, Stop> {
    let form = &visit.form;
    let days = form.number("days", "the days")?.unwrap_or(DAYS_DEFAULT);
    if days == 0 || days > INVITATION_DAYS_MAX {
        let wrong = format!("an invitation holds for 1 to {INVITATION_DAYS_MAX} days");
        return Err(Error::invalid(wrong).into());
    }
    let holds = DAY.saturating_mul(u32::try_from(days).unwrap_or(u32::MAX));
    let person = match form.text("person") {
        "" => None,
        _ => Some(named(visit, "person")?),
    };
    Ok(Gives {
        groups: form.ids("groups")?,
        roles: form.ids("roles")?,
        uses: form.number("uses", "how many may come in")?.unwrap_or(1),
        expires: visit.console.clock.now().plus(holds),
        person,
        ends: form.day("ends", "the last day of the memberships")?,
        at_once: form.text("ask") != "yes",
    })
}

/// Makes an invitation, and shows its link this one time.
pub(crate) async fn invite(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let hint = visit.form.text("hint").to_owned();
    let invite = Invite { vo: vo.clone(), gives: gives(&visit)?, hint };
    let invited = visit.ask_home(&vo, invite).await?;
    let path = format!("/join/{vo}/{}", invited.secret.0);
    let made = Made {
        link: format!("https://{}{path}", visit.host),
        path,
        until: invited.invitation.gives.expires.into(),
    };
    list(&visit, Some(made)).await
}

/// Withdraws an invitation.
pub(crate) async fn withdraw(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let invitation = visit.place_text("invitation")?.to_owned();
    let notice = format!("The invitation {invitation} is withdrawn: nobody comes in by it now.");
    visit.ask_home(&vo, WithdrawInvitation { vo: vo.clone(), invitation }).await?;
    done(&visit, format!("/vo/{vo}/invitations"), notice)
}
