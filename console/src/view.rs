//! What pages share: their frame, and how times, sizes and states read.

use crate::routes::FILES_VERSION;
use crate::visit::{Guest, Reply, Shown, Stop, Visit};
use askama::Template;
use time::OffsetDateTime;
use time::macros::format_description;
use xos_api::aem::{Counts, JobState, UnitEnd, UnitState};
use xos_api::cluster::{ClusterNodeState, ClusterTreeState};
use xos_api::vom::{MembershipView, Memberships, VoState, WhyOutcome};
use xos_base::membership::{ROLE_ADMIN, ROLE_OWNER};
use xos_base::{Error, Millis, RoleName};

/// Most VOs in the menu of VOs.
const MENU_MAX: usize = 50;

/// What stands around every page.
pub(crate) struct Frame {
    pub(crate) title: String,
    pub(crate) site: String,
    /// Who signed in.
    pub(crate) person: Option<String>,
    /// The person's VOs.
    pub(crate) vos: Vec<VoLink>,
    /// Which entry of the main menu the page belongs to.
    pub(crate) section: &'static str,
    /// What the last action did.
    pub(crate) notice: Option<String>,
    /// The menu leads to the site's own pages.
    pub(crate) site_admin: bool,
    /// Repeated in every form.
    pub(crate) token: String,
    pub(crate) version: String,
}

/// An entry in the menu of VOs.
pub(crate) struct VoLink {
    pub(crate) id: String,
    pub(crate) title: String,
}

impl Frame {
    /// For a page of somebody who signed in.
    pub(crate) async fn of(visit: &Visit, title: &str, section: &'static str) -> Frame {
        match memberships(visit).await {
            Ok(list) => Frame::with(visit, title, section, &list),
            Err(stop) => {
                tracing::warn!(?stop, "the menu of VOs stays empty");
                Frame::with(visit, title, section, &[])
            }
        }
    }

    /// The same, with the person's memberships known.
    pub(crate) fn with(
        visit: &Visit,
        title: &str,
        section: &'static str,
        memberships: &[MembershipView],
    ) -> Frame {
        let link = |m: &MembershipView| VoLink { id: m.vo.to_string(), title: m.title.clone() };
        Frame {
            person: Some(visit.session.person.to_string()),
            vos: memberships.iter().take(MENU_MAX).map(link).collect(),
            site_admin: visit.session.site_admin(),
            notice: if visit.live { None } else { visit.session.take_notice() },
            token: visit.session.form_token.clone(),
            ..Frame::bare(&visit.console, title, section)
        }
    }

    /// For a page before signing in.
    pub(crate) fn guest(guest: &Guest, title: &str, token: &str) -> Frame {
        Frame { token: token.to_owned(), ..Frame::bare(&guest.console, title, "sign-in") }
    }

    /// With nothing but the site.
    pub(crate) fn bare(console: &crate::Inner, title: &str, section: &'static str) -> Frame {
        Frame {
            title: title.to_owned(),
            site: console.title.clone(),
            person: None,
            vos: Vec::new(),
            section,
            notice: None,
            site_admin: false,
            token: String::new(),
            version: format!("{FILES_VERSION:x}"),
        }
    }
}

/// The VOs that the visitor is a member of.
pub(crate) async fn memberships(visit: &Visit) -> Result<Vec<MembershipView>, Stop> {
    visit.ask(Memberships { person: visit.session.person.clone() }).await
}

/// A page from its template.
pub(crate) fn page<T: Template>(template: &T) -> Shown {
    page_with(200, template)
}

/// The same with an HTTP status.
pub(crate) fn page_with<T: Template>(status: u16, template: &T) -> Shown {
    let html = template.render().map_err(|e| {
        tracing::error!(error = %e, "a page cannot be rendered");
        Error::internal("this page cannot be shown").hint("the core's log says more")
    })?;
    Ok(Reply::Page { status, html })
}

/// A point in time, for machines and for people.
pub(crate) struct When {
    pub(crate) iso: String,
    pub(crate) text: String,
}

