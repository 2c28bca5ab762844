//! `xos job output`, `xout`.

use super::{JobArg, ending};
use crate::cli::member::Member;
use crate::cli::output::{Failure, Outcome};
use crate::cli::session::Session;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::time::{Duration, Instant};
use xos_api::aem::{
    GetJob, ListUnits, OutputPart, OutputStream, ReadOutput, UnitEnd, UnitFilter, UnitState,
    UnitView,
};
use xos_base::{Error, Kind, UnitId};

/// How long to wait before a running unit is asked again for more.
const FOLLOW_PAUSE: Duration = Duration::from_millis(500);
/// How long a node or core that is away may take to come back.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait before it is asked again.
const AWAY_PAUSE: Duration = Duration::from_millis(200);
/// Most units whose output is printed one after another.
const UNITS_SHOWN_MAX: u32 = 1000;

/// `xos job output`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos job output 12.rennes
  xos job output 12.rennes:7 --stderr
  xos job output 12.rennes:7 -f")]
pub struct OutputArgs {
    /// The job, or one of its units as 12.rennes:7.
    job: JobArg,
    /// Print what was written to standard error.
    #[arg(long)]
    stderr: bool,
    /// Go on printing until the unit has ended.
    #[arg(short, long)]
    follow: bool,
}

#[derive(Serialize)]
struct UnitOutput {
    unit: UnitId,
    /// Base64, since a program may write any bytes.
    data: String,
}

/// Runs `xos job output`.
pub async fn run(s: &Session, args: OutputArgs) -> Outcome {
    let mut member = s.member_for(&args.job.job).await?;
    let units = match &args.job.unit {
        Some(unit) => vec![unit.clone()],
        None => {
            let view = member.call(s, GetJob { job: args.job.job.clone() }).await?;
            let total = view.summary.counts.total();
            if total > UNITS_SHOWN_MAX || (args.follow && total > 1) {
                return Err(Error::invalid(format!("{} has {total} units", args.job.job))
                    .hint(format!("name one, as {}", args.job.job.unit(0)))
                    .into());
            }
            (0..total).map(|i| args.job.job.unit(i)).collect()
        }
    };
    let stream = if args.stderr { OutputStream::Stderr } else { OutputStream::Stdout };
    let mut all = Vec::new();
    let mut failed = None;
    let mut heads = Heads { several: units.len() > 1, any: false };
    for unit in &units {
        let mut bytes = Vec::new();
        let mut begun = false;
        let until = if args.follow { Until::End } else { Until::Now };
        let ended = read(s, &mut member, unit, stream, until, |part| {
            if s.out.json {
                bytes.extend_from_slice(part);
                return Ok(());
            }
            if !part.is_empty() && !std::mem::replace(&mut begun, true) {
                heads.print(s, unit)?;
            }
            s.out.bytes(part)
        })
        .await;
        match ended {
            // One unit's loss hides no other's output.
            Err(Failure::Error(e)) if units.len() > 1 => {
                if !begun {
                    heads.print(s, unit)?;
                }
                s.out.warn(&e)?;
                failed.get_or_insert(e.kind.exit_code());
            }
            other => other?,
        }
        if s.out.json {
            all.push(UnitOutput { unit: unit.clone(), data: STANDARD.encode(&bytes) });
        }
    }
    if s.out.json {
        s.out.value(&all)?;
    }
    if !heads.any {
        s.out.note(&nothing(&args))?;
        if let Some(why) = not_started(s, &mut member, &args.job).await {
            s.out.note(&why)?;
        }
    }
    Ok(failed.unwrap_or(0))
}

/// Why the first unit that failed was not started, if that is why there is nothing.
async fn not_started(s: &Session, member: &mut Member, of: &JobArg) -> Option<String> {
    let from = of.unit.as_ref().map(|unit| unit.index.0);
    let (job, filter) = (of.job.clone(), UnitFilter::Failed);
    let page = member.call(s, ListUnits { job, filter, from, limit: Some(1) }).await.ok()?;
    let first = page.units.first()?;
    let meant = of.unit.as_ref().is_none_or(|unit| *unit == first.unit);
    meant.then(|| never_began(first)).flatten()
}

fn never_began(u: &UnitView) -> Option<String> {
    match &u.state {
        UnitState::Failed { end: end @ UnitEnd::NotStarted { .. }, .. } => {
            Some(format!("{} {}", u.unit, ending(end)))
        }
        _ => None,
    }
}

/// The lines between the outputs of several units; those that wrote nothing have none.
struct Heads {
    several: bool,
    any: bool,
}

impl Heads {
    /// Before the first that is told of a unit.
    fn print(&mut self, s: &Session, unit: &UnitId) -> Result<(), Failure> {
        let gap = if std::mem::replace(&mut self.any, true) { "\n" } else { "" };
        if self.several { s.out.note(&format!("{gap}==> {unit} <==")) } else { Ok(()) }
    }
}

/// What is said when there is no output at all.
fn nothing(args: &OutputArgs) -> String {
    let job = &args.job.job;
    let who = args.job.unit.as_ref().map_or_else(|| job.to_string(), ToString::to_string);
    match args.stderr {
        true => format!("{who} has written nothing to standard error"),
        false => format!(
            "{who} has written nothing to standard output; standard error: xout {who} --stderr"
        ),
    }
}

