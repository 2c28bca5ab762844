//! A VO: what it is, my place in it, its groups and sites; for others, how to come in.

use super::enrol::{self, Entry};
use super::shares::Share;
use super::sign_in::kindly;
use super::todo::{self, Todo};
use crate::view::{Badge, Frame, When, administers, list_text, page_with};
use crate::visit::{Shown, Stop, Visit, done};
use askama::Template;
use xos_api::vom::{
    Apply, GetEnrolmentForm, GetVo, GroupInfo, MemberInfo, MemberState, VoDetails, VoInfo,
    WithdrawApplication,
};
use xos_base::membership::ROLE_OWNER;
use xos_base::{Error, VoId};

/// What stands at the top of all pages of a VO.
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) state: Badge,
    pub(crate) member: bool,
    /// The visitor administers it: forms to change it are shown. The API decides all the same.
    pub(crate) admin: bool,
    /// The visitor owns it.
    pub(crate) owner: bool,
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
            owner: acting.is_some_and(|m| m.roles.iter().any(|r| r.as_str() == ROLE_OWNER)),
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
    todo: Vec<Todo>,
    me: Option<Me>,
    application: Option<MyApplication>,
    entry: Entry,
    trouble: Option<String>,
    /// There are terms of use.
    terms: bool,
    details: Option<Details>,
}

struct Me {
    groups: String,
    roles: String,
    number: u32,
    since: When,
    expires: Option<When>,
    suspended: Option<String>,
}

impl From<MemberInfo> for Me {
    fn from(m: MemberInfo) -> Me {
        Me {
            groups: list_text(&m.groups),
            roles: list_text(&m.roles),
            number: m.number.0,
            since: m.since.into(),
            expires: m.expires.map(When::from),
            suspended: match m.state {
                MemberState::Active => None,
                MemberState::Suspended { reason } => Some(reason),
            },
        }
    }
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
    audit_opens: bool,
}

impl From<VoDetails> for Details {
    fn from(d: VoDetails) -> Details {
        Details {
            founded: d.founded.into(),
            members: d.members,
            groups: d.groups,
            volumes: list_text(&d.volumes),
            shares: d.shares.iter().map(Share::from).collect(),
            audit_opens: d.audit_opens,
        }
    }
}

/// The page of a VO.
pub(crate) async fn show(visit: Visit) -> Shown {
    overview(&visit, None).await
}

/// The same, with what is wrong with the application that was just sent.
async fn overview(visit: &Visit, trouble: Option<Error>) -> Shown {
    let info = info(visit).await?;
    let vo = visit.vo()?;
    let form = visit.ask_either(&vo, GetEnrolmentForm { vo: vo.clone() }).await?;
    let title = info.summary.title.clone();
    let frame = Frame::of(visit, &title, "vos").await;
    let head = Head::new(&info, "overview");
    let (person, now) = (&visit.session.person, visit.console.clock.now());
    let mut todo = todo::of_vo(&info, person, head.admin, form.consent.as_ref(), now);
    if head.admin {
        todo.extend(todo::of_admin(visit, &vo).await?);
    }
    let status = trouble.as_ref().map_or(200, |e| e.kind.http_status());
    let view = View {
        frame,
        head,
        home: info.summary.vo.site().to_string(),
        description: info.summary.description,
        suspended: info.state.halted(),
        todo,
        me: info.me.map(Me::from),
        application: info
            .application
            .map(|a| MyApplication { since: a.since.into(), message: a.message }),
        entry: Entry::new(&form, &visit.form),
        trouble: trouble.as_ref().map(kindly),
        terms: form.terms.is_some(),
        details: info.details.map(Details::from),
    };
    page_with(status, &view)
}

/// The path of a VO's page.
pub(crate) fn path(vo: &VoId) -> String {
    format!("/vo/{vo}")
}

/// Asks to become a member.
pub(crate) async fn apply(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let message = visit.form.text("message").to_owned();
    let (agreed, answers) = enrol::said(&visit.form)?;
    let apply = Apply { vo: vo.clone(), message, agreed, answers };
    match visit.ask_home(&vo, apply).await {
        Ok(_) => {
            done(&visit, path(&vo), format!("You applied to {vo}. Its administrators decide now."))
        }
        Err(Stop::Failed(e)) if enrol::amendable(&e) => overview(&visit, Some(e)).await,
        Err(stop) => Err(stop),
    }
}

/// Takes one's application back.
pub(crate) async fn withdraw(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    visit.ask_home(&vo, WithdrawApplication { vo: vo.clone() }).await?;
    done(&visit, path(&vo), format!("Your application to {vo} is withdrawn."))
}
