//! Following a job until its end, with a progress bar, over breaks of the connection.

use super::because;
use crate::cli::ask::is_yes;
use crate::cli::member::Member;
use crate::cli::output::{Failure, Out, clean};
use crate::cli::session::Session;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::io::AsyncBufReadExt;
use xos_api::aem::{CancelJob, Counts, JobEvent, WatchJob};
use xos_base::{Error, JobId, Kind};
use xos_net::Client;

/// How often a broken connection is made anew before giving up; with the pauses below, a core
/// may be away for ten minutes.
const RECONNECT_MAX: u32 = 65;
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Most characters of a reason that the bar shows.
const WHY_SHOWN: usize = 80;
/// Exit status after Ctrl-C, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// What a core sends about a job.
pub type Events = BoxStream<'static, Result<JobEvent, Error>>;

/// A job's end: its last event.
pub struct Ended {
    /// The job.
    pub job: JobId,
    /// The event, with [`JobEvent::end`] set.
    pub end: JobEvent,
    /// Who watched, with the certificate of now.
    pub member: Member,
}

/// What became of watching.
pub enum Watched {
    /// The job ended.
    Ended(Box<Ended>),
    /// The person stopped watching; the exit status.
    Left(u8),
}

/// A progress bar on the terminal, over one job or several; drawn once there is something to wait
/// for.
pub struct Bar {
    out: Out,
    bar: RefCell<Option<ProgressBar>>,
    jobs: RefCell<BTreeMap<JobId, Counts>>,
    last: RefCell<Option<JobEvent>>,
}

impl Bar {
    /// No bar yet.
    pub fn new(out: Out) -> Bar {
        Bar {
            out,
            bar: RefCell::new(None),
            jobs: RefCell::new(BTreeMap::new()),
            last: RefCell::new(None),
        }
    }

    /// The job that was acknowledged, for questions.
    fn job(&self) -> Option<JobId> {
        self.last.borrow().as_ref().map(|event| event.job.clone())
    }

    /// Shows a change.
    pub fn update(&self, event: &JobEvent) {
        self.draw(event);
        self.last.replace(Some(event.clone()));
    }

    /// Shows the bar again after [`Bar::hide`].
    fn redraw(&self) {
        if let Some(event) = &*self.last.borrow() {
            self.draw(event);
        }
    }

    fn draw(&self, event: &JobEvent) {
        if !self.out.progress() {
            return;
        }
        let mut jobs = self.jobs.borrow_mut();
        jobs.insert(event.job.clone(), event.counts);
        if event.end.is_some() && jobs.len() == 1 {
            return;
        }
        let mut bar = self.bar.borrow_mut();
        let bar = bar.get_or_insert_with(|| styled(ProgressDrawTarget::stderr()));
        show(bar, &jobs, event);
    }

    /// Says something above the bar.
    fn say(&self, text: &str) -> Result<(), Failure> {
        self.hide();
        self.out.note(text)?;
        self.redraw();
        Ok(())
    }

    /// Takes the bar off the screen; the next change draws it again.
    pub fn hide(&self) {
        if let Some(bar) = self.bar.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }
}

fn styled(target: ProgressDrawTarget) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {msg}") {
        bar.set_style(style.progress_chars("## "));
    }
    bar
}

/// Brings the bar to where the jobs are; `event` is the newest.
fn show(bar: &ProgressBar, jobs: &BTreeMap<JobId, Counts>, event: &JobEvent) {
    let prefix = match jobs.len() {
        1 => event.job.to_string(),
        n => format!("{n} jobs"),
    };
    bar.set_prefix(prefix);
    bar.set_length(jobs.values().map(|c| u64::from(c.total())).sum());
    bar.set_position(jobs.values().map(|c| u64::from(c.ended())).sum());
    bar.set_message(message(jobs.values(), event));
}

fn message<'a>(jobs: impl Iterator<Item = &'a Counts>, event: &JobEvent) -> String {
    let mut sum = Counts::default();
    for c in jobs {
        sum.running += c.running;
        sum.placed += c.placed;
        sum.queued += c.queued;
        sum.waiting += c.waiting;
        sum.failed += c.failed + c.lost + c.refused;
        sum.cancelled += c.cancelled;
    }
    let parts = [
        (sum.running, "running"),
        (sum.placed + sum.queued, "queued"),
        (sum.waiting, "waiting"),
        (sum.failed, "failed"),
        (sum.cancelled, "cancelled"),
    ];
    let mut text: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    if sum.running == 0
        && let Some(why) = &event.why
    {
        text.push(because(why).chars().take(WHY_SHOWN).collect());
    }
    text.join(", ")
}

/// Follows a job to its end, which may come long after the certificate of now.
///
/// # Errors
/// What the core says about the job; [`Kind::Unavailable`] when it stays away.
pub async fn follow(
    s: &Session,
    mut member: Member,
    job: Option<JobId>,
    first: Option<Events>,
    bar: &Bar,
) -> Result<Ended, Failure> {
    let (mut job, mut events, mut after, mut tries) = (job, first, None, 0_u32);
    let (mut renewed, mut renewals) = (false, 0_u32);
    loop {
        let told = tokio::select! {
            told = next(&member.client, job.as_ref(), &mut events, after) => told,
            () = tokio::time::sleep(member.rest(s)) => {
                member.keep(s).await;
                continue;
            }
        };
        let broken = match told {
            Ok(event) => {
                (tries, renewed) = (0, false);
                after = Some(event.seq);
                job = Some(event.job.clone());
                bar.update(&event);
                if event.end.is_some() {
                    return Ok(Ended { job: event.job.clone(), end: event, member });
                }
                continue;
            }
            Err(e) => e,
        };
        events = None;
        tries += 1;
        if job.is_none() || tries > RECONNECT_MAX {
            return Err(broken.into());
        }
        if !matches!(broken.kind, Kind::Unavailable | Kind::Limited) {
            if renewed {
                return Err(broken.into());
            }
            // A core that takes each proof for one event only must not wear out the VO's home.
            tokio::time::sleep(Duration::from_secs(renewals.into()).min(PAUSE_MAX)).await;
            renewals += 1;
            let credential = s.changed(&member.credential, broken).await?;
            member = s.member_by(credential, &member.site)?;
            renewed = true;
            continue;
        }
        if tries == 2 {
            bar.say(&format!("{}; trying again …", clean(&broken.message)))?;
        }
        let pause = Duration::from_millis(100 << tries.min(7)).min(PAUSE_MAX);
        tokio::time::sleep(pause).await;
        member.renew(s).await;
    }
}

