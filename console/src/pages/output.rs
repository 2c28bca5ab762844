//! What a unit wrote: the end of it on a page, all of it as a file.

use super::sign_in::kindly;
use crate::live;
use crate::view::{Frame, bytes_text, page};
use crate::visit::{Reply, Shown, Stop, Visit};
use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
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
    /// Bytes from `offset`, and whether nothing follows.
    async fn read(&self, offset: u64, limit: u32) -> Result<(Vec<u8>, bool), Error> {
        let ask =
            ReadOutput { unit: self.unit.clone(), stream: self.stream, offset, limit: Some(limit) };
        let part = self.grid.local(self.caller.clone(), ask).await?;
        let bytes = STANDARD
            .decode(&part.data)
            .map_err(|_| Error::internal("the node sent output that is no base64"))?;
        Ok((bytes, part.eof))
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

    /// Sends all of it, as far as there is any yet.
    async fn pour(self, sender: mpsc::Sender<Result<Bytes, Error>>) {
        let mut offset = 0;
        while offset < DOWNLOAD_MAX {
            let (item, last) = match self.read(offset, OUTPUT_PART_MAX).await {
                Ok((bytes, _)) if bytes.is_empty() => return,
                Ok((bytes, eof)) => {
                    offset += bytes.len() as u64;
                    (Ok(Bytes::from(bytes)), eof)
                }
                // The browser sees a download that broke off.
                Err(e) => (Err(e), true),
            };
            if sender.send(item).await.is_err() || last {
                return;
            }
        }
    }
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
    source.read(0, 1).await?;
    let place = live::place(&visit)?;
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    visit.console.runtime.spawn(async move {
        if tokio::time::timeout(live::STREAM_LIFE_MAX, source.pour(sender)).await.is_err() {
            tracing::debug!("a download took too long");
        }
        drop(place);
    });
    let file = format!("{}-{}.{name}.txt", unit.job, unit.index);
    Ok(Reply::File { name: file, body: live::received(receiver) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_becomes_harmless_text() {
        assert_eq!(readable(b"a\r\nb\t\xff\x1b[2J\0"), "a\nb\t\u{fffd}\u{fffd}[2J\u{fffd}");
    }
}