/// Prints what a unit that has ended wrote to one stream.
pub async fn print_stream(
    s: &Session,
    member: &mut Member,
    unit: &UnitId,
    stream: OutputStream,
) -> Result<(), Failure> {
    let print = |part: &[u8]| match stream {
        OutputStream::Stdout => s.out.bytes(part),
        OutputStream::Stderr => s.out.error_bytes(part),
    };
    read(s, member, unit, stream, Until::Whole, print).await
}

/// What a unit has written to one stream, as far as it lies within the first `most` bytes or the
/// part that these end in.
pub async fn beginning(
    s: &Session,
    member: &mut Member,
    unit: &UnitId,
    stream: OutputStream,
    most: usize,
) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    let mut offset = 0u64;
    loop {
        let ask = ReadOutput { unit: unit.clone(), stream, offset, limit: None };
        let OutputPart { data, eof, from } = member.call(s, ask).await?;
        let bytes = decode(&data)?;
        offset = offset.max(from.unwrap_or(0)).saturating_add(bytes.len() as u64);
        all.extend_from_slice(&bytes);
        if eof || bytes.is_empty() || all.len() >= most {
            return Ok(all);
        }
    }
}

/// How much of an output is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// As much as there is.
    Now,
    /// All of it, as it is written.
    End,
    /// All of it, of a unit that is known to have ended.
    Whole,
}

/// Reads a unit's output part by part. Where all of it is wanted, a node or core that is away may
/// come back meanwhile.
async fn read(
    s: &Session,
    member: &mut Member,
    unit: &UnitId,
    stream: OutputStream,
    until: Until,
    mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut offset = 0u64;
    let mut heard = Instant::now();
    loop {
        let ask = ReadOutput { unit: unit.clone(), stream, offset, limit: None };
        member.keep(s).await;
        let OutputPart { data, eof, from } = match member.call(s, ask).await {
            Ok(part) => part,
            Err(e) => {
                let waits = until != Until::Now && e.kind == Kind::Unavailable;
                if !waits || heard.elapsed() > PATIENCE {
                    return Err(e.into());
                }
                tokio::time::sleep(AWAY_PAUSE).await;
                continue;
            }
        };
        let bytes = decode(&data)?;
        if let Some(from) = from.filter(|from| *from > offset) {
            s.out.note(&gap(unit, offset, from))?;
            offset = from;
        }
        take(&bytes)?;
        offset = offset.saturating_add(bytes.len() as u64);
        if eof || (bytes.is_empty() && until == Until::Now) {
            return Ok(());
        }
        if !bytes.is_empty() || until == Until::End {
            heard = Instant::now();
        } else if heard.elapsed() > PATIENCE {
            let text = format!("the end of the output of {unit} has not come from its node");
            return Err(Error::unavailable(text).hint("try again later: xout").into());
        }
        if bytes.is_empty() {
            tokio::time::sleep(FOLLOW_PAUSE).await;
        }
    }
}

/// What is said where something is missing.
fn gap(unit: &UnitId, from: u64, to: u64) -> String {
    let bytes = to.saturating_sub(from);
    format!("{bytes} bytes that {unit} wrote before it moved are not kept any more")
}

/// Bytes from base64.
pub fn decode(text: &str) -> Result<Vec<u8>, Error> {
    STANDARD
        .decode(text)
        .map_err(|_| Error::unavailable("the core's answer is not understood: no base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, who reads the output of a job that wrote nothing would not know whether it was
    /// lost, or where else to look.
    #[test]
    fn no_output_at_all_is_told() {
        let told = |job: &str, stderr| {
            nothing(&OutputArgs { job: job.parse().unwrap(), stderr, follow: false })
        };
        assert_eq!(
            told("12.rennes:7", false),
            "12.rennes:7 has written nothing to standard output; \
             standard error: xout 12.rennes:7 --stderr"
        );
        assert_eq!(told("12.rennes", true), "12.rennes has written nothing to standard error");
    }

    /// If it failed, who reads what is left of an output would take it for all of it.
    #[test]
    fn a_gap_is_told() {
        let unit = "12.rennes".parse::<xos_base::JobId>().unwrap().unit(7);
        let text = "27 bytes that 12.rennes:7 wrote before it moved are not kept any more";
        assert_eq!(gap(&unit, 3, 30), text);
    }

    /// If it failed, who looks for the output of a unit that its node did not start would be sent
    /// to its standard error, where nothing is; or one that ran be told to have never begun.
    #[test]
    fn what_was_never_started_says_why() {
        let told = |end| {
            let (job, at) = ("12.rennes".parse::<xos_base::JobId>().unwrap(), xos_base::Millis(1));
            let (site, usage) = ("rennes".parse().unwrap(), xos_api::aem::Usage::default());
            let state = UnitState::Failed { site, node: None, at, end, usage };
            let task = "main".to_owned();
            never_began(&UnitView { unit: job.unit(7), task, index: 7, state, retries: 0 })
        };
        let why = told(UnitEnd::NotStarted { reason: "its account is another's".into() });
        assert_eq!(
            why.as_deref(),
            Some("12.rennes:7 could not be started: its account is another's")
        );
        assert_eq!(told(UnitEnd::Exit { code: 126 }), None);
    }
}
