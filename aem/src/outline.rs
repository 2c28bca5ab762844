//! Whether a person asked for what a site is to run: the digest that they signed.
//!
//! The digest is SHA-256 over `xos-job/1`, a line feed, and the job's [`Outline`] as JSON without
//! white space; in the outline stands for each task SHA-256 over `xos-task/1`, a line feed, and the
//! task as JSON without white space. The JSON is that of `serde_json`, members in the order of the
//! types, absent ones left out.

use serde::Serialize;
use xos_api::aem::{HostUnits, JobSpec, Outline, TaskDigest, TaskSpec};
use xos_base::{Error, SiteId};

fn hash(kind: &str, value: &impl Serialize) -> Result<String, Error> {
    let mut bytes = format!("{kind}\n").into_bytes();
    serde_json::to_writer(&mut bytes, value)
        .map_err(|e| Error::internal(format!("cannot encode the job: {e}")))?;
    Ok(xos_net::identity::hex(&xos_net::identity::sha256(&bytes)))
}

fn task_digest(task: &TaskSpec) -> Result<TaskDigest, Error> {
    Ok(TaskDigest { digest: hash("xos-task/1", task)?, units: task.array.len() })
}

/// The outline of a job's description.
///
/// # Errors
/// [`xos_base::Kind::Internal`] when it cannot be encoded.
pub fn outline(spec: &JobSpec) -> Result<Outline, Error> {
    Ok(Outline {
        vo: spec.vo.clone(),
        name: spec.name.clone(),
        tasks: spec.tasks.iter().map(task_digest).collect::<Result<_, _>>()?,
        after_jobs: spec.after_jobs.clone(),
        sites: spec.sites.clone(),
    })
}

/// The digest of a job's description that a signed submission names, 64 hexadecimal digits.
///
/// # Errors
/// [`xos_base::Kind::Internal`] when it cannot be encoded.
pub fn digest(spec: &JobSpec) -> Result<String, Error> {
    hash("xos-job/1", &outline(spec)?)
}

/// Whether what `offer` asks of the site `own` is part of the job whose digest the person signed.
///
/// # Errors
/// What is not, as a sentence.
pub(crate) fn check(offer: &HostUnits, signed: &str, own: &SiteId) -> Result<(), String> {
    let broken = |e: Error| e.to_string();
    let o = &offer.outline;
    if hash("xos-job/1", o).map_err(broken)? != signed {
        return Err("the person signed another job".into());
    }
    if o.vo != offer.vo {
        return Err(format!("the person signed a job of {}", o.vo));
    }
    if !o.sites.is_empty() && !o.sites.contains(own) {
        return Err(format!("the person did not name {own} among the sites of the job"));
    }
    let place = usize::from(offer.task);
    let before = o.tasks.iter().take(place).fold(0u32, |n, t| n.saturating_add(t.units));
    let signed = o.tasks.get(place).ok_or("the person signed a job with fewer tasks")?;
    if task_digest(&offer.spec).map_err(broken)? != *signed {
        return Err(format!("the person signed another task than {}", offer.spec.name));
    }
    if offer.task_first != before {
        return Err(format!("the units of task {} begin at {before}", offer.spec.name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    /// The digest is a wire format: old clients sign it, other sites compare it.
    #[test]
    fn the_digest_of_a_job_stays_what_it_is() {
        let spec = testing::spec(&[("main", "0-3", &[]), ("merge", "0", &["main"])]);
        let o = outline(&spec).unwrap();
        let text = format!("{}\n{}\n", serde_json::to_string(&o).unwrap(), digest(&spec).unwrap());
        crate::golden::check("outline.txt", &text);
    }
}
