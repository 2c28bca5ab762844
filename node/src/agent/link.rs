//! Keeps the control stream to the core.

use super::Agent;
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
                agent.contact().control = Some(control.clone());
                tokio::select! {
                    () = stop.cancelled() => control.close(),
                    () = control.closed() => tracing::warn!("the core is gone: connecting again"),
                }
                agent.lose_contact();
                for task in [tickets, logins, hosts] {
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
#[derive(Default)]
pub(super) struct Contact {
    /// The stream to it, while there is one.
    control: Option<Arc<Control>>,
    /// When the last stream ended.
    heard: Option<Millis>,
}

impl Agent {
    fn contact(&self) -> MutexGuard<'_, Contact> {
        self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose_contact(&self) {
        *self.contact() = Contact { control: None, heard: Some(self.now()) };
    }

    /// When the core was heard last; `None`: never since this daemon runs.
    pub(super) fn heard(&self, now: Millis) -> Option<Millis> {
        let contact = self.contact();
        if contact.control.is_some() { Some(now) } else { contact.heard }
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
