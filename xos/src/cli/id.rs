//! `xos id`: who is signed in, and the credentials that this computer keeps.

use super::credential::Credential;
use super::output::{Outcome, Style, Table, clean, fields, list, when};
use super::reminders;
use super::session::{Session, idle};
use super::ssh::key::SshCertificate;
use super::token::KeptJwt;
use serde::Serialize;
use std::time::Duration;
use xos_api::vom::Reminder;
use xos_base::{Error, GroupName, Millis, PersonId, RoleName, VoId};

/// How long the person's site may take to say how their memberships stand.
const ASK_MAX: Duration = Duration::from_secs(3);

#[derive(Serialize)]
struct Identity {
    person: PersonId,
    site_admin: bool,
    session_until: Option<Millis>,
    /// The VO of plain `ssh`.
    default_vo: Option<VoId>,
    vos: Vec<Held>,
    /// Memberships by which the person cannot act now, as far as their site could be asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    idle: Vec<Idle>,
    /// As of the last sign-in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reminders: Vec<Reminder>,
}

#[derive(Serialize)]
struct Idle {
    vo: VoId,
    why: String,
}

/// What is held for one VO. The three credentials were issued together and say the same.
#[derive(Serialize)]
struct Held {
    vo: VoId,
    groups: Vec<GroupName>,
    roles: Vec<RoleName>,
    /// They say less than the membership.
    narrowed: bool,
    /// When the certificate expires.
    until: Millis,
    /// Until when it can be renewed without a new sign-in.
    #[serde(skip_serializing_if = "Option::is_none")]
    renewable_until: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh: Option<HeldSsh>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<HeldToken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<Error>,
}

#[derive(Serialize)]
struct HeldSsh {
    until: Millis,
    fingerprint: String,
}

#[derive(Serialize)]
struct HeldToken {
    until: Millis,
    audience: Vec<String>,
}

/// Shows who is signed in, from what this computer keeps, and which memberships are suspended, as
/// the person's site says when it answers.
///
/// # Errors
/// [`xos_base::Kind::Unauthenticated`] when nobody is.
pub async fn id(s: &Session) -> Outcome {
    let login = s.login()?;
    let now = s.now();
    let mut person = login.as_ref().map(|l| l.person.clone());
    let mut vos = Vec::new();
    for vo in s.vos()? {
        let Some(c) = Credential::read(&s.home, &vo)? else { continue };
        vos.push(held(s, &c, &mut person)?);
    }
    let Some(person) = person else {
        s.signed_in()?;
        return Err(Error::unauthenticated("you are not signed in").into());
    };
    let identity = Identity {
        site_admin: login.as_ref().is_some_and(|l| l.site_admin),
        session_until: login.as_ref().map(|l| l.session_until),
        default_vo: s.default_vo()?,
        person,
        vos,
        idle: idle_here(s).await,
        reminders: reminders::kept(s)?,
    };
    s.out.show(&identity, || text(&identity, now))?;
    Ok(0)
}

async fn idle_here(s: &Session) -> Vec<Idle> {
    let asked = tokio::time::timeout(ASK_MAX, s.memberships()).await;
    let late = || Err(Error::unavailable("the site does not answer"));
    let views = asked.unwrap_or_else(|_| late()).unwrap_or_else(|error| {
        tracing::debug!(%error, "it is not known which memberships are suspended");
        Vec::new()
    });
    views.iter().filter_map(|v| idle(v).map(|why| Idle { vo: v.vo.clone(), why })).collect()
}

/// What is held beside `c`; `person` is whose it is, when that was not known.
fn held(s: &Session, c: &Credential, person: &mut Option<PersonId>) -> Result<Held, Error> {
    let m = c.membership()?;
    person.get_or_insert(m.person);
    let ended = Error::unauthenticated("it has expired");
    let ssh = SshCertificate::read(&s.home, &c.vo)?;
    let token = KeptJwt::read(&s.home, &c.vo)?;
    Ok(Held {
        vo: c.vo.clone(),
        groups: m.groups.into_iter().map(|g| g.name).collect(),
        roles: m.roles,
        narrowed: c.wish.narrows(),
        until: c.expires,
        renewable_until: c.renewable_until,
        ssh: ssh.map(|c| HeldSsh { until: c.until, fingerprint: c.fingerprint }),
        token: token.map(|t| HeldToken { until: t.expires, audience: t.audience }),
        trouble: (!c.is_valid(s.now())).then_some(ended),
    })
}

