//! A VO: what it is, my place in it, its groups and sites; for others, how to come in.

use super::shares::Share;
use crate::view::{Badge, Frame, When, administers, list_text, page};
use crate::visit::{Shown, Stop, Visit, done};
use askama::Template;
use xos_api::vom::{
    Apply, GetVo, GroupInfo, MESSAGE_MAX, MemberState, VoInfo, WithdrawApplication,
};
use xos_base::VoId;

/// What stands at the top of all pages of a VO.
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) state: Badge,
    pub(crate) member: bool,
    /// The visitor administers it: forms to change it are shown. The API decides all the same.
    pub(crate) admin: bool,
    pub(crate) tab: &'static str,
    /// Applications that wait.
    pub(crate) waiting: u64,
}

impl Head {
    pub(crate) fn new(info: &VoInfo, tab: &'static str) -> Head {
        let acting = info.me.as_ref().filter(|m| m.state == MemberState::Active);
        Head {
            id: info.summary.vo.to_string(),
            title: info.summary.title.clone(),
            state: (&info.state).into(),
            member: info.details.is_some(),
            admin: acting.is_some_and(|m| administers(&m.roles)),
            tab,
            waiting: info.details.as_ref().map_or(0, |d| d.applications),
        }
    }
}

/// The VO as the visitor may see it.
pub(crate) async fn info(visit: &Visit) -> Result<VoInfo, Stop> {
    let vo = visit.vo()?;
    visit.ask_either(&vo, GetVo { vo: vo.clone() }).await
}

/// The same from its home, which knows the last change: for pages that change it.
pub(crate) async fn info_at_home(visit: &Visit) -> Result<VoInfo, Stop> {
    let vo = visit.vo()?;
    visit.ask_home(&vo, GetVo { vo: vo.clone() }).await
}

#[derive(Template)]
#[template(path = "vo.html")]
struct View {
    frame: Frame,
    head: Head,
    description: String,
    home: String,
    suspended: Option<String>,
    me: Option<Me>,
    application: Option<MyApplication>,
    details: Option<Details>,
    message_max: usize,
}

struct Me {
    groups: String,
    roles: String,
    number: u32,
    since: When,
    expires: Option<When>,
    suspended: Option<String>,
}

struct MyApplication {
    since: When,
    message: String,
}

struct Details {
    founded: When,
    members: u64,
    groups: Vec<GroupInfo>,
    volumes: String,
    shares: Vec<Share>,
}

/// The page of a VO.
pub(crate) async fn show(visit: Visit) -> Shown {
    let info = info(&visit).await?;
    let title = info.summary.title.clone();
    let frame = Frame::of(&visit, &title, "vos").await;
    let head = Head::new(&info, "overview");
    let me = info.me.map(|m| Me {
        groups: list_text(&m.groups),
        roles: list_text(&m.roles),
        number: m.number.0,
        since: m.since.into(),
        expires: m.expires.map(When::from),
        suspended: match m.state {
            MemberState::Active => None,
            MemberState::Suspended { reason } => Some(reason),
        },
    });
    let details = info.details.map(|d| Details {
        founded: d.founded.into(),
        members: d.members,
        groups: d.groups,
        volumes: list_text(&d.volumes),
        shares: d.shares.iter().map(Share::from).collect(),
    });
    page(&View {
        frame,
        head,
        home: info.summary.vo.site().to_string(),
        description: info.summary.description,
        suspended: info.state.halted(),
        me,
        application: info
            .application
            .map(|a| MyApplication { since: a.since.into(), message: a.message }),
        details,
        message_max: MESSAGE_MAX,
    })
}

/// The path of a VO's page.
pub(crate) fn path(vo: &VoId) -> String {
    format!("/vo/{vo}")
}

/// Asks to become a member.
pub(crate) async fn apply(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let message = visit.form.text("message").to_owned();
    let apply = Apply { vo: vo.clone(), message, agreed: None, answers: Vec::new() };
    visit.ask_home(&vo, apply).await?;
    done(&visit, path(&vo), format!("You applied to {vo}. Its administrators decide now."))
}

/// Takes one's application back.
pub(crate) async fn withdraw(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    visit.ask_home(&vo, WithdrawApplication { vo: vo.clone() }).await?;
    done(&visit, path(&vo), format!("Your application to {vo} is withdrawn."))
}
