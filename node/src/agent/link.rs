//! Keeps the control stream to the core.

use super::heard::Moment;
use super::vos::Heard;
use super::{Agent, keep};
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use xos_api::node::Hello;
use xos_base::Error;
use xos_net::Router;
use xos_net::control::Control;

/// First pause after a lost stream.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often it is written down that the core is heard.
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// Where.
const HEARD_FILE: &str = "heard.json";

/// Connects to the core, again whenever the stream ends, until `stop`.
pub async fn run_link(agent: Arc<Agent>, stop: CancellationToken) {
    let mut pause = PAUSE_MIN;
    while !stop.is_cancelled() {
        let connected = tokio::select! {
            () = stop.cancelled() => return,
            connected = connect(&agent) => connected,
        };
        match connected {
            Ok(control) => {
                tracing::info!(node = %agent.node, "connected to the core");
                pause = PAUSE_MIN;
                let mut events = tokio::spawn(agent.units.clone().report(control.clone()));
                let tickets = tokio::spawn(agent.clone().renew_tickets(control.clone()));
                let renewing = agent
                    .mandates()
                    .map(|m| tokio::spawn(agent.clone().renew_under(m, control.clone())));
                let rights = tokio::spawn(agent.clone().renew_in_cluster(control.clone()));
                let hosts = tokio::spawn(agent.clone().keep_host_certificates(control.clone()));
                let told = tokio::spawn(agent.clone().report_events(control.clone()));
                agent.contact().control = Some(control.clone());
                tokio::select! {
                    () = stop.cancelled() => control.close(),
                    () = control.closed() => tracing::warn!("the core is gone: connecting again"),
                    () = agent.keep_heard() => {}
                }
                agent.lose_contact();
                for task in [tickets, rights, hosts, told].into_iter().chain(renewing) {
                    task.abort();
                }
                events.abort();
                // It must not take news that the next one is to report.
                if let Err(e) = (&mut events).await
                    && !e.is_cancelled()
                {
                    tracing::error!(error = %e, "reporting to the core failed");
                }
            }
            Err(e) => {
                tracing::warn!(error = %e, pause_ms = pause.as_millis(), "no core");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            // Jitter from the clock's low bits spreads the nodes of a site after a core's restart.
            () = tokio::time::sleep(pause + jitter(&agent, pause)) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The core, and when it was heard last.
pub(super) struct Contact {
    /// The stream to it, while there is one.
    control: Option<Arc<Control>>,
    /// When it said last, since this daemon runs, that it has told the accounts of all VOs. That a
    /// stream stands is not enough: who sits on the network lets it begin and holds up the rest.
    heard: Option<Moment>,
    /// When an earlier daemon heard it.
    before: Moment,
}

impl Contact {
    /// Before anything was heard. `folder`: the node's. Where no earlier daemon wrote when it heard
    /// the core, that counts as now.
    pub(super) fn new(folder: &Path, now: Moment) -> Contact {
        let before = match keep::read::<Moment>(&folder.join(HEARD_FILE)) {
            Ok(Some(at)) => at.seen_from(now),
            Ok(None) => now,
            Err(error) => {
                // Cut short by a power loss, after which nobody is signed in and nothing runs.
                tracing::warn!(%error, "when the core was heard last is not known");
                now
            }
        };
        Contact { control: None, heard: None, before }
    }

    /// When it was heard last, by the wall's clock as it stands at `now`.
    fn last_heard(&self, now: &Moment) -> Heard {
        let heard = self.heard.as_ref().unwrap_or(&self.before);
        let ago = |by: Duration| now.wall.minus(by);
        Heard { hold: ago(heard.elapsed(now)), end: ago(heard.elapsed_surely(now)) }
    }
}

impl Agent {
    fn contact(&self) -> MutexGuard<'_, Contact> {
        self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose_contact(&self) {
        self.contact().control = None;
        self.lock_vos().stream_over();
        self.note_heard();
        // From now on leases end.
        self.accounts_changed.send_modify(|n| *n += 1);
    }

    /// The core was heard just now.
    pub(super) fn hear(&self) {
        let now = self.moment();
        self.contact().heard = Some(now);
    }

    /// Writes down when the core was heard, for a daemon that is started anew.
    fn note_heard(&self) {
        let Some(now) = self.contact().heard.clone() else { return };
        let path = self.folder.join(HEARD_FILE);
        let written = serde_json::to_string(&now)
            .map_err(|e| Error::internal(format!("cannot encode a moment: {e}")))
            .and_then(|text| keep::write_text(&path, &text, 0o600));
        if let Err(error) = written {
            tracing::error!(%error, "a restart of xosd would not know when the core was heard");
        }
    }

    /// Writes down again and again when the core is heard, until this future is dropped.
    async fn keep_heard(&self) {
        loop {
            self.note_heard();
            tokio::time::sleep(KEEP_EVERY).await;
        }
    }

    /// Whether the core was heard since this daemon runs.
    pub(super) fn has_heard(&self) -> bool {
        self.contact().heard.is_some()
    }

    /// When the core was heard last.
    pub(super) fn last_heard(&self) -> Heard {
        let now = self.moment();
        self.contact().last_heard(&now)
    }

    fn moment(&self) -> Moment {
        Moment::at(self.now(), &self.boot)
    }

    /// The stream to the core.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when there is none.
    pub(super) fn core(&self) -> Result<Arc<Control>, Error> {
        let control = self.contact().control.clone();
        control.ok_or_else(|| {
            Error::unavailable("this node does not reach its core").hint("try again later")
        })
    }
}

fn jitter(agent: &Agent, pause: Duration) -> Duration {
    pause.mul_f64((agent.now().0 % 1000) as f64 / 2000.0)
}

async fn connect(agent: &Arc<Agent>) -> Result<Arc<Control>, Error> {
    let mut router = Router::new();
    agent.clone().register(&mut router, agent.units.stream());
    let control = agent.link.connect(Arc::new(router)).await?;
    control
        .call(Hello {
            node: agent.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capacity: agent.capacity.clone(),
            key: agent.key.clone(),
        })
        .await?;
    Ok(control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_base::Millis;

    /// If it failed, whoever has xosd started anew at a node that is cut off would give everybody
    /// there another lease, or hold all work at each start.
    #[test]
    fn a_restart_knows_when_the_core_was_heard() {
        let dir = tempfile::tempdir().unwrap();
        let at = |wall, up| Moment { wall: Millis(wall), up: Millis(up), boot: "boot".into() };
        let since = |now: Moment| Contact::new(dir.path(), now.clone()).last_heard(&now).hold;
        let keep = |text: &str| keep::write_text(&dir.path().join(HEARD_FILE), text, 0o600);
        assert_eq!(since(at(500, 50)), Millis(500), "nothing is known");
        keep(&serde_json::to_string(&at(400, 40)).unwrap()).unwrap();
        assert_eq!(since(at(500, 140)), Millis(400));
        assert_eq!(since(at(300, 60)), Millis(280), "the clock was set back by 120");
        assert_eq!(since(at(900, 60)), Millis(400), "it was set forward");
        // Another start of the machine: its own clock begins anew.
        let other = Moment { boot: "other".into(), ..at(500, 5) };
        assert_eq!(since(other), Millis(400));
        let back = Moment { boot: "other".into(), ..at(300, 5) };
        assert_eq!(since(back), Millis(300), "set back before it was started");
        let mut contact = Contact::new(dir.path(), at(500, 140));
        contact.heard = Some(at(450, 90));
        assert_eq!(contact.last_heard(&at(500, 140)).hold, Millis(450));
        assert_eq!(contact.last_heard(&at(100, 290)).hold, Millis(0), "for 200 at least");
        let forward = contact.last_heard(&at(900_000, 140));
        assert_eq!((forward.hold, forward.end), (Millis(450), Millis(899_950)), "set forward");
        keep("").unwrap();
        assert_eq!(since(at(500, 140)), Millis(500), "cut short");
    }
}