fn text(identity: &Identity, now: Millis) -> String {
    let person = &identity.person;
    let session = match identity.session_until {
        Some(until) => format!("ends {}", when(until, now)),
        None => format!("over; sign in again: xos login {person}"),
    };
    let admin = if identity.site_admin { "administrator of the site" } else { "" };
    let several = identity.vos.len() > 1;
    let default_vo = identity.default_vo.as_ref().filter(|_| several).map(ToString::to_string);
    let head = fields(&[
        ("person", person.to_string()),
        ("site", person.site().to_string()),
        ("rights", admin.to_owned()),
        ("sign-in", session),
        ("plain ssh", default_vo.unwrap_or_default()),
    ]);
    let mut table = Table::new(&["VO", "GROUPS", "ROLES", "CERTIFICATE", "SSH", "TOKEN"]);
    let state = |until: Option<Millis>| match until {
        None => Style::Bad.mark("none"),
        Some(until) if now < until => Style::Good.mark(&format!("ends {}", when(until, now))),
        Some(until) => Style::Bad.mark(&format!("expired {}", when(until, now))),
    };
    for h in &identity.vos {
        let narrowed = if h.narrowed { "\n(narrowed)" } else { "" };
        let ssh = h.ssh.as_ref();
        let print = ssh.map(|c| format!("\n{}", clean(&c.fingerprint))).unwrap_or_default();
        let token = h.token.as_ref();
        let whom = token.map(|t| format!("\nfor {}", clean(&list(&t.audience))));
        table.row([
            format!("{}{narrowed}", h.vo),
            list(&h.groups),
            list(&h.roles),
            state(Some(h.until)),
            format!("{}{print}", state(ssh.map(|c| c.until))),
            format!("{}{}", state(token.map(|t| t.until)), whom.unwrap_or_default()),
        ]);
    }
    let mut stopped = String::new();
    for Idle { vo, why } in &identity.idle {
        let line = format!("you in {vo}: {}", clean(why));
        stopped.push_str(&format!("\n{}", Style::Bad.mark(&line)));
    }
    let reminders = reminders::lines(&identity.reminders, now);
    format!("{head}\n\n{}{stopped}{reminders}", table.text("No certificate of a VO is here."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::golden;

    fn one(vo: &str, narrowed: bool, all: bool) -> Held {
        Held {
            vo: vo.parse().unwrap(),
            groups: vec!["members".parse().unwrap(), "physics".parse().unwrap()],
            roles: vec!["editor".parse().unwrap()],
            narrowed,
            until: Millis::from_secs(50_000),
            renewable_until: (!narrowed).then_some(Millis::from_secs(600_000)),
            ssh: all.then(|| HeldSsh {
                until: Millis::from_secs(50_000),
                fingerprint: "SHA256:uNiVztksCsDhcc0u9e8BrrJXVGDn9L3+dZ8JXaXQ0ig".into(),
            }),
            token: all.then(|| HeldToken {
                until: Millis::from_secs(9_000),
                audience: vec!["https://wlcg.cern.ch/jwt/v1/any".into()],
            }),
            trouble: None,
        }
    }

    /// If it failed, people would not see which of their credentials still holds, or a program
    /// that reads the JSON would look for it in vain.
    #[test]
    fn the_three_credentials_stand_side_by_side() {
        let identity = Identity {
            person: "alice@rennes".parse().unwrap(),
            site_admin: false,
            session_until: Some(Millis::from_secs(40_000)),
            default_vo: Some("demo.rennes".parse().unwrap()),
            vos: vec![one("demo.rennes", false, true), one("x.pisa", true, false)],
            idle: Vec::new(),
            reminders: Vec::new(),
        };
        let plain: String = text(&identity, Millis::from_secs(10_000))
            .chars()
            .filter(|c| !('\u{2060}'..='\u{2064}').contains(c))
            .collect();
        for want in [
            "plain ssh",
            "CERTIFICATE",
            "SHA256:uNiVztksCsDhcc0u9e8BrrJXVGDn9L3+dZ8JXaXQ0ig",
            "(narrowed)",
            "expired 16 min ago",
            "for https://wlcg.cern.ch/jwt/v1/any",
        ] {
            assert!(plain.contains(want), "{want:?} is missing:\n{plain}");
        }
        let json = serde_json::to_string_pretty(&identity).unwrap() + "\n";
        golden::check("id.json.txt", &json);
    }
}