impl From<Millis> for When {
    fn from(t: Millis) -> When {
        let format = format_description!(
            "[day padding:none] [month repr:short] [year], [hour]:[minute] UTC"
        );
        let text = i64::try_from(t.secs())
            .ok()
            .and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok())
            .and_then(|t| t.format(&format).ok())
            .unwrap_or_else(|| t.to_string());
        When { iso: t.to_string(), text }
    }
}

/// A state: a word, a sign beside it, and a class for its colour. The word alone says it all.
pub(crate) struct Badge {
    pub(crate) word: &'static str,
    pub(crate) sign: &'static str,
    pub(crate) class: &'static str,
}

fn badge(word: &'static str, sign: &'static str, class: &'static str) -> Badge {
    Badge { word, sign, class }
}

impl From<&JobState> for Badge {
    fn from(state: &JobState) -> Badge {
        match state {
            JobState::Queued => badge("queued", "○", "wait"),
            JobState::Running { .. } => badge("running", "▶", "work"),
            JobState::Done { .. } => badge("done", "✓", "good"),
            JobState::Failed { .. } => badge("failed", "✕", "bad"),
            JobState::Cancelled { .. } => badge("cancelled", "–", "off"),
        }
    }
}

impl From<&UnitState> for Badge {
    fn from(state: &UnitState) -> Badge {
        match state {
            UnitState::Waiting => badge("waiting", "○", "wait"),
            UnitState::Queued => badge("queued", "○", "wait"),
            UnitState::Placed { .. } => badge("placed", "◔", "wait"),
            UnitState::Running { .. } => badge("running", "▶", "work"),
            UnitState::Done { .. } => badge("done", "✓", "good"),
            UnitState::Failed { .. } => badge("failed", "✕", "bad"),
            UnitState::Lost { .. } => badge("lost", "?", "bad"),
            UnitState::Cancelled { .. } => badge("cancelled", "–", "off"),
            UnitState::Refused { .. } => badge("refused", "✕", "bad"),
        }
    }
}

impl From<&VoState> for Badge {
    fn from(state: &VoState) -> Badge {
        match state {
            VoState::Active => badge("active", "✓", "good"),
            VoState::Suspended { .. } => badge("suspended", "‖", "bad"),
            VoState::Dissolved { .. } => badge("dissolved", "✕", "bad"),
        }
    }
}

impl From<WhyOutcome> for Badge {
    fn from(outcome: WhyOutcome) -> Badge {
        match outcome {
            WhyOutcome::Ok => badge(outcome.word(), "✓", "good"),
            WhyOutcome::Failed => badge(outcome.word(), "✕", "bad"),
            WhyOutcome::Unknown => badge(outcome.word(), "?", "wait"),
        }
    }
}

impl From<ClusterNodeState> for Badge {
    fn from(state: ClusterNodeState) -> Badge {
        match state {
            ClusterNodeState::Possible => badge("possible", "○", "wait"),
            ClusterNodeState::Present => badge("present", "◔", "wait"),
            ClusterNodeState::Online => badge("online", "✓", "good"),
            ClusterNodeState::Draining => badge("draining", "→", "work"),
            ClusterNodeState::Suspect => badge("suspect", "?", "bad"),
            ClusterNodeState::Failed => badge("failed", "✕", "bad"),
        }
    }
}

impl From<ClusterTreeState> for Badge {
    fn from(state: ClusterTreeState) -> Badge {
        match state {
            ClusterTreeState::Queued => badge("queued", "◔", "wait"),
            ClusterTreeState::Starting => badge("starting", "◔", "wait"),
            ClusterTreeState::Running => badge("running", "▶", "work"),
            ClusterTreeState::Moving => badge("moving", "→", "work"),
            ClusterTreeState::Checkpointed => badge("checkpointed", "‖", "wait"),
            ClusterTreeState::Restarting => badge("restarting", "◔", "wait"),
            ClusterTreeState::Lost => badge("lost", "✕", "bad"),
            ClusterTreeState::Ended => badge("ended", "–", "off"),
        }
    }
}

