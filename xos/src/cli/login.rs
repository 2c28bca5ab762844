//! `xos login`, `logout`, `id`.

use super::ask;
use super::credential::Credential;
use super::kept::Login;
use super::oidc;
use super::output::{Failure, Outcome, Style, Table, clean, fields, list, when};
use super::session::{Session, idle};
use super::sites::SiteBook;
use super::values::PersonArg;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use xos_api::cda::{ListSites, SignIn, SignedIn};
use xos_api::vom::MembershipView;
use xos_base::{Error, GroupName, Millis, PersonId, RoleName, VoId};

const LOGIN_EXAMPLES: &str = "\
Examples:
  xos login alice@rennes
  xos login                                  as the person who signed in last
  xos login alice@rennes --vo demo.rennes    only this VO
  xos login alice@rennes --password-file -   the password comes from standard input
  xos login --provider uni                   by your site's identity provider, in a browser
  xos login --provider uni --device          the same with a browser on another device

The password is not kept. What is kept (~/.xos) lets this computer act as you for some hours \
and is renewed while you work; `xos logout` removes it.";

/// `xos login`.
#[derive(Debug, clap::Args)]
#[command(after_help = LOGIN_EXAMPLES)]
pub struct LoginArgs {
    /// Your name and site, as alice@rennes.
    user: Option<PersonArg>,
    /// Read the password from this file (`-`: standard input) instead of asking.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    provider: oidc::ProviderArgs,
}

/// What a sign-in gave for one VO.
#[derive(Debug, Serialize)]
struct VoResult {
    vo: VoId,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    groups: Vec<GroupName>,
    roles: Vec<RoleName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<Error>,
}

#[derive(Serialize)]
struct LoginResult<'a> {
    person: &'a PersonId,
    site_admin: bool,
    session_until: Millis,
    vos: &'a [VoResult],
}

/// Signs in and gets a certificate for each VO, or for those named.
///
/// # Errors
/// What the sites say; a VO that was named and cannot be had is an error, others are shown.
pub async fn login(s: &Session, args: LoginArgs, named: Vec<VoId>) -> Outcome {
    let signed_in = match oidc::sign_in(s, &args.provider, args.user.as_ref()).await? {
        oidc::Came::In(signed_in) => *signed_in,
        oidc::Came::Left(status) => return Ok(status),
        oidc::Came::Otherwise => by_password(s, &args).await?,
    };
    let person = signed_in.person.clone();
    forget_others(s, &person)?;
    let views = signed_in.memberships.clone().unwrap_or_default();
    let login = Login::of(signed_in, s.now());
    s.keep_login(&login)?;
    learn_sites(s, &login).await?;
    let results = fetch(s, &views, &named).await?;
    let result = LoginResult {
        person: &login.person,
        site_admin: login.site_admin,
        session_until: login.session_until,
        vos: &results,
    };
    s.out.show(&result, || shown(s, &login, &results))?;
    let failed = results.iter().find(|r| named.contains(&r.vo) && r.trouble.is_some());
    match failed.and_then(|r| r.trouble.clone()) {
        Some(e) => Err(e.into()),
        None => Ok(0),
    }
}

async fn by_password(s: &Session, args: &LoginArgs) -> Result<SignedIn, Error> {
    let person = who(s, args.user.as_ref())?;
    let own = person.site();
    let client = s.anonymous(&own)?;
    let prompt = format!("Password of {person}: ");
    let password = ask::password(&prompt, args.password_file.as_deref())?;
    let user = person.to_string();
    let signed_in =
        client.call(SignIn { user, password, audience: None, memberships: true }).await?;
    if signed_in.person != person {
        return Err(Error::unauthenticated(format!(
            "{own} signed in {}, not {person}",
            signed_in.person
        )));
    }
    Ok(signed_in)
}

fn who(s: &Session, user: Option<&PersonArg>) -> Result<PersonId, Error> {
    match user {
        Some(user) => match user.site().or(s.named_site()) {
            Some(site) => user.at(site),
            None => user.at(&s.site()?),
        },
        None => s.last_person()?.ok_or_else(|| {
            Error::invalid("who signs in?").hint("say your name and site: xos login alice@rennes")
        }),
    }
}

/// The certificates of another person must not be used under the new one's name.
fn forget_others(s: &Session, person: &PersonId) -> Result<(), Error> {
    for vo in s.home.vos()? {
        let theirs = Credential::read(&s.home, &vo)
            .and_then(|c| c.map(|c| c.membership()).transpose())
            .is_ok_and(|m| m.is_none_or(|m| m.person == *person));
        if !theirs {
            Credential::remove(&s.home, &vo)?;
        }
    }
    Ok(())
}

/// Takes up the sites that the person's own one trusts.
async fn learn_sites(s: &Session, login: &Login) -> Result<(), Failure> {
    let own = login.person.site();
    let sites = match s.person(&own).await?.call(ListSites {}).await {
        Ok(sites) => sites,
        // The known ones may do.
        Err(e) => return s.out.warn(&e),
    };
    let mut book = SiteBook::read(&s.home)?;
    book.last = Some(own.clone());
    for site in sites {
        let descriptor = site.descriptor;
        match book.learn_from(&own, descriptor.clone()) {
            Ok(()) => s.trust()?.add(book.dialled(&descriptor.site).unwrap_or(descriptor))?,
            Err(e) => s.out.warn(&e)?,
        }
    }
    book.write(&s.home)?;
    Ok(())
}

