//! Sending a job with the person's signed word.

use super::watch;
use crate::cli::member::Member;
use crate::cli::output::Outcome;
use crate::cli::session::Session;
use xos_api::aem::{JobSpec, SubmitAndWatch, SubmitJob};
use xos_api::cda::Submission;
use xos_base::Error;
use xos_net::identity::hex;

/// The person's word that they submit `spec` to `site`.
fn proof(s: &Session, member: &Member, spec: &JobSpec) -> Result<String, Error> {
    let word = Submission {
        vo: spec.vo.clone(),
        owner: member.site.clone(),
        digest: xos_aem::digest(spec)?,
        nonce: nonce()?,
        issued: s.now(),
    };
    member.credential.sign(&word)
}

fn nonce() -> Result<String, Error> {
    let mut bytes = [0_u8; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut f| std::io::Read::read_exact(&mut f, &mut bytes))
        .map_err(|e| Error::internal(format!("no random numbers: {e}")))?;
    Ok(hex(&bytes))
}

/// Nobody knows whether a submission arrived when its answer did not.
fn perhaps(e: Error) -> Error {
    match e.kind {
        xos_base::Kind::Unavailable => {
            e.hint("look with `xos job list` whether it was accepted before you submit again")
        }
        _ => e,
    }
}

/// Submits a job and prints its id.
pub async fn detached(s: &Session, member: Member, spec: JobSpec) -> Outcome {
    let request = SubmitJob { proof: Some(proof(s, &member, &spec)?), spec };
    let submitted = match member.client.call(request.clone()).await {
        Ok(submitted) => submitted,
        Err(e) => {
            let credential = s.changed(&member.credential, perhaps(e)).await?;
            let member = s.member_by(credential, &member.site)?;
            let proof = Some(proof(s, &member, &request.spec)?);
            let request = SubmitJob { proof, spec: request.spec };
            member.client.call(request).await.map_err(perhaps)?
        }
    };
    s.out.show(&submitted, || submitted.job.to_string())?;
    Ok(0)
}

/// Submits a job and gives its events; the member anew, when its certificate was replaced.
pub async fn watched(
    s: &Session,
    member: Member,
    spec: JobSpec,
) -> Result<(Member, watch::Events), Error> {
    let request = SubmitAndWatch { proof: Some(proof(s, &member, &spec)?), spec };
    match member.client.subscribe(request.clone()).await {
        Ok(events) => Ok((member, events)),
        Err(e) => {
            let credential = s.changed(&member.credential, perhaps(e)).await?;
            let member = s.member_by(credential, &member.site)?;
            let proof = Some(proof(s, &member, &request.spec)?);
            let request = SubmitAndWatch { proof, spec: request.spec };
            let events = member.client.subscribe(request).await.map_err(perhaps)?;
            Ok((member, events))
        }
    }
}
