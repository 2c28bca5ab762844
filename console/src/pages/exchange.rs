//! A VO as a text to take away, and the people whom it expects.

use super::vo::{self, Head};
use crate::live::{self, Part};
use crate::view::{Frame, When, list_text, page};
use crate::visit::{Reply, Shown, Stop, Visit, done};
use askama::Template;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use xos_api::vom::{
    ExpectedPerson, ExportLine, ExportPage, ExportVo, ForgetExpected, ListExpected,
};
use xos_base::{Error, PersonId};

/// People in one part of the list.
const LIST_MAX: u32 = 100;
/// How long an export may take. Each part is asked for anew, as the person who one is then.
const EXPORT_LIFE_MAX: Duration = Duration::from_secs(30 * 60);
/// Most parts of an export that wait for the browser.
const WAITING_MAX: usize = 2;

#[derive(Template)]
#[template(path = "expected.html")]
struct View {
    frame: Frame,
    head: Head,
    people: Vec<Row>,
    next: Option<String>,
}

struct Row {
    person: String,
    groups: String,
    roles: String,
    expires: Option<When>,
}

impl From<ExpectedPerson> for Row {
    fn from(p: ExpectedPerson) -> Row {
        Row {
            person: p.person.to_string(),
            groups: list_text(&p.groups),
            roles: list_text(&p.roles),
            expires: p.expires.map(When::from),
        }
    }
}

/// Who is a member as soon as they apply.
pub(crate) async fn expected(visit: Visit) -> Shown {
    let info = vo::info_at_home(&visit).await?;
    let vo = visit.vo()?;
    let after = visit.query.id_if("after")?;
    let ask = ListExpected { vo: vo.clone(), after, limit: Some(LIST_MAX) };
    let part = visit.ask_home(&vo, ask).await?;
    let frame = Frame::of(&visit, &format!("Who is expected in {vo}"), "vos").await;
    page(&View {
        frame,
        head: Head::new(&info, "members"),
        people: part.people.into_iter().map(Row::from).collect(),
        next: part.next.map(|p| p.to_string()),
    })
}

/// Expects somebody no longer.
pub(crate) async fn forget(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let people: Vec<PersonId> = visit.form.ids("person")?;
    let notice = format!("No longer expected: {}.", list_text(&people));
    visit.ask_home(&vo, ForgetExpected { vo: vo.clone(), people }).await?;
    done(&visit, format!("/vo/{vo}/expected"), notice)
}

/// The export of a VO, as a file.
pub(crate) async fn export(visit: Visit) -> Shown {
    let vo = visit.vo()?;
    let ask = ExportVo { vo: vo.clone(), after: None, log: visit.query.text("log") == "1" };
    // The first part decides whether there is a file or a page that says why not.
    let first = visit.ask_home(&vo, ask.clone()).await?;
    let place = live::place(&visit)?;
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let visit = Arc::new(visit);
    visit.clone().console.runtime.spawn(async move {
        feed(visit, ask, first, sender).await;
        drop(place);
    });
    Ok(Reply::File { name: format!("{vo}.jsonl"), body: live::whole(receiver) })
}

/// Feeds an export until it, the session or its time is over. What ends without [`Part::End`] is
/// seen by the browser as broken off.
async fn feed(visit: Arc<Visit>, ask: ExportVo, first: ExportPage, to: mpsc::Sender<Part>) {
    let vo = ask.vo.clone();
    let ended = tokio::select! {
        ended = pour(&visit, ask, first, &to) => ended,
        () = visit.session.ended() => Err(Stop::SignedOut),
        () = to.closed() => return,
        () = tokio::time::sleep(EXPORT_LIFE_MAX) => {
            Err(Error::limited(format!("it took longer than {EXPORT_LIFE_MAX:?}")).into())
        }
    };
    if let Err(stop) = ended {
        tracing::info!(person = %visit.session.person, %vo, ?stop, "an export broke off");
    }
}

/// Sends a part and those that follow it, each asked for when the one before is on its way.
async fn pour(
    visit: &Visit,
    mut ask: ExportVo,
    mut part: ExportPage,
    to: &mpsc::Sender<Part>,
) -> Result<(), Stop> {
    let gone = |_| Error::unavailable("the browser went away");
    loop {
        let text = written(&part.lines)?;
        if !text.is_empty() {
            to.send(Part::Bytes(Bytes::from(text))).await.map_err(gone)?;
        }
        ask.after = part.next;
        if ask.after.is_none() {
            to.send(Part::End).await.map_err(gone)?;
            return Ok(());
        }
        if !visit.session.lives(visit.console.clock.now()) {
            return Err(Stop::SignedOut);
        }
        part = visit.ask_home(&ask.vo, ask.clone()).await?;
    }
}

/// Lines as the file has them: a JSON object each.
fn written(lines: &[ExportLine]) -> Result<String, Error> {
    let mut text = String::new();
    for line in lines {
        let json = serde_json::to_string(line)
            .map_err(|e| Error::internal(format!("a line of an export cannot be written: {e}")))?;
        text.push_str(&json);
        text.push('\n');
    }
    Ok(text)
}
