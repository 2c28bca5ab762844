//! Keeps the control stream to the core.

use super::{Agent, keep};
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use xos_api::node::Hello;
use xos_base::{Error, Millis};
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
                let logins = tokio::spawn(agent.clone().renew_login_tickets(control.clone()));
                let hosts = tokio::spawn(agent.clone().keep_host_certificates(control.clone()));
                let told = tokio::spawn(agent.clone().report_events(control.clone()));
                agent.contact().control = Some(control.clone());
                tokio::select! {
                    () = stop.cancelled() => control.close(),
                    () = control.closed() => tracing::warn!("the core is gone: connecting again"),
                    () = agent.keep_heard() => {}
                }
                agent.lose_contact();
                for task in [tickets, logins, hosts, told] {
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
    /// When it was heard since this daemon runs: told of accounts, or the last stream ended.
    heard: Option<Millis>,
    /// When an earlier daemon heard it.
    before: Millis,
}

impl Contact {
    /// Before anything was heard. `folder`: the node's. Where no earlier daemon wrote when it heard
    /// the core, that counts as now.
    pub(super) fn new(folder: &Path, now: Millis) -> Contact {
        let before = match keep::read::<u64>(&folder.join(HEARD_FILE)) {
            // A clock that was set back must not make it longer.
            Ok(Some(at)) => Millis(at).min(now),
            Ok(None) => now,
            Err(error) => {
                // Cut short by a power loss, after which nobody is signed in and nothing runs.
                tracing::warn!(%error, "when the core was heard last is not known");
                now
            }
        };
        Contact { control: None, heard: None, before }
    }

    /// Since when it is unheard; `None`: there is a stream to it.
    fn unheard_since(&self) -> Option<Millis> {
        self.control.is_none().then(|| self.heard.unwrap_or(self.before))
    }
}

impl Agent {
    fn contact(&self) -> MutexGuard<'_, Contact> {
        self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose_contact(&self) {
        self.contact().control = None;
        self.note_heard();
        // From now on leases end.
        self.accounts_changed.send_modify(|n| *n += 1);
    }

    /// The core was heard just now.
    pub(super) fn hear(&self) -> Millis {
        let now = self.now();
        self.contact().heard = Some(now);
        now
    }

    /// The same, written down for a daemon that is started anew.
    fn note_heard(&self) {
        let now = self.hear();
        let path = self.folder.join(HEARD_FILE);
        if let Err(error) = keep::write_text(&path, &now.0.to_string(), 0o600) {
            tracing::error!(%error, "a restart of xosd would not know when the core was heard");
        }
    }

    /// Writes down again and again that the core is heard, until this future is dropped.
    async fn keep_heard(&self) {
        loop {
            self.note_heard();
            tokio::time::sleep(KEEP_EVERY).await;
        }
    }

    /// Whether the core was heard since this daemon runs.
    pub(super) fn has_heard(&self) -> bool {
        let contact = self.contact();
        contact.control.is_some() || contact.heard.is_some()
    }

    /// Since when the core is unheard; `None`: there is a stream to it.
    pub(super) fn unheard_since(&self) -> Option<Millis> {
        self.contact().unheard_since()
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

    /// If it failed, whoever has xosd started anew at a node that is cut off would give everybody
    /// there another lease, or hold all work at each start.
    #[test]
    fn a_restart_knows_when_the_core_was_heard() {
        let dir = tempfile::tempdir().unwrap();
        let since = |now| Contact::new(dir.path(), Millis(now)).unheard_since();
        assert_eq!(since(500), Some(Millis(500)), "nothing is known");
        keep::write_text(&dir.path().join(HEARD_FILE), "400", 0o600).unwrap();
        assert_eq!(since(500), Some(Millis(400)));
        assert_eq!(since(300), Some(Millis(300)), "the clock was set back");
        let mut contact = Contact::new(dir.path(), Millis(500));
        contact.heard = Some(Millis(450));
        assert_eq!(contact.unheard_since(), Some(Millis(450)));
        keep::write_text(&dir.path().join(HEARD_FILE), "", 0o600).unwrap();
        assert_eq!(since(500), Some(Millis(500)), "cut short");
    }
}
