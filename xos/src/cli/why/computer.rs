//! What this computer needs for signing in to nodes.

use crate::cli::credential::Credential;
use crate::cli::session::Session;
use crate::cli::ssh::key::SshCertificate;
use crate::cli::ssh::{config, include};
use xos_api::vom::{WhyPlace, WhyStep};
use xos_base::{Error, Millis, VoId};

const AT: WhyPlace = WhyPlace::Computer;

/// What is here for `vo`.
///
/// # Errors
/// As [`crate::cli::home::Home::read`].
pub fn steps(s: &Session, vo: &VoId) -> Result<Vec<WhyStep>, Error> {
    let now = s.now();
    let (credential, ssh) = (Credential::read(&s.home, vo)?, SshCertificate::read(&s.home, vo)?);
    let mut steps = vec![sign_in(s, credential.as_ref(), now)];
    steps.extend(clock(credential.as_ref(), ssh.as_ref(), now));
    steps.push(shown(vo, credential.as_ref(), now));
    steps.push(match ssh.filter(|c| now < c.until) {
        Some(c) => WhyStep::ok(AT, "ssh key", format!("certified until {}", c.until)),
        None => {
            let text = format!("there is no SSH certificate for {vo} here that counts now");
            WhyStep::failed(AT, "ssh key", text).hint(format!("get one: xos login --vo {vo}"))
        }
    });
    steps.push(configuration(s));
    Ok(steps)
}

fn sign_in(s: &Session, credential: Option<&Credential>, now: Millis) -> WhyStep {
    match s.signed_in() {
        Ok(login) => {
            let until = login.session_until;
            WhyStep::ok(AT, "sign-in", format!("signed in as {} until {until}", login.person))
        }
        // What is here already goes on to count.
        Err(e) if credential.is_some_and(|c| c.is_valid(now)) => {
            WhyStep::ok(AT, "sign-in", format!("{}; the credential here still counts", e.message))
        }
        Err(e) => super::step_of(AT, "sign-in", &e),
    }
}

/// Whether this computer's clock agrees with the cores' that dated what lies here.
fn clock(c: Option<&Credential>, ssh: Option<&SshCertificate>, now: Millis) -> Option<WhyStep> {
    let (ahead, behind) =
        (c.is_some_and(|c| c.expires <= c.issued), ssh.is_some_and(|ssh| now < ssh.since));
    let hint = "set it, best by NTP; then sign in again: xos login";
    let off = |how: &str| {
        let text = format!("this computer's clock is {how}, by what the core dated");
        WhyStep::failed(AT, "clock", text).hint(hint)
    };
    match (ahead, behind) {
        (true, _) => Some(off("ahead")),
        (_, true) => Some(off("behind")),
        _ => c.map(|_| WhyStep::ok(AT, "clock", "it agrees with what the core dated")),
    }
}

/// The credential, and whether it shows less than the membership.
fn shown(vo: &VoId, credential: Option<&Credential>, now: Millis) -> WhyStep {
    match credential {
        None => WhyStep::failed(AT, "credential", format!("there is none for {vo} here"))
            .hint(format!("get one: xos login --vo {vo}")),
        Some(c) if !c.is_valid(now) => {
            WhyStep::failed(AT, "credential", format!("that for {vo} expired at {}", c.expires))
                .hint(format!("get another: xos login --vo {vo}"))
        }
        Some(c) if c.wish.narrows() => {
            let text = format!("valid until {}; it shows less than your membership", c.expires);
            WhyStep::ok(AT, "credential", text)
                .hint(format!("get a whole one: xos login --vo {vo}"))
        }
        Some(c) => WhyStep::ok(AT, "credential", format!("valid until {}", c.expires)),
    }
}

/// Whether plain ssh knows the grid's machines; `xos ssh` does in any case.
fn configuration(s: &Session) -> WhyStep {
    const WHAT: &str = "ssh configuration";
    let there = s.usual_home().filter(|_| config::is_written(&s.home));
    match there.map(|home| include::is_there(&home)) {
        Some(Ok(true)) => WhyStep::ok(AT, WHAT, "plain ssh knows the grid's machines"),
        Some(Err(e)) => WhyStep::unknown(AT, WHAT, e.message),
        _ => WhyStep::ok(AT, WHAT, "plain ssh does not know the grid's machines; xos ssh does")
            .hint("`xos login` adds them to ~/.ssh/config"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::credential::Wish;
    use xos_api::vom::WhyOutcome;

    fn credential(issued: u64, expires: u64, groups: Option<Vec<&str>>) -> Credential {
        let groups = groups.map(|all| all.into_iter().map(|g| g.parse().unwrap()).collect());
        Credential {
            vo: "demo.rennes".parse().unwrap(),
            key_pem: String::new(),
            chain_pem: String::new(),
            issued: Millis(issued),
            expires: Millis(expires),
            renewable_until: None,
            wish: Wish { groups, ..Wish::default() },
        }
    }

    /// If it failed, people would be sent to their administrator for what a sign-in mends.
    #[test]
    fn a_credential_is_there_valid_and_whole() {
        let vo = "demo.rennes".parse().unwrap();
        let of = |c: Option<&Credential>| shown(&vo, c, Millis(50));
        assert_eq!(of(None).outcome, WhyOutcome::Failed);
        assert_eq!(of(Some(&credential(1, 50, None))).outcome, WhyOutcome::Failed);
        let whole = of(Some(&credential(1, 51, None)));
        assert_eq!((whole.outcome, whole.hint), (WhyOutcome::Ok, None));
        let narrow = of(Some(&credential(1, 51, Some(vec!["physics"]))));
        assert!(narrow.outcome == WhyOutcome::Ok && narrow.text.contains("less"), "{narrow:?}");
    }

    /// If it failed, a wrong clock would look like an expired membership.
    #[test]
    fn a_wrong_clock_is_seen_by_what_the_core_dated() {
        let ahead = clock(Some(&credential(100, 90, None)), None, Millis(100)).unwrap();
        assert!(ahead.outcome == WhyOutcome::Failed && ahead.text.contains("ahead"), "{ahead:?}");
        let right = clock(Some(&credential(1, 90, None)), None, Millis(100)).unwrap();
        assert_eq!(right.outcome, WhyOutcome::Ok);
        assert_eq!(clock(None, None, Millis(100)), None);
    }
}
