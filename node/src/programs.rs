//! Programs of the machine that the daemon runs, as systemd's `systemctl`.

use std::time::Duration;

/// Is there when systemd runs this machine (sd_booted(3)).
pub(crate) const BOOTED: &str = "run/systemd/system";

/// Runs a program, an absolute path, with arguments that no shell reads, and waits until it ended
/// well, for `limit` at most.
///
/// # Errors
/// Why it did not, with the first line of what it said.
pub(crate) async fn run(
    program: &str,
    arguments: &[String],
    limit: Duration,
) -> Result<(), String> {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(limit, command.output()).await;
    let out = ended.map_err(|_| format!("it did not end within {limit:?}"))?;
    let out = out.map_err(|e| format!("it cannot be run: {e}"))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(format!("{}: {}", out.status, said.lines().next().unwrap_or_default()))
}
