//! What a unit wrote: the end of it on a page, all of it as a file.

use super::sign_in::kindly;
use crate::live::{self, Part};
use crate::view::{Frame, bytes_text, page};
use crate::visit::{Reply, Shown, Stop, Visit};
use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use xos_api::aem::{OUTPUT_PART_MAX, OutputStream, ReadOutput};
use xos_base::{Error, UnitId, VoId};
use xos_net::{Caller, Grid};

/// How much of the end of an output a page shows, in bytes.
const TAIL: u32 = 64 * 1024;
/// Longest output whose end is looked for, in bytes.
const LENGTH_MAX: u64 = 1 << 40;
/// How exactly the end is found, in bytes.
const NEAR: u64 = 4 * 1024;
/// Most bytes of one download.
const DOWNLOAD_MAX: u64 = 16 << 30;
/// How long a download may take. Each part is asked for anew, as the member who one is then.
const DOWNLOAD_LIFE_MAX: Duration = Duration::from_secs(30 * 60);
/// Most parts of a download that wait for the browser.
const WAITING_MAX: usize = 2;

/// The end of one stream, for a page.
pub(crate) struct Tail {
    /// `stdout` or `stderr`.
    pub(crate) stream: &'static str,
    pub(crate) label: &'static str,
    pub(crate) vo: String,
    pub(crate) unit: String,
    pub(crate) text: String,
    /// What is left out before the text.
    pub(crate) cut: Option<String>,
    /// Why there is no text.
    pub(crate) trouble: Option<String>,
}

#[derive(Template)]
#[template(path = "unit.html")]
struct View {
    frame: Frame,
    vo: String,
    job: String,
    unit: String,
    outputs: Vec<Tail>,
}

/// The page with a unit's output.
pub(crate) async fn show(visit: Visit) -> Shown {
    let (vo, unit) = (visit.vo()?, visit.place::<UnitId>("unit")?);
    let mut outputs = Vec::new();
    for stream in [OutputStream::Stdout, OutputStream::Stderr] {
        outputs.push(tail(&visit, &vo, &unit, stream).await?);
    }
    page(&View {
        frame: Frame::of(&visit, &format!("Output of unit {unit}"), "jobs").await,
        vo: vo.to_string(),
        job: unit.job.to_string(),
        unit: unit.to_string(),
        outputs,
    })
}

/// The end of what a unit wrote to a stream. That it cannot be read does not stop a page.
pub(crate) async fn tail(
    visit: &Visit,
    vo: &VoId,
    unit: &UnitId,
    stream: OutputStream,
) -> Result<Tail, Stop> {
    let source = Source {
        grid: visit.console.grid.clone(),
        caller: visit.member(vo).await?,
        unit: unit.clone(),
        stream,
    };
    let (stream, label) = match stream {
        OutputStream::Stdout => ("stdout", "Standard output"),
        OutputStream::Stderr => ("stderr", "Standard error"),
    };
    let (text, cut, trouble) = match source.end().await {
        Ok((bytes, 0)) => (readable(&bytes), None, None),
        Ok((bytes, before)) => (readable(&bytes), Some(bytes_text(before)), None),
        Err(e) => (String::new(), None, Some(kindly(&e))),
    };
    let (vo, unit) = (vo.to_string(), unit.to_string());
    Ok(Tail { stream, label, vo, unit, text, cut, trouble })
}

/// One stream of a unit.
struct Source {
    grid: Grid,
    caller: Caller,
    unit: UnitId,
    stream: OutputStream,
}

impl Source {
    /// Bytes from `offset`, and whether nothing follows; without what is nowhere any more.
    async fn read(&self, offset: u64, limit: u32) -> Result<(Vec<u8>, bool), Error> {
        let (_, bytes, eof) = self.part(offset, limit).await?;
        Ok((bytes, eof))
    }

