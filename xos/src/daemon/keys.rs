//! `xosd keys`: the site's keys, whether or not its core runs.

use super::args::{KeyPurpose, Keys, KeysCommand, Roll};
use super::config::Config;
use super::{say, vault};
use xos_base::when::{Clock, SystemClock};
use xos_base::{Error, Millis};
use xos_cda::{KeyState, KeyView, Purpose, list_keys, roll_key};

/// Shows the keys, or replaces one.
///
/// # Errors
/// As [`list_keys`] and [`roll_key`]; [`xos_base::Kind::Invalid`] on a machine that is no core.
pub fn run(args: Keys) -> Result<(), Error> {
    let config = Config::read(&args.config)?;
    let now = SystemClock.now();
    match args.command {
        KeysCommand::List => show(&list_keys(&config.site.state, now)?),
        KeysCommand::Roll(roll) => replace(&config, &roll, now)?,
    }
    Ok(())
}

fn replace(config: &Config, roll: &Roll, now: Millis) -> Result<(), Error> {
    let cda = config.cda.as_ref().ok_or_else(|| {
        Error::invalid("there is no section [cda]: this is no core")
            .hint("a site's keys lie on its core")
    })?;
    let purpose: Purpose = roll.purpose.into();
    let vault = vault::open(cda.pkcs11.as_ref())?;
    let site = (config.site.state.as_path(), &config.site.name);
    show(&roll_key(site, cda, vault, (purpose, roll.now), now)?);
    say(
        "A core that runs takes this up within 10 seconds, and lets its nodes and other sites know.",
    );
    if roll.now {
        say(&format!(
            "What the former keys for {} signed is refused from then on:",
            purpose.name()
        ));
        say(broken(purpose));
    }
    Ok(())
}

/// What no longer works after a key was dropped, and what helps.
fn broken(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Signing => {
            "everybody signs in again (`xos login`); jobs that run lose their volume within a \
             quarter of an hour and are submitted again; invitations to other sites are made again. \
             A site that was not reached refuses the new key until it asks for it. Logs of VOs \
             stay readable: see the site administrator's guide."
        }
        Purpose::SshPeople => "people run `xos login` before they go on by ssh.",
        Purpose::SshMachines => {
            "restart `xosd` on each node, which makes its host certificates anew; people run \
             `xos login`, so that their ssh knows the new key."
        }
        Purpose::Jwt => {
            "people and programs get new tokens; a service that keeps the old keys refuses these \
             until it fetches the keys again."
        }
        Purpose::People => "members of VOs homed here run `xos login`.",
        Purpose::Machines => "every node of this site joins again (`xos node token`, `xosd join`).",
    }
}

impl From<KeyPurpose> for Purpose {
    fn from(purpose: KeyPurpose) -> Purpose {
        match purpose {
            KeyPurpose::Signing => Purpose::Signing,
            KeyPurpose::SshPeople => Purpose::SshPeople,
            KeyPurpose::SshMachines => Purpose::SshMachines,
            KeyPurpose::Jwt => Purpose::Jwt,
            KeyPurpose::People => Purpose::People,
            KeyPurpose::Machines => Purpose::Machines,
        }
    }
}

fn show(keys: &[KeyView]) {
    let head = ["FOR", "KIND", "IN", "FINGERPRINT", "SINCE", "STATE"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(keys.iter().map(row)).collect();
    let width = |i: usize| rows.iter().map(|r| r[i].len()).max().unwrap_or_default();
    let widths: [usize; 6] = std::array::from_fn(width);
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        say(cells.join("  ").trim_end());
    }
}

fn row(key: &KeyView) -> [String; 6] {
    let state = match key.state {
        KeyState::Signs => "signs".to_owned(),
        KeyState::SignsFrom(at) => format!("known; signs from {at}"),
        KeyState::Counts(Some(until)) => format!("counts until {until}"),
        KeyState::Counts(None) => "counts".to_owned(),
        KeyState::CountsForLogs => "gone; counts for VO logs".to_owned(),
        KeyState::Refused => "gone; refused".to_owned(),
    };
    let since = match key.since {
        Millis(0) => "?".to_owned(),
        since => since.to_string(),
    };
    let place = if key.in_vault { "token" } else { "file" };
    let (purpose, kind) = (key.purpose.to_owned(), key.kind.name().to_owned());
    [purpose, kind, place.to_owned(), key.fingerprint.clone(), since, state]
}