/// How a unit ended, in a few words.
pub(crate) fn end_text(end: &UnitEnd) -> String {
    match end {
        UnitEnd::Exit { code } => format!("exit {code}"),
        UnitEnd::Signal { signal } => format!("signal {signal}"),
        UnitEnd::OutOfMemory => "used more memory than it asked for".into(),
        UnitEnd::ProcessLimit { status } => {
            format!("reached its limit of processes: exit {status}")
        }
        UnitEnd::WallTime => "ran longer than its time".into(),
        UnitEnd::NotStarted { reason } => format!("not started: {reason}"),
        UnitEnd::StageOut { reason } => format!("output file not stored: {reason}"),
        UnitEnd::Cancelled => "cancelled".into(),
        UnitEnd::Lost { reason } => format!("lost: {reason}"),
    }
}

/// Counts in words, those that are 0 left out: `3 running, 1 done`.
pub(crate) fn counts_text(c: &Counts) -> String {
    let parts = [
        (c.waiting, "waiting"),
        (c.queued, "queued"),
        (c.placed, "placed"),
        (c.running, "running"),
        (c.done, "done"),
        (c.failed, "failed"),
        (c.lost, "lost"),
        (c.cancelled, "cancelled"),
        (c.refused, "refused"),
    ];
    let shown = parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}"));
    shown.collect::<Vec<_>>().join(", ")
}

/// Bytes with a binary unit.
pub(crate) fn bytes_text(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value < 10.0 && value.fract() >= 0.05 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// Thousandths of a processor as processors.
pub(crate) fn cpus_text(milli: u64) -> String {
    let text = format!("{:.3}", milli as f64 / 1000.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A span of time.
pub(crate) fn span_text(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..=9 => format!("{}.{} s", s, ms % 1000 / 100),
        10..=119 => format!("{s} s"),
        120..=7199 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

/// Whether roles make an administrator of the VO.
pub(crate) fn administers(roles: &[RoleName]) -> bool {
    roles.iter().any(|r| r.as_str() == ROLE_ADMIN || r.as_str() == ROLE_OWNER)
}

/// Names in a row.
pub(crate) fn list_text<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// A text of at most `max` characters: of a longer one the beginning, and a sign that it goes on.
pub(crate) fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// A message as a sentence: a capital letter at its beginning unless it begins with an id, a full
/// stop at its end.
pub(crate) fn sentence(text: &str) -> String {
    let begins_with_id = text.split(' ').next().is_some_and(|w| w.contains(['@', '.', '/']));
    let mut chars = text.chars();
    let mut out: String = match chars.next() {
        Some(c) if begins_with_id => c.to_string(),
        Some(c) => c.to_uppercase().collect(),
        None => String::new(),
    };
    out.push_str(chars.as_str());
    if !out.is_empty() && !out.ends_with(['.', '!', '?', ':', '…']) {
        out.push('.');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let bytes = [0, 1023, 1024, 1536, 10 * 1024, 256 << 20, 3 << 40].map(bytes_text);
        assert_eq!(bytes, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "10 KiB", "256 MiB", "3 TiB"]);
        assert_eq!([1000, 500, 64_000, 1].map(cpus_text), ["1", "0.5", "64", "0.001"]);
        let spans = [0, 1_250, 59_999, 125_000, 7_300_000].map(span_text);
        assert_eq!(spans, ["0.0 s", "1.2 s", "59 s", "2 min 5 s", "2 h 1 min"]);
        assert_eq!(When::from(Millis(0)).text, "1 Jan 1970, 00:00 UTC");
        let none = When::from(Millis(u64::MAX));
        assert!(none.text.ends_with(" ms"), "{}", none.text);
    }

    /// If it failed, a text of another's would make a page as long as they like, or be cut inside
    /// a character.
    #[test]
    fn long_texts_are_cut() {
        assert_eq!(cut("", 0), "");
        assert_eq!(cut("été", 3), "été");
        assert_eq!(cut("étés", 3), "été…");
    }

    #[test]
    fn messages_become_sentences() {
        assert_eq!(sentence("no job 7.rennes"), "No job 7.rennes.");
        assert_eq!(sentence("Really?"), "Really?");
        assert_eq!(sentence(""), "");
    }
}
