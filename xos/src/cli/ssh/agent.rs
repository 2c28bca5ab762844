//! A running ssh-agent, through the stock `ssh-add`.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::Command;
use xos_base::Error;

/// How long an agent may take to answer: one that asks its person for consent is not waited for
/// longer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Gives the key with its certificate to the agent for as long as the certificate holds.
///
/// # Errors
/// [`xos_base::Kind::Unavailable`] with what `ssh-add` says.
pub async fn add(key: &Path, left: Duration) -> Result<(), Error> {
    let seconds = left.as_secs().max(1).to_string();
    let [quiet, life, seconds] = ["-q", "-t", seconds.as_str()].map(OsStr::new);
    well(&ssh_add(&[quiet, life, seconds, key.as_os_str()]).await?)
}

/// Takes the key out of the agent, if it has it; `public` is the public key's line.
///
/// # Errors
/// As [`add`].
pub async fn forget(key: &Path, public: &str) -> Result<(), Error> {
    let listed = ssh_add(&[OsStr::new("-L")]).await?;
    let blob = public.split(' ').nth(1).unwrap_or(public);
    // The agent forgets keys by itself when their time is over.
    if !String::from_utf8_lossy(&listed.stdout).contains(blob) {
        return Ok(());
    }
    well(&ssh_add(&[OsStr::new("-q"), OsStr::new("-d"), key.as_os_str()]).await?)
}

async fn ssh_add(words: &[&OsStr]) -> Result<Output, Error> {
    let mut command = Command::new("ssh-add");
    command.args(words).stdin(Stdio::null()).kill_on_drop(true);
    let failed = |why: String| {
        Error::unavailable(format!("the ssh-agent was not told of your key: {why}"))
            .hint("ssh works without it; unset SSH_AUTH_SOCK to leave the agent alone")
    };
    match tokio::time::timeout(ANSWER_MAX, command.output()).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(e)) => Err(failed(format!("cannot start ssh-add: {e}"))),
        Err(_) => Err(failed(format!("no answer in {} s", ANSWER_MAX.as_secs()))),
    }
}

fn well(output: &Output) -> Result<(), Error> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().replace('\n', "; ");
    Err(Error::unavailable(format!("the ssh-agent did not take the change of your key: {said}"))
        .hint("ssh works without it; unset SSH_AUTH_SOCK to leave the agent alone"))
}
