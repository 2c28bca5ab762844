//! `xos renew --watch` as a service of the person's systemd.

use crate::cli::output::Outcome;
use crate::cli::place::Place;
use crate::cli::session::Session;
use crate::cli::ssh::config::Where;
use crate::cli::ssh::quote::{cron_word, unit_word};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use xos_base::Error;

/// The service.
const UNIT: &str = "xos-renew.service";
/// Where the person's systemd looks for it, below their home folder.
const FOLDER: [&str; 3] = [".config", "systemd", "user"];
/// Is there when systemd runs this machine (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// How long systemd may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);

fn text(at: &Where) -> String {
    format!(
        "# Written by `xos renew --install`; `xos renew --remove` removes it.\n\
         [Unit]\n\
         Description=XOS: keeps your credentials fresh while you are signed in\n\
         \n\
         [Service]\n\
         ExecStart={} --home {} renew --watch\n\
         # 77, 78: nothing is renewed any more. The next sign-in starts it again.\n\
         Restart=on-failure\n\
         RestartSec=60\n\
         RestartPreventExitStatus=77 78\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n",
        unit_word(&at.program),
        unit_word(&at.home)
    )
}

/// The same for machines without systemd.
fn cron_line(at: &Where) -> String {
    format!("*/5 * * * * {} --home {} renew", cron_word(&at.program), cron_word(&at.home))
}

fn home(s: &Session) -> Result<&Path, Error> {
    s.around
        .user_home
        .as_deref()
        .ok_or_else(|| Error::invalid("it is not clear where your home folder is: HOME is not set"))
}

/// Writes the service's file, and gives where it is.
fn write(home: &Path, at: &Where) -> Result<PathBuf, Error> {
    let Some(place) = Place::open(home, &FOLDER, true)? else {
        return Err(Error::unavailable("a folder that was made just now is gone").hint("try again"));
    };
    let kept = place.read(UNIT)?;
    place.write(UNIT, kept.as_ref(), &text(at))?;
    Ok(place.path(UNIT))
}

/// Removes the service's file; whether there was one.
fn unwrite(home: &Path) -> Result<bool, Error> {
    let Some(place) = Place::open(home, &FOLDER, false)? else { return Ok(false) };
    let Some(kept) = place.read(UNIT)? else { return Ok(false) };
    place.remove(UNIT, &kept)?;
    Ok(true)
}

/// Installs the service and starts it; without systemd says what to put into cron's table.
///
/// # Errors
/// As [`Place::open`], and what systemd says.
pub async fn install(s: &Session) -> Outcome {
    let at = Where::of(s)?;
    if !Path::new(BOOTED).exists() {
        let line = cron_line(&at);
        s.out.show(&serde_json::json!({ "crontab": line }), || {
            format!("This machine has no systemd. Add this line by `crontab -e`:\n{line}")
        })?;
        return Ok(0);
    }
    let path = write(home(s)?, &at)?;
    systemctl(&["daemon-reload"]).await?;
    systemctl(&["enable", UNIT]).await?;
    if !s.vos()?.is_empty() {
        systemctl(&["restart", "--no-block", UNIT]).await?;
    }
    s.out.show(&serde_json::json!({ "unit": path }), || {
        format!(
            "Your credentials are renewed by themselves from now on ({}).\nIt runs while you are \
             logged in here; to go on afterwards: loginctl enable-linger",
            path.display()
        )
    })?;
    Ok(0)
}

/// Stops the service and removes it.
///
/// # Errors
/// As [`install`].
pub async fn remove(s: &Session) -> Outcome {
    let home = home(s)?;
    let there = is_there(home)?;
    if there {
        systemctl(&["disable", "--now", UNIT]).await?;
        unwrite(home)?;
        systemctl(&["daemon-reload"]).await?;
    }
    s.out.show(&serde_json::json!({ "was_installed": there }), || match there {
        true => "The service is removed.".to_owned(),
        false => "No service was installed. A line in cron's table: see `crontab -e`.".to_owned(),
    })?;
    Ok(0)
}

fn is_there(home: &Path) -> Result<bool, Error> {
    let place = Place::open(home, &FOLDER, false)?;
    Ok(place.map(|p| p.read(UNIT)).transpose()?.flatten().is_some())
}

/// After a sign-in: starts the service anew when the person has installed it for these keys.
///
/// # Errors
/// As [`install`].
pub async fn wake(s: &Session) -> Result<(), Error> {
    match s.usual_home() {
        Some(home) if home.join(FOLDER.join("/")).join(UNIT).exists() && is_there(&home)? => {
            systemctl(&["restart", "--no-block", UNIT]).await
        }
        _ => Ok(()),
    }
}

async fn systemctl(words: &[&str]) -> Result<(), Error> {
    let mut command = Command::new("systemctl");
    command.arg("--user").args(words).stdin(Stdio::null()).kill_on_drop(true);
    let failed = |why: String| {
        let words = words.join(" ");
        Error::unavailable(format!("`systemctl --user {words}` failed: {why}"))
            .hint("`xos renew` by hand, or from cron every 5 minutes, does the same")
    };
    let output = match tokio::time::timeout(ANSWER_MAX, command.output()).await {
        Ok(output) => output.map_err(|e| failed(e.to_string()))?,
        Err(_) => return Err(failed(format!("no answer in {} s", ANSWER_MAX.as_secs()))),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(said.trim().replace('\n', "; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::golden;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn at() -> Where {
        Where { program: "/usr/bin/xos".into(), home: "/home/alice's/50% x".into() }
    }

    /// If it failed, the service would not start, or never stop; or cron would cut its line at a
    /// percent sign.
    #[test]
    fn the_service_is_as_it_was_agreed() {
        golden::check("renew_unit.txt", &format!("{}\n{}\n", text(&at()), cron_line(&at())));
    }

    /// If it failed, a link planted in the person's folders would have them write elsewhere, and
    /// what runs at each of their logins.
    #[test]
    fn the_file_is_written_in_the_persons_own_folders_only() {
        let home = tempfile::tempdir().unwrap();
        std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755)).unwrap();
        assert!(!is_there(home.path()).unwrap() && !unwrite(home.path()).unwrap());
        let path = write(home.path(), &at()).unwrap();
        assert_eq!(path, home.path().join(".config/systemd/user/xos-renew.service"));
        assert_eq!(write(home.path(), &at()).unwrap(), path);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text(&at()));
        assert!(is_there(home.path()).unwrap() && unwrite(home.path()).unwrap());
        assert!(!path.exists());
        std::fs::remove_dir(path.parent().unwrap()).unwrap();
        symlink("/tmp", path.parent().unwrap()).unwrap();
        assert!(write(home.path(), &at()).is_err());
    }
}
