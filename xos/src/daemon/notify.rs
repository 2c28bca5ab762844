//! Tells systemd how far `xosd` is (sd_notify(3)); without systemd nothing happens.

use sd_notify::NotifyState;

/// The services run.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
    tracing::info!(status, "ready");
}

/// The services end.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::warn!(error = %e, "systemd cannot be told");
    }
}
