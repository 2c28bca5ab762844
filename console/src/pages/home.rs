//! The first page: my VOs, what I applied for, where I could apply.

use super::todo::{self, Todo};
use crate::view::{Badge, Frame, When, administers, list_text, memberships, page};
use crate::visit::{Shown, Stop, Visit};
use askama::Template;
use std::collections::HashSet;
use xos_api::vom::{GetVo, ListVos, MemberState, MembershipView, VoPage, VoState, VoSummary};
use xos_base::VoId;

/// VOs in one part of the list of VOs.
const LIST_MAX: u32 = 50;
/// Most VOs of an administrator whose waiting applications are counted.
const COUNTED_MAX: usize = 20;

#[derive(Template)]
#[template(path = "home.html")]
struct Home {
    frame: Frame,
    todo: Vec<Todo>,
    mine: Vec<Mine>,
    pending: Vec<Pending>,
    open: Vec<VoSummary>,
    more: bool,
}

struct Mine {
    id: String,
    title: String,
    state: Badge,
    roles: String,
    groups: String,
    suspended: Option<String>,
    /// Applications that wait for this administrator.
    waiting: u64,
}

struct Pending {
    id: String,
    title: String,
    since: When,
    message: String,
}

#[derive(Template)]
#[template(path = "directory.html")]
struct Directory {
    frame: Frame,
    vos: Vec<Listed>,
    next: Option<String>,
}

struct Listed {
    vo: VoSummary,
    place: &'static str,
}

/// The first page.
pub(crate) async fn show(visit: Visit) -> Shown {
    let memberships = memberships(&visit).await?;
    let mut mine = Vec::new();
    for m in &memberships {
        let count = mine.len() < COUNTED_MAX && administers(&m.member.roles);
        let waiting = if count { waiting(&visit, &m.vo).await } else { 0 };
        mine.push(one_of_mine(m, waiting));
    }
    let list = list(&visit, None).await?;
    let (mut pending, mut open) = (Vec::new(), Vec::new());
    let known: HashSet<&VoId> = memberships.iter().map(|m| &m.vo).collect();
    for vo in list.vos {
        if known.contains(&vo.vo) {
            continue;
        }
        let info = visit.ask(GetVo { vo: vo.vo.clone() }).await?;
        match info.application {
            Some(a) => pending.push(Pending {
                id: vo.vo.to_string(),
                title: vo.title,
                since: a.since.into(),
                message: a.message,
            }),
            None => open.push(vo),
        }
    }
    let frame = Frame::with(&visit, "Home", "home", &memberships);
    let more = list.next.is_some();
    let todo = todo::reminders(&visit).await;
    page(&Home { frame, todo, mine, pending, open, more })
}

fn one_of_mine(m: &MembershipView, waiting: u64) -> Mine {
    let halted = m.vo_state.halted().map(|why| format!("The VO {why}"));
    let suspended = halted.or_else(|| match &m.member.state {
        MemberState::Suspended { reason } => Some(format!("You are suspended: {reason}")),
        MemberState::Active => None,
    });
    let state = match (&m.vo_state, &m.member.state) {
        (VoState::Active, MemberState::Suspended { .. }) => {
            Badge { word: "suspended", sign: "‖", class: "bad" }
        }
        (state, _) => state.into(),
    };
    Mine {
        id: m.vo.to_string(),
        title: m.title.clone(),
        state,
        roles: list_text(&m.member.roles),
        groups: list_text(&m.member.groups),
        suspended,
        waiting,
    }
}

/// How many applications wait in a VO; none, when it does not say.
async fn waiting(visit: &Visit, vo: &VoId) -> u64 {
    match visit.ask(GetVo { vo: vo.clone() }).await {
        Ok(info) => info.details.map_or(0, |d| d.applications),
        Err(stop) => {
            tracing::debug!(%vo, ?stop, "waiting applications are not known");
            0
        }
    }
}

async fn list(visit: &Visit, after: Option<VoId>) -> Result<VoPage, Stop> {
    visit.ask(ListVos { after, limit: Some(LIST_MAX) }).await
}

/// All VOs that this site knows, in parts.
pub(crate) async fn directory(visit: Visit) -> Shown {
    let after = visit.query.id_if("after")?;
    let memberships = memberships(&visit).await?;
    let known: HashSet<&VoId> = memberships.iter().map(|m| &m.vo).collect();
    let part = list(&visit, after).await?;
    let listed = |vo: VoSummary| {
        let place = if known.contains(&vo.vo) { "You are a member" } else { "" };
        Listed { vo, place }
    };
    let vos = part.vos.into_iter().map(listed).collect();
    let next = part.next.map(|vo| vo.to_string());
    let frame = Frame::with(&visit, "Virtual organizations", "vos", &memberships);
    page(&Directory { frame, vos, next })
}