    /// The same of an output that is to be whole.
    async fn whole(&self, offset: u64, limit: u32) -> Result<(Vec<u8>, bool), Error> {
        let (from, bytes, eof) = self.part(offset, limit).await?;
        if from.is_some_and(|from| from > offset) {
            let text = format!("its bytes from {offset} on are not kept any more");
            return Err(Error::not_found(text).hint("`xout` prints what is left"));
        }
        Ok((bytes, eof))
    }

    /// Bytes, from where on they are when not from `offset`, and whether nothing follows.
    async fn part(&self, offset: u64, limit: u32) -> Result<(Option<u64>, Vec<u8>, bool), Error> {
        let ask =
            ReadOutput { unit: self.unit.clone(), stream: self.stream, offset, limit: Some(limit) };
        let part = self.grid.local(self.caller.clone(), ask).await?;
        let bytes = STANDARD
            .decode(&part.data)
            .map_err(|_| Error::internal("the node sent output that is no base64"))?;
        Ok((part.from, bytes, part.eof))
    }

    /// The last [`TAIL`] bytes or so, and how many stand before them. The API tells no length,
    /// so the end is looked for by doubling and halving.
    async fn end(&self) -> Result<(Vec<u8>, u64), Error> {
        let (first, eof) = self.read(0, TAIL).await?;
        if eof || first.len() < TAIL as usize {
            return Ok((first, 0));
        }
        // There is something at every place up to `low`, and nothing at `high`.
        let (mut low, mut high) = (u64::from(TAIL) - 1, u64::from(TAIL) * 2);
        while high < LENGTH_MAX && self.reaches(high).await? {
            (low, high) = (high, high * 2);
        }
        while high - low > NEAR {
            let middle = low + (high - low) / 2;
            if self.reaches(middle).await? { low = middle } else { high = middle }
        }
        let from = high.saturating_sub(u64::from(TAIL));
        let (bytes, _) = self.read(from, TAIL).await?;
        Ok((bytes, from))
    }

    async fn reaches(&self, offset: u64) -> Result<bool, Error> {
        Ok(!self.read(offset, 1).await?.0.is_empty())
    }
}

/// Sends all that `read` gives from an offset on, as far as there is any yet, and that it was all;
/// at most `limit` bytes.
async fn pour<F>(
    sender: &mpsc::Sender<Part>,
    limit: u64,
    mut read: impl FnMut(u64) -> F,
) -> Result<(), Error>
where
    F: Future<Output = Result<(Vec<u8>, bool), Error>>,
{
    let gone = |_| Error::unavailable("the browser went away");
    let mut offset = 0;
    loop {
        let (bytes, eof) = read(offset).await?;
        let empty = bytes.is_empty();
        if !empty {
            offset += bytes.len() as u64;
            if offset > limit {
                return Err(Error::too_large(format!("more than {limit} bytes"))
                    .hint("`xout` prints all of it"));
            }
            sender.send(Part::Bytes(Bytes::from(bytes))).await.map_err(gone)?;
        }
        if eof || empty {
            return sender.send(Part::End).await.map_err(gone);
        }
    }
}

/// Feeds a download until it, the session or its time is over. What ends without
/// [`Part::End`] is seen by the browser as broken off, never as a complete file.
async fn feed(
    visit: Arc<Visit>,
    vo: VoId,
    unit: UnitId,
    stream: OutputStream,
    to: mpsc::Sender<Part>,
) {
    let read = |offset| {
        let (visit, vo, unit) = (visit.clone(), vo.clone(), unit.clone());
        async move {
            if !visit.session.lives(visit.console.clock.now()) {
                return Err(over());
            }
            let caller = visit.member(&vo).await.map_err(|stop| match stop {
                Stop::Failed(e) => e,
                Stop::SignedOut | Stop::NoSuchPage => over(),
            })?;
            let source = Source { grid: visit.console.grid.clone(), caller, unit, stream };
            source.whole(offset, OUTPUT_PART_MAX).await
        }
    };
    let ended = tokio::select! {
        ended = pour(&to, DOWNLOAD_MAX, read) => ended,
        () = visit.session.ended() => Err(over()),
        () = to.closed() => return,
        () = tokio::time::sleep(DOWNLOAD_LIFE_MAX) => {
            Err(Error::limited(format!("it took longer than {DOWNLOAD_LIFE_MAX:?}")))
        }
    };
    if let Err(e) = ended {
        tracing::info!(person = %visit.session.person, %unit, error = %e, "a download broke off");
    }
}

