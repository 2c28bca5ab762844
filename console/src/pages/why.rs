//! Why somebody can sign in to a node, or cannot; why a job waits is told on the job's own page.

use crate::view::{Badge, Frame, page, sentence};
use crate::visit::{Reply, Shown, Stop, Visit};
use askama::Template;
use xos_api::vom::{WhyLogin, WhyOutcome, WhyPlace, WhyStep};
use xos_base::{Error, JobId, Kind, NodeId, PersonId, SiteId, VoId};

#[derive(Template)]
#[template(path = "why.html")]
struct View {
    frame: Frame,
    vo: String,
    node: String,
    person: String,
    asked: bool,
    /// The first step that failed.
    reason: Option<Row>,
    steps: Vec<Row>,
}

struct Row {
    outcome: Badge,
    at: &'static str,
    what: String,
    text: String,
    hint: Option<String>,
}

/// The form, and the answer once it was asked.
pub(crate) async fn show(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    if let Some(job) = visit.query.id_if::<JobId>("job")? {
        return Ok(Reply::Elsewhere(format!("/vo/{vo}/job/{job}")));
    }
    let node = visit.query.id_if::<NodeId>("node")?;
    let person = visit.query.id_if::<PersonId>("person")?;
    let steps = match &node {
        Some(node) => chain(&visit, &vo, node, person.clone()).await?,
        None => Vec::new(),
    };
    let frame = Frame::of(&visit, &format!("Why not? {vo}"), "vos").await;
    let failed = steps.iter().find(|step| step.outcome == WhyOutcome::Failed);
    page(&View {
        frame,
        vo: vo.to_string(),
        asked: node.is_some(),
        node: node.map(|n| n.to_string()).unwrap_or_default(),
        person: person.map(|p| p.to_string()).unwrap_or_default(),
        reason: failed.map(row),
        steps: steps.iter().map(row).collect(),
    })
}

/// What the VO's home says, then the node's site.
async fn chain(
    visit: &Visit,
    vo: &VoId,
    node: &NodeId,
    person: Option<PersonId>,
) -> Result<Vec<WhyStep>, Stop> {
    let ask = WhyLogin { vo: vo.clone(), person, node: node.clone() };
    let mut steps = part(visit, WhyPlace::Home, &vo.site(), ask.clone()).await?;
    if node.site() != vo.site() {
        steps.extend(part(visit, WhyPlace::Site, &node.site(), ask).await?);
    }
    Ok(steps)
}

async fn part(
    visit: &Visit,
    at: WhyPlace,
    site: &SiteId,
    ask: WhyLogin,
) -> Result<Vec<WhyStep>, Stop> {
    match visit.ask_site(site, ask).await {
        Ok(answer) => Ok(answer.steps),
        Err(Stop::Failed(e)) => Ok(vec![refused(at, &e)]),
        Err(stop) => Err(stop),
    }
}

/// A core that says no is a reason; one that does not answer is none.
fn refused(at: WhyPlace, e: &Error) -> WhyStep {
    let step = match e.kind {
        Kind::Unavailable | Kind::Internal | Kind::Limited => {
            WhyStep::unknown(at, "answer", &e.message)
        }
        _ => WhyStep::failed(at, "answer", &e.message),
    };
    match &e.hint {
        Some(hint) => step.hint(hint),
        None => step,
    }
}

fn row(step: &WhyStep) -> Row {
    Row {
        outcome: step.outcome.into(),
        at: step.at.word(),
        what: step.what.clone(),
        text: sentence(&step.text),
        hint: step.hint.as_deref().map(sentence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a site that is away would pass for one that keeps somebody out.
    #[test]
    fn who_does_not_answer_gives_no_reason() {
        let away = refused(WhyPlace::Site, &Error::unavailable("pisa does not answer"));
        assert_eq!(away.outcome, WhyOutcome::Unknown);
        let no = refused(WhyPlace::Home, &Error::denied("you may not").hint("ask vera"));
        assert_eq!((no.outcome, no.hint.as_deref()), (WhyOutcome::Failed, Some("ask vera")));
    }
}
