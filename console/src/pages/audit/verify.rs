//! Whether this site's audit is whole, and how far other sites witness it.

use super::super::site::{SiteHead, administrator};
use crate::view::{Frame, When, list_text, page};
use crate::visit::{Shown, Visit};
use askama::Template;
use std::collections::HashSet;
use xos_api::audit::{AuditCheck, AuditFault, AuditHead, FaultKind, HeadsOf, VerifyAudit};
use xos_base::Error;
use xos_net::sign::Kind;

/// Most requests of one verification: each looks at a bounded number of files.
const PARTS_MAX: usize = 200;
/// Most faults that are shown.
const FAULTS_MAX: usize = 100;

#[derive(Template)]
#[template(path = "audit_verified.html")]
struct View {
    frame: Frame,
    site_head: SiteHead,
    whole: bool,
    lines: u64,
    last: u64,
    heads: u64,
    witnessed: u64,
    /// Lines that lie in an archive.
    archived: u64,
    /// Heads that this site did not sign.
    unverified: u64,
    silent: String,
    /// It was not verified to its end.
    stopped: bool,
    faults: Vec<Fault>,
}

struct Fault {
    file: String,
    number: u64,
    kind: &'static str,
    detail: String,
}

fn kind(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Missing => "missing",
        FaultKind::Order => "out of order",
        FaultKind::Altered => "altered",
        FaultKind::Unreadable => "unreadable",
        FaultKind::OtherSite => "of another site",
        FaultKind::File => "wrong file",
        FaultKind::Rewritten => "rewritten",
        FaultKind::Cut => "cut off",
    }
}

fn fault(f: AuditFault) -> Fault {
    Fault { file: f.file, number: f.number, kind: kind(f.kind), detail: f.detail }
}

/// Verifies the audit of this site.
pub(crate) async fn verify(visit: Visit) -> Shown {
    let mut all = visit.ask(VerifyAudit { from: None }).await?;
    let mut parts = 1;
    while let Some(from) = all.next.take() {
        if parts >= PARTS_MAX {
            all.next = Some(from);
            break;
        }
        parts += 1;
        let known = from.number;
        let more = visit.ask(VerifyAudit { from: Some(from) }).await?;
        if more.next.as_ref().is_some_and(|next| next.number <= known) {
            let text = "the core does not come to the end of its audit";
            return Err(Error::internal(text).hint("its log says more").into());
        }
        joined(&mut all, more);
    }
    page(&View {
        frame: Frame::of(&visit, "Is the audit whole?", "site").await,
        site_head: SiteHead::new("audit"),
        whole: all.faults.is_empty(),
        lines: all.lines,
        last: all.last,
        heads: all.heads,
        witnessed: all.witnessed,
        archived: all.archived,
        unverified: all.unverified,
        silent: list_text(&all.silent),
        stopped: all.next.is_some(),
        faults: all.faults.into_iter().take(FAULTS_MAX).map(fault).collect(),
    })
}

/// What the parts so far and the next one found.
fn joined(all: &mut AuditCheck, more: AuditCheck) {
    all.lines = all.lines.saturating_add(more.lines);
    // Each part is compared with the heads of its own lines.
    all.heads = all.heads.saturating_add(more.heads);
    all.unverified = all.unverified.saturating_add(more.unverified);
    (all.last, all.witnessed) = (more.last, all.witnessed.max(more.witnessed));
    all.faults.extend(more.faults);
    all.faults.truncate(FAULTS_MAX);
    all.silent = more.silent;
    all.next = more.next;
}

#[derive(Template)]
#[template(path = "audit_heads.html")]
struct HeadsView {
    frame: Frame,
    site_head: SiteHead,
    heads: Vec<Held>,
    silent: String,
}

struct Held {
    by: String,
    number: u64,
    signed: When,
    heard: When,
}

/// How far other sites witness the audit of this one.
pub(crate) async fn show_heads(visit: Visit) -> Shown {
    administrator(&visit).await?;
    let site = visit.console.grid.site().clone();
    let heads = visit.ask(HeadsOf { site: site.clone(), after: None }).await?;
    // Of each holder the newest comes first.
    let mut seen = HashSet::new();
    let mut rows = Vec::new();
    for held in heads.held.iter().filter(|h| seen.insert(&h.by)) {
        let head: Result<AuditHead, Error> =
            visit.console.grid.trust().verify(Kind::AuditHead, &held.statement, &site);
        // What this site did not sign witnesses nothing.
        let Ok(head) = head else { continue };
        rows.push(Held {
            by: held.by.to_string(),
            number: head.number,
            signed: head.time.into(),
            heard: held.heard.into(),
        });
    }
    show(&visit, rows, list_text(&heads.silent)).await
}

async fn show(visit: &Visit, heads: Vec<Held>, silent: String) -> Shown {
    let frame = Frame::of(visit, "Who witnesses the audit", "site").await;
    page(&HeadsView { frame, site_head: SiteHead::new("audit"), heads, silent })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, an audit whose beginning was tampered with would pass for whole.
    #[test]
    fn faults_of_all_parts_are_kept() {
        let part = |lines, faults: Vec<AuditFault>| AuditCheck {
            site: "rennes".parse().unwrap(),
            lines,
            last: lines,
            faults,
            archived: 0,
            heads: 1,
            unverified: 0,
            witnessed: lines,
            silent: Vec::new(),
            next: None,
        };
        let fault = AuditFault {
            file: "1.jsonl".into(),
            number: 5,
            kind: FaultKind::Altered,
            detail: "x".into(),
        };
        let mut all = part(9, vec![fault]);
        joined(&mut all, part(4, Vec::new()));
        assert_eq!((all.lines, all.last, all.faults.len()), (13, 4, 1));
        let many = (0..500).map(|n| AuditFault { number: n, ..all.faults[0].clone() }).collect();
        joined(&mut all, part(1, many));
        assert_eq!(all.faults.len(), FAULTS_MAX);
    }
}