async fn next(
    client: &Client,
    job: Option<&JobId>,
    events: &mut Option<Events>,
    after: Option<u64>,
) -> Result<JobEvent, Error> {
    let stream = match (events, job) {
        (Some(stream), _) => stream,
        (none, Some(job)) => {
            none.insert(client.subscribe(WatchJob { job: job.clone(), after }).await?)
        }
        (None, None) => return Err(Error::unavailable("the core said nothing about the job")),
    };
    match stream.next().await {
        Some(event) => event,
        None => Err(Error::unavailable("the core ended the connection")),
    }
}

/// Follows a job that was just submitted; Ctrl-C asks whether to cancel it, a second one leaves.
///
/// # Errors
/// As [`follow`].
pub async fn with_interrupt(
    s: &Session,
    member: Member,
    bar: &Bar,
    events: Events,
) -> Result<Watched, Failure> {
    let (vo, site) = (member.credential.vo.clone(), member.site.clone());
    let mut following = std::pin::pin!(follow(s, member, None, Some(events), bar));
    loop {
        tokio::select! {
            end = &mut following => return Ok(Watched::Ended(Box::new(end?))),
            stop = tokio::signal::ctrl_c() => stop.map_err(no_signals)?,
        }
        bar.hide();
        let Some(job) = bar.job() else {
            let unknown = "stopped before the job was acknowledged; see `xos job list`";
            s.out.note(unknown)?;
            return Ok(Watched::Left(INTERRUPTED));
        };
        if s.out.json || !std::io::stdin().is_terminal() {
            return leave(s, &job);
        }
        s.out.note(&format!("\nCancel {job}? [y/N]  (Ctrl-C again: leave it running)"))?;
        let mut answer = String::new();
        let mut input = tokio::io::BufReader::new(tokio::io::stdin());
        tokio::select! {
            end = &mut following => return Ok(Watched::Ended(Box::new(end?))),
            stop = tokio::signal::ctrl_c() => {
                stop.map_err(no_signals)?;
                return leave(s, &job);
            }
            read = input.read_line(&mut answer) => {
                read.map_err(|e| Error::unavailable(format!("the terminal failed: {e}")))?;
            }
        }
        if is_yes(&answer) {
            s.member(&vo, &site).await?.call(s, CancelJob { job: job.clone() }).await?;
            s.out.note(&format!("Cancelling {job} …"))?;
        }
        bar.redraw();
    }
}

fn no_signals(e: std::io::Error) -> Failure {
    Error::internal(format!("cannot listen for Ctrl-C: {e}")).into()
}

fn leave(s: &Session, job: &JobId) -> Result<Watched, Failure> {
    s.out.note(&format!(
        "{job} goes on.\nWait for it: xwait {job}; its output: xout {job}; cancel it: xkill {job}"
    ))?;
    Ok(Watched::Left(INTERRUPTED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::TermLike;
    use std::sync::{Arc, Mutex, PoisonError};
    use xos_api::aem::{JobState, Reason};
    use xos_base::Millis;

    fn event(job: &str, counts: Counts) -> JobEvent {
        JobEvent {
            job: job.parse().unwrap(),
            seq: 1,
            state: JobState::Queued,
            counts,
            why: Some(Reason {
                at: Millis(0),
                site: Some("pisa".parse().unwrap()),
                rule: "memory".into(),
                text: "no node has\n40G free".into(),
                task: None,
            }),
            end: None,
        }
    }

    /// Keeps the last line that was drawn.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl Screen {
        fn line(&self) -> String {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).trim_end().to_owned()
        }
    }

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            100
        }
        fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> std::io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> std::io::Result<()> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> std::io::Result<()> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
            Ok(())
        }
        fn flush(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// If it failed, a person who waits would see a wrong share of the work, or nothing.
    #[test]
    fn the_bar_draws_how_far_all_jobs_are() {
        let screen = Screen::default();
        let bar = styled(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        let first = event("1.rennes", Counts { running: 3, done: 1, ..Counts::default() });
        let mut jobs = BTreeMap::from([(first.job.clone(), first.counts)]);
        show(&bar, &jobs, &first);
        bar.force_draw();
        let drawn = format!("1.rennes [{:30}] 1/4 3 running", "########");
        assert_eq!(screen.line(), drawn);
        let second = event("2.rennes", Counts { done: 2, ..Counts::default() });
        jobs.insert(second.job.clone(), second.counts);
        show(&bar, &jobs, &second);
        bar.force_draw();
        assert_eq!(screen.line(), format!("2 jobs [{:30}] 3/6 3 running", "#".repeat(16)));
    }

    #[test]
    fn the_bar_says_what_waits_and_why() {
        let counts = Counts { queued: 3, done: 1, failed: 1, ..Counts::default() };
        let text = message([counts].iter(), &event("1.rennes", counts));
        assert_eq!(text, "3 queued, 1 failed, pisa: no node has?40G free");
    }
}
