//! `xos audit verify`, `xos audit heads`.

use super::TAMPERED_STATUS;
use crate::cli::output::{Failure, Outcome, Style, Table, clean, fields, list, when};
use crate::cli::session::Session;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use xos_api::audit::{AuditCheck, AuditHeads, FaultKind, HeadsOf, VerifyAudit};
use xos_base::{Error, Millis};
use xos_net::sign::Kind;
use xos_vom::audit::{FAULTS_MAX, Witness, reread, verify_folder, witnesses};

/// Largest file of heads that is read, in bytes.
const HEADS_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// `xos audit verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos audit verify                                      ask the core (site administrators)
  xos audit verify --dir /var/lib/xos/audit             on the core itself, or of a copy
  xos audit verify --dir copy/audit --heads heads.json

Exit code 79: something was tampered with, or is damaged. Without heads of other sites a tail that \
was cut off, or a whole record that was written anew, does not show.")]
pub struct Verify {
    /// Read this folder instead of asking the core.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// What other sites witnessed: the output of `xos audit heads --json`.
    #[arg(long, value_name = "FILE", requires = "dir")]
    heads: Option<PathBuf>,
}

/// Verifies.
///
/// # Errors
/// What the core says, or the disk.
pub async fn verify(s: &Session, args: Verify) -> Outcome {
    let check = match &args.dir {
        Some(dir) => folder(s, dir, args.heads.as_deref())?,
        None => running(s).await?,
    };
    s.out.show(&check, || told(&check))?;
    if !check.silent.is_empty() {
        let text = format!("these sites did not say what they witnessed: {}", list(&check.silent));
        s.out.warn(&Error::unavailable(text).hint("verify again when they can be reached"))?;
    }
    if check.unverified > 0 {
        let text = format!(
            "{} heads that came are not signed by site {} and were not compared",
            check.unverified, check.site
        );
        s.out
            .warn(&Error::unauthenticated(text).hint("a site that tells such heads is at fault"))?;
    }
    if check.heads == 0 {
        s.out.note("No other site's word was compared: a tail that was cut off does not show.")?;
    }
    Ok(if check.faults.is_empty() { 0 } else { TAMPERED_STATUS })
}

async fn running(s: &Session) -> Result<AuditCheck, Error> {
    let core = s.person(&s.site()?).await?;
    let mut all = core.call(VerifyAudit { from: None }).await?;
    while let Some(from) = all.next.take() {
        let known = from.number;
        let more = core.call(VerifyAudit { from: Some(from) }).await?;
        if more.next.as_ref().is_some_and(|next| next.number <= known) {
            return Err(Error::internal("the core does not come to the audit's end"));
        }
        all.lines = all.lines.saturating_add(more.lines);
        // Each part is compared with the heads of its own lines.
        all.heads = all.heads.saturating_add(more.heads);
        (all.last, all.witnessed) = (more.last, all.witnessed.max(more.witnessed));
        all.unverified = all.unverified.saturating_add(more.unverified);
        all.faults.extend(more.faults);
        all.faults.truncate(FAULTS_MAX);
        all.silent.extend(more.silent);
        all.silent.sort_unstable();
        all.silent.dedup();
        all.next = more.next;
    }
    Ok(all)
}

fn folder(s: &Session, dir: &Path, heads: Option<&Path>) -> Result<AuditCheck, Failure> {
    let Some(path) = heads else { return Ok(verify_folder(dir, None, &[])?) };
    let heads = read(path)?;
    let trust = s.trust()?;
    let known = trust.descriptor(&heads.site).is_ok();
    let (seen, refused): (Vec<Witness>, usize) = witnesses(&heads, |statement| {
        if known {
            trust.verify(Kind::AuditHead, statement, &heads.site).ok()
        } else {
            reread(statement)
        }
    });
    if refused > 0 && seen.is_empty() {
        return Err(Error::invalid(format!(
            "none of the {refused} heads in {} is signed by site {}",
            path.display(),
            heads.site
        ))
        .hint("get them anew: xos audit heads --json; if the site has new keys: xos site add")
        .into());
    }
    if !known {
        let text = format!("the signatures in {} were not checked", path.display());
        let why = format!("this computer does not know site {}: xos site add", heads.site);
        s.out.warn(&Error::unsupported(text).hint(why))?;
    }
    let mut check = verify_folder(dir, Some(heads.site), &seen)?;
    check.unverified = (refused as u64).saturating_add(heads.unverified);
    check.silent = heads.silent;
    Ok(check)
}