async fn fetch(
    s: &Session,
    views: &[MembershipView],
    named: &[VoId],
) -> Result<Vec<VoResult>, Failure> {
    let all: BTreeSet<&VoId> = match named {
        [] => views.iter().map(|v| &v.vo).collect(),
        named => named.iter().collect(),
    };
    let mut results = Vec::new();
    for vo in all {
        let view = views.iter().find(|v| v.vo == *vo);
        let got = match view.and_then(idle) {
            Some(why) => Err(Error::denied(clean(&why))),
            None => s.issue(vo).await.and_then(|c| Ok((c.membership()?, c.expires))),
        };
        let title = view.map(|v| v.title.clone());
        results.push(match got {
            Ok((m, until)) => VoResult {
                vo: vo.clone(),
                title,
                groups: m.groups.into_iter().map(|g| g.name).collect(),
                roles: m.roles,
                until: Some(until),
                trouble: None,
            },
            Err(e) => VoResult {
                vo: vo.clone(),
                title,
                groups: Vec::new(),
                roles: Vec::new(),
                until: None,
                trouble: Some(e),
            },
        });
    }
    Ok(results)
}

fn shown(s: &Session, login: &Login, results: &[VoResult]) -> String {
    let now = s.now();
    let admin = if login.site_admin { ", administrator of this site" } else { "" };
    let until = when(login.session_until, now);
    let mut text = format!("Signed in as {}{admin}; ends {until}.\n", login.person);
    if results.is_empty() {
        text.push_str("You are in no VO yet. See `xos vo list`; join one: xos vo apply VO");
        return text;
    }
    let mut table = Table::new(&["VO", "GROUPS", "ROLES", "CERTIFICATE"]);
    for r in results {
        let certificate = match (&r.until, &r.trouble) {
            (Some(until), _) => Style::Good.mark(&format!("ends {}", when(*until, now))),
            (None, Some(e)) => Style::Bad.mark(&format!("none: {}", clean(&e.message))),
            (None, None) => String::new(),
        };
        table.row([r.vo.to_string(), list(&r.groups), list(&r.roles), certificate]);
    }
    format!("{text}{}", table.text(""))
}

/// Forgets the sign-in and all certificates.
///
/// # Errors
/// When files cannot be removed.
pub fn logout(s: &Session) -> Outcome {
    let mut any = s.forget_login()?;
    for vo in s.home.vos()? {
        any |= Credential::remove(&s.home, &vo)?;
    }
    let text = if any {
        "Signed out: keys and certificates are removed."
    } else {
        "Nobody was signed in."
    };
    s.out.show(&serde_json::json!({ "was_signed_in": any }), || text.to_owned())?;
    Ok(0)
}

#[derive(Serialize)]
struct Identity {
    person: Option<PersonId>,
    site_admin: bool,
    session_until: Option<Millis>,
    vos: Vec<VoResult>,
}

/// Shows who is signed in, from what this computer keeps.
///
/// # Errors
/// [`xos_base::Kind::Unauthenticated`] when nobody is.
pub fn id(s: &Session) -> Outcome {
    let login = s.login()?;
    let now = s.now();
    let mut vos = Vec::new();
    let mut person = login.as_ref().map(|l| l.person.clone());
    for vo in s.vos()? {
        let Some(c) = Credential::read(&s.home, &vo)? else { continue };
        let m = c.membership()?;
        person.get_or_insert(m.person);
        let ended = Error::unauthenticated("it has expired");
        vos.push(VoResult {
            vo,
            title: None,
            groups: m.groups.into_iter().map(|g| g.name).collect(),
            roles: m.roles,
            until: Some(c.expires),
            trouble: (!c.is_valid(now)).then_some(ended),
        });
    }
    let Some(person) = person else {
        s.signed_in()?;
        return Err(Error::unauthenticated("you are not signed in").into());
    };
    let identity = Identity {
        site_admin: login.as_ref().is_some_and(|l| l.site_admin),
        session_until: login.as_ref().map(|l| l.session_until),
        person: Some(person.clone()),
        vos,
    };
    s.out.show(&identity, || {
        let session = match &login {
            Some(l) => format!("ends {}", when(l.session_until, now)),
            None => format!("over; sign in again: xos login {person}"),
        };
        let admin = if identity.site_admin { "administrator of the site" } else { "" };
        let head = fields(&[
            ("person", person.to_string()),
            ("site", person.site().to_string()),
            ("rights", admin.to_owned()),
            ("sign-in", session),
        ]);
        let mut table = Table::new(&["VO", "GROUPS", "ROLES", "CERTIFICATE"]);
        for r in &identity.vos {
            let until = r.until.map(|t| when(t, now)).unwrap_or_default();
            let certificate = match r.trouble {
                None => Style::Good.mark(&format!("ends {until}")),
                Some(_) => Style::Bad.mark(&format!("expired {until}")),
            };
            table.row([r.vo.to_string(), list(&r.groups), list(&r.roles), certificate]);
        }
        format!("{head}\n\n{}", table.text("No certificate of a VO is here."))
    })?;
    Ok(0)
}
