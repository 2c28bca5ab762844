//! What the person is reminded of: memberships and consents that end.

use super::output::{Style, clean, when};
use super::session::Session;
use xos_api::vom::{Ending, Reminder, Reminders};
use xos_base::{Error, Millis, PersonId};

/// What was told last, for `xos id`, which asks nobody.
const FILE: &str = "reminders.json";

/// Asks the person's own site, and keeps the answer.
///
/// # Errors
/// What the core says; what [`super::home::Home::write`] says.
pub async fn fetch(s: &Session, person: &PersonId) -> Result<Vec<Reminder>, Error> {
    let ask = Reminders { person: person.clone() };
    let all = s.person(&person.site()).await?.call(ask).await?;
    s.home.write(FILE, &all)?;
    Ok(all)
}

/// What was told at the last sign-in.
///
/// # Errors
/// As [`super::home::Home::read`].
pub fn kept(s: &Session) -> Result<Vec<Reminder>, Error> {
    Ok(s.home.read(FILE)?.unwrap_or_default())
}

/// Forgets it.
///
/// # Errors
/// As [`super::home::Home::remove`].
pub fn forget(s: &Session) -> Result<(), Error> {
    s.home.remove(FILE).map(|_| ())
}

/// As lines below something else; empty when there are none.
pub fn lines(all: &[Reminder], now: Millis) -> String {
    let line = |r: &Reminder| {
        let (at, todo) = (when(r.at, now), clean(&r.todo));
        let text = match (r.what, r.at <= now) {
            (Ending::Membership, false) => format!("{}: your membership ends {at}", r.vo),
            (Ending::Membership, true) => format!("{}: your membership ended {at}", r.vo),
            (Ending::Consent, false) => {
                format!("{}: you are suspended {at} unless you agree to its terms of use", r.vo)
            }
            (Ending::Consent, true) => {
                format!("{}: you are suspended until you agree to its terms of use", r.vo)
            }
        };
        let style = if r.at <= now { Style::Bad } else { Style::Busy };
        format!("\n{}\n  {todo}", style.mark(&text))
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, people would learn that they are shut out when it has happened, or not what to
    /// do about it.
    #[test]
    fn what_ends_is_told_with_what_to_do() {
        let reminder = |what, at| Reminder {
            vo: "demo.rennes".parse().unwrap(),
            title: "Demo".into(),
            what,
            at: Millis::from_secs(at),
            days: 1,
            todo: "xos vo agree demo.rennes\u{1b}".into(),
        };
        let all = [reminder(Ending::Consent, 7200), reminder(Ending::Membership, 1)];
        let text = lines(&all, Millis::from_secs(3600));
        assert!(text.contains("you are suspended in 1 h unless you agree"), "{text}");
        assert!(text.contains("  xos vo agree demo.rennes?"), "{text}");
        assert!(text.contains("your membership ended 59 min ago"), "{text}");
        assert_eq!(lines(&[], Millis(0)), "");
    }
}
