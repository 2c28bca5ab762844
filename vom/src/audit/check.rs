//! Verifying the files of an audit: of a running core some at a time, of a folder all.

use super::files::{self, Archived, Segment, scan};
use super::look::line_from;
use super::walk::{FAULTS_MAX, Walk, Witness};
use std::path::Path;
use xos_api::audit::{AuditCheck, AuditPlace, Line};
use xos_base::{Error, SiteId};

/// Most files that one request verifies.
pub const FILES_MAX: usize = 16;

/// Where among `files` a part begins.
fn begin(files: &[Segment], from: Option<&AuditPlace>) -> Result<usize, Error> {
    let Some(place) = from else { return Ok(0) };
    files.iter().position(|f| f.name() == place.file).ok_or_else(|| {
        Error::not_found("the audit has no such file").hint("verify from the beginning")
    })
}

/// The number of the first line behind the part of `files` that begins at `from`; `None`: it is the
/// last part.
///
/// # Errors
/// [`xos_base::Kind::NotFound`] when there is no such place.
pub(super) fn beyond(files: &[Segment], from: Option<&AuditPlace>) -> Result<Option<u64>, Error> {
    Ok(files.get(begin(files, from)?.saturating_add(FILES_MAX)).map(|f| f.first))
}

/// Verifies at most [`FILES_MAX`] of `files`, from `from` on, or behind what was `archived`.
pub(super) fn some_files(
    site: &SiteId,
    (files, archived): (&[Segment], Option<&Archived>),
    from: Option<&AuditPlace>,
    witnesses: Vec<Witness>,
) -> Result<AuditCheck, Error> {
    let others = witnesses.iter().filter(|w| w.by != *site);
    let witnessed = others.clone().map(|w| w.number).max().unwrap_or(0);
    let heads = others.count() as u64;
    let at = begin(files, from)?;
    let mut walk = match (from, archived) {
        (None, None) => Walk::begin(site.clone(), 1, Some(String::new()), witnesses),
        (None, Some(a)) => {
            let mut walk = Walk::begin(site.clone(), a.number, None, witnesses);
            walk.archived(files::ARCHIVED, a.number, &a.hash);
            walk
        }
        (Some(place), _) => {
            let prev = (!place.prev.is_empty()).then(|| place.prev.clone());
            Walk::begin(site.clone(), place.number, prev, witnesses)
        }
    };
    let mut next = None;
    for (done, segment) in files.iter().skip(at).enumerate() {
        if done == FILES_MAX {
            let (number, prev) = walk.due();
            let prev = prev.unwrap_or_default().to_owned();
            next = Some(AuditPlace { file: segment.name(), number, prev });
            break;
        }
        let scanned = scan(segment, &mut walk, |_| {})?;
        // At the very end it may be a line that is being written.
        if scanned.torn && at + done + 1 < files.len() {
            walk.half_a_line();
        }
    }
    if next.is_none() {
        walk.end();
    }
    let (lines, _) = walk.counts();
    let (site, last) = (site.clone(), walk.highest());
    let (faults, archived) = (walk.into_faults(), archived.map_or(0, |a| a.number));
    let (unverified, silent) = (0, Vec::new());
    Ok(AuditCheck {
        site,
        lines,
        last,
        faults,
        archived,
        heads,
        witnessed,
        unverified,
        silent,
        next,
    })
}

/// Verifies the audit in a folder: a copy, or one whose core does not run. `site` is whose it
/// should be, if that is known. Blocks: reads all files.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] when it is no such folder; those of the system.
pub fn verify_folder(
    dir: &Path,
    site: Option<SiteId>,
    witnesses: &[Witness],
) -> Result<AuditCheck, Error> {
    let files = files::list(dir)?;
    let site = match site {
        Some(site) => site,
        None => whose(dir, &files)?,
    };
    let archived = files::read_archived(dir)?;
    let files = (files.as_slice(), archived.as_ref());
    let mut all = some_files(&site, files, None, witnesses.to_vec())?;
    while let Some(from) = all.next.take() {
        let more = some_files(&site, files, Some(&from), witnesses.to_vec())?;
        all.lines += more.lines;
        all.last = more.last;
        all.next = more.next;
        all.faults.extend(more.faults);
        all.faults.truncate(FAULTS_MAX);
    }
    Ok(all)
}

/// The site that the first line names which can be read.
fn whose(dir: &Path, files: &[Segment]) -> Result<SiteId, Error> {
    for file in files {
        let first =
            line_from(&file.path, 0, file.len).map_err(|e| files::failed(&file.path, &e))?;
        let line = first.and_then(|(_, line)| serde_json::from_slice::<Line>(&line).ok());
        if let Some(line) = line {
            return Ok(line.site);
        }
    }
    Err(Error::invalid(format!("{} holds no audit", dir.display()))
        .hint("name the folder audit in the core's state folder, or a copy of it"))
}