fn read(path: &Path) -> Result<AuditHeads, Error> {
    let failed = |e: &dyn std::fmt::Display| {
        Error::invalid(format!("cannot read {}: {e}", path.display()))
            .hint("xos audit heads --json writes such a file")
    };
    let bytes = std::fs::metadata(path).map_err(|e| failed(&e))?.len();
    if bytes > HEADS_BYTES_MAX {
        return Err(failed(&format!("it is over {HEADS_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| failed(&e))?;
    serde_json::from_str(&text).map_err(|e| failed(&e))
}

fn told(check: &AuditCheck) -> String {
    let whole = check.faults.is_empty();
    let state = if whole { Style::Good.mark("whole") } else { Style::Bad.mark("tampered with") };
    let mut said = vec![
        ("audit of", check.site.to_string()),
        ("state", state),
        ("lines", check.lines.to_string()),
        ("last line", check.last.to_string()),
        ("witnessed up to line", check.witnessed.to_string()),
    ];
    if check.archived > 0 {
        said.push(("in an archive up to line", check.archived.to_string()));
    }
    if check.unverified > 0 {
        said.push(("heads not verified", check.unverified.to_string()));
    }
    let mut text = fields(&said);
    if !whole {
        let mut table = Table::new(&["FILE", "LINE", "FAULT", "DETAIL"]);
        for f in &check.faults {
            let (file, detail) = (clean(&f.file), clean(&f.detail));
            table.row([file, f.number.to_string(), kind(f.kind).to_owned(), detail]);
        }
        text.push_str(&format!("\n\n{}", table.text("")));
    }
    text
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

/// Shows what other sites hold.
///
/// # Errors
/// What the core says.
pub async fn heads(s: &Session) -> Outcome {
    let site = s.site()?;
    let core = s.person(&site).await?;
    let mut heads = core.call(HeadsOf { site: site.clone(), after: None }).await?;
    let mut known = 0;
    while let Some(after) = heads.next.take() {
        if after <= known {
            return Err(Error::internal("the core does not come to the last head").into());
        }
        known = after;
        let more = core.call(HeadsOf { site: site.clone(), after: Some(after) }).await?;
        heads.held.extend(more.held);
        heads.silent.extend(more.silent);
        heads.unverified = heads.unverified.saturating_add(more.unverified);
        heads.next = more.next;
    }
    heads.silent.sort_unstable();
    heads.silent.dedup();
    s.out.show(&heads, || heads_table(&heads, s.now()))?;
    if !heads.silent.is_empty() {
        let text = format!("these sites did not answer: {}", list(&heads.silent));
        s.out.warn(&Error::unavailable(text))?;
    }
    Ok(0)
}

fn heads_table(heads: &AuditHeads, now: Millis) -> String {
    let mut table = Table::new(&["HELD BY", "LINE", "SIGNED", "HEARD"]);
    // Of each the newest comes first.
    let mut shown = BTreeSet::new();
    for held in heads.held.iter().filter(|h| shown.insert(&h.by)) {
        let Some(head) = reread(&held.statement) else { continue };
        let (signed, heard) = (when(head.time, now), when(held.heard, now));
        table.row([held.by.to_string(), head.number.to_string(), signed, heard]);
    }
    table.text("No other site holds a head of this audit yet.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_api::audit::AuditFault;

    /// If it failed, a script would take an audit that was tampered with for whole, or a person
    /// could not tell where.
    #[test]
    fn a_fault_is_told_with_its_place() {
        let mut check = AuditCheck {
            site: "rennes".parse().unwrap(),
            lines: 9,
            last: 9,
            faults: Vec::new(),
            archived: 0,
            heads: 1,
            witnessed: 7,
            unverified: 0,
            silent: Vec::new(),
            next: None,
        };
        let text = told(&check);
        assert!(text.contains("whole") && !text.contains("not verified"), "{text}");
        (check.unverified, check.archived) = (3, 2);
        let text = told(&check);
        assert!(text.contains("not verified") && text.contains("archive"), "{text}");
        check.faults.push(AuditFault {
            file: "00000000000000000001.jsonl".into(),
            number: 5,
            kind: FaultKind::Altered,
            detail: "line 6 follows another line 5".into(),
        });
        let text = told(&check);
        let place = ["00000000000000000001.jsonl", "5", "altered"];
        assert!(!text.contains("whole") && place.iter().all(|p| text.contains(p)), "{text}");
    }

    #[test]
    fn a_file_that_holds_no_heads_is_refused_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heads.json");
        std::fs::write(&path, "{}").unwrap();
        let e = read(&path).unwrap_err();
        assert!(e.message.contains("heads.json"), "{e}");
    }
}