fn over() -> Error {
    Error::unauthenticated("the session is over")
}

/// Output as text: what is no UTF-8, and what would move a terminal, becomes a replacement sign.
fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let sign = |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c };
    text.chars().map(sign).collect()
}

/// All of a stream, as a file.
pub(crate) async fn download(visit: Visit) -> Shown {
    let (vo, unit) = (visit.vo()?, visit.place::<UnitId>("unit")?);
    let (stream, name) = match visit.places.iter().find(|(k, _)| k == "stream") {
        Some((_, s)) if s == "stdout" => (OutputStream::Stdout, "stdout"),
        Some((_, s)) if s == "stderr" => (OutputStream::Stderr, "stderr"),
        _ => return Err(Stop::NoSuchPage),
    };
    let caller = visit.member(&vo).await?;
    let source = Source { grid: visit.console.grid.clone(), caller, unit: unit.clone(), stream };
    // The first answer decides whether there is a file or a page that says why not.
    source.whole(0, 1).await?;
    let place = live::place(&visit)?;
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let file = format!("{}-{}.{name}.txt", unit.job, unit.index);
    let visit = Arc::new(visit);
    visit.clone().console.runtime.spawn(async move {
        feed(visit, vo, unit, stream, sender).await;
        drop(place);
    });
    Ok(Reply::File { name: file, body: live::whole(receiver) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    /// What a browser gets of a download of `output` in parts of `part` bytes, of which at most
    /// `limit` are sent: the bytes, and whether it takes them for all.
    async fn downloaded(output: &[u8], part: usize, limit: u64) -> (Vec<u8>, bool) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let read = |offset: u64| {
            let from = usize::try_from(offset).unwrap();
            let to = (from + part).min(output.len());
            let answer = match output[from..to].to_vec() {
                lost if lost.contains(&b'!') => Err(Error::unavailable("the node went away")),
                bytes => Ok((bytes, to == output.len())),
            };
            std::future::ready(answer)
        };
        let sending = async {
            let sent = pour(&sender, limit, read).await;
            drop(sender);
            sent
        };
        let taking = live::whole(receiver).collect::<Vec<_>>();
        let (sent, items) = tokio::join!(sending, taking);
        let complete = items.iter().all(Result::is_ok);
        assert_eq!(sent.is_ok(), complete, "{sent:?}");
        assert!(items.iter().rev().skip(1).all(Result::is_ok), "something follows the failure");
        (items.into_iter().flatten().flatten().collect(), complete)
    }

    /// If it failed, a browser would keep a part of an output as if it were all of it.
    #[tokio::test]
    async fn a_download_that_is_cut_is_seen_to_be_broken() {
        assert_eq!(downloaded(b"", 2, 10).await, (vec![], true));
        assert_eq!(downloaded(b"abcdef", 2, 6).await, (b"abcdef".to_vec(), true));
        assert_eq!(downloaded(b"abcdef", 2, 5).await, (b"abcd".to_vec(), false));
        assert_eq!(downloaded(b"abcd!f", 2, 10).await, (b"abcd".to_vec(), false));
        // As when the task that feeds it ends for any reason.
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        sender.send(Part::Bytes(Bytes::from_static(b"ab"))).await.unwrap();
        drop(sender);
        let items: Vec<_> = live::whole(receiver).collect().await;
        assert!(items[0].is_ok() && items[1].is_err() && items.len() == 2, "{items:?}");
    }

    #[test]
    fn output_becomes_harmless_text() {
        assert_eq!(readable(b"a\r\nb\t\xff\x1b[2J\0"), "a\nb\t\u{fffd}\u{fffd}[2J\u{fffd}");
    }
}
