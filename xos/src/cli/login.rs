//! `xos login`, `logout`.

mod shown;

use super::ask;
use super::credential::{Credential, Wish};
use super::kept::Login;
use super::kerberos;
use super::oidc;
use super::output::{Failure, Outcome, clean, when};
use super::reminders;
use super::renew::unit;
use super::session::{Session, idle};
use super::sites::SiteBook;
use super::ssh::{self, Included};
use super::token;
use super::values::PersonArg;
use shown::{LoginResult, VoResult, shown};
use std::collections::BTreeSet;
use std::path::PathBuf;
use xos_api::cda::{ANY_AUDIENCE, ListSites, OneTimeCode, SignIn, SignInByCode, SignedIn};
use xos_api::vom::{MembershipView, Reminder};
use xos_base::{Error, GroupName, PersonId, RoleName, VoId};

const LOGIN_EXAMPLES: &str = "\
Examples:
  xos login alice@rennes
  xos login                                  as the person who signed in last
  xos login alice@rennes --vo demo.rennes    only this VO
  xos login alice@rennes --password-file -   the password comes from standard input
  xos login --vo demo.rennes --role editor --group physics
                                             with less than all that you are there
  xos login --provider uni                   by your site's identity provider, in a browser
  xos login --provider uni --device          the same with a browser on another device
  xos login alice@rennes --code              by a code from the console, where a passkey is wanted
  xos login --kerberos                       by the Kerberos ticket that you hold

The password is not kept. What is kept (~/.xos) lets this computer act as you for some hours \
and is renewed while you work; `xos logout` removes it.

For each VO there are three credentials that say the same: a certificate for XOS, one for ssh \
(also given to a running ssh-agent), and a token for other services (`xos token`). With --role or \
--group all three say only that much. A line at the top of ~/.ssh/config lets plain ssh reach \
the machines of your sites.";

/// `xos login`.
#[derive(Debug, clap::Args)]
#[command(after_help = LOGIN_EXAMPLES)]
pub struct LoginArgs {
    /// Your name and site, as alice@rennes.
    user: Option<PersonArg>,
    /// Read the password from this file (`-`: standard input) instead of asking.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Sign in by a code from the console, under Ways to sign in; `--password-file` then names the
    /// file with the code.
    #[arg(long, conflicts_with_all = ["provider", "kerberos"])]
    code: bool,
    #[command(flatten)]
    provider: oidc::ProviderArgs,
    #[command(flatten)]
    kerberos: kerberos::KerberosArgs,
    /// Only this role, of those you have in the VO (may be repeated).
    #[arg(long, value_name = "ROLE")]
    role: Vec<RoleName>,
    /// Only this group, of those you are in (may be repeated); `members` always stays.
    #[arg(long, value_name = "GROUP")]
    group: Vec<GroupName>,
    /// The service that shall take the token [default: any of WLCG's].
    #[arg(long, value_name = "NAME", value_parser = token::audience)]
    jwt_audience: Option<String>,
    /// Leave ~/.ssh/config alone.
    #[arg(long)]
    no_ssh_config: bool,
}

impl LoginArgs {
    /// What the credentials shall show.
    fn wish(&self, named: &[VoId]) -> Result<Wish, Error> {
        let wish = Wish {
            groups: (!self.group.is_empty()).then(|| self.group.clone()),
            roles: (!self.role.is_empty()).then(|| self.role.clone()),
            audience: self.jwt_audience.clone().unwrap_or_else(|| ANY_AUDIENCE.to_owned()),
        };
        if wish.narrows() && named.len() != 1 {
            return Err(Error::invalid("groups and roles are those of one VO")
                .hint("say in which: --vo VO"));
        }
        Ok(wish)
    }
}

/// Signs in and gets a certificate for each VO, or for those named.
///
/// # Errors
/// What the sites say; a VO that was named and cannot be had is an error, others are shown.
pub async fn login(s: &Session, args: LoginArgs, named: Vec<VoId>) -> Outcome {
    let wish = args.wish(&named)?;
    let by_ticket = kerberos::sign_in(s, &args.kerberos, args.user.as_ref()).await?;
    let signed_in = match by_ticket {
        Some(signed_in) => signed_in,
        None => match oidc::sign_in(s, &args.provider, args.user.as_ref()).await? {
            oidc::Came::In(signed_in) => *signed_in,
            oidc::Came::Left(status) => return Ok(status),
            oidc::Came::Otherwise => by_password_or_code(s, &args).await?,
        },
    };
    if let Some(recovered) = &signed_in.recovered {
        s.out.note(&format!(
            "{} made a way to sign in as you at {}. If you did not ask for it, tell the \
             administrators of your site.",
            recovered.by,
            when(recovered.at, s.now())
        ))?;
    }
    let person = signed_in.person.clone();
    forget_others(s, &person).await?;
    let views = signed_in.memberships.clone().unwrap_or_default();
    let default_vo = match named.as_slice() {
        [vo] => Some(vo.clone()),
        _ => s.last_login()?.filter(|l| l.person == person).and_then(|l| l.default_vo),
    };
    let login = Login::of(signed_in, default_vo, s.now());
    s.keep_login(&login)?;
    learn_sites(s, &login).await?;
    let results = fetch(s, &views, &named, &wish).await?;
    let failed = results.iter().find(|r| named.contains(&r.vo) && r.trouble.is_some());
    let result = LoginResult {
        person: &login.person,
        site_admin: login.site_admin,
        session_until: login.session_until,
        narrowed: wish.narrows(),
        failed: failed.map(|r| &r.vo),
        ssh_config: others_learn(s, !args.no_ssh_config).await?,
        vos: &results,
        reminders: reminded(s, &login.person).await?,
    };
    s.out.show(&result, || shown(&login, &result, s.now()))?;
    match failed.and_then(|r| r.trouble.clone()) {
        Some(e) => Err(e.into()),
        None => Ok(0),
    }
}

/// What the person is reminded of. A sign-in is good without it.
async fn reminded(s: &Session, person: &PersonId) -> Result<Vec<Reminder>, Failure> {
    match reminders::fetch(s, person).await {
        Ok(all) => Ok(all),
        Err(e) => {
            s.out.warn(&e)?;
            Ok(Vec::new())
        }
    }
}

/// What other programs of the person need to know of the sign-in: ssh, and the service that renews.
async fn others_learn(s: &Session, include: bool) -> Result<Option<Included>, Failure> {
    if s.vos()?.is_empty() {
        return Ok(None);
    }
    if let Err(e) = unit::wake(s).await {
        s.out.warn(&e)?;
    }
    match ssh::set_up(s, include) {
        Ok(included) => {
            if included != Included::Left
                && let Some(e) = ssh::overlooked(s)
            {
                s.out.warn(&e)?;
            }
            Ok(Some(included))
        }
        Err(e) => {
            s.out.warn(&e)?;
            Ok(None)
        }
    }
}

async fn by_password_or_code(s: &Session, args: &LoginArgs) -> Result<SignedIn, Error> {
    let person = who(s, args.user.as_ref())?;
    let own = person.site();
    let client = s.anonymous(&own)?;
    let what = if args.code { "Code from the console for" } else { "Password of" };
    let password = ask::password(&format!("{what} {person}: "), args.password_file.as_deref())?;
    let signed_in = if args.code {
        let code = OneTimeCode(password.0);
        client.call(SignInByCode { code, audience: None, memberships: true }).await?
    } else {
        let user = person.to_string();
        client.call(SignIn { user, password, audience: None, memberships: true }).await?
    };
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
        None => s.last_login()?.map(|l| l.person).ok_or_else(|| {
            Error::invalid("who signs in?").hint("say your name and site: xos login alice@rennes")
        }),
    }
}

/// The certificates of another person must not be used under the new one's name.
async fn forget_others(s: &Session, person: &PersonId) -> Result<(), Error> {
    for vo in s.home.vos()? {
        let theirs = Credential::read(&s.home, &vo)
            .and_then(|c| c.map(|c| c.membership()).transpose())
            .is_ok_and(|m| m.is_none_or(|m| m.person == *person));
        if !theirs {
            ssh::forget(s, &vo).await?;
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
    wish: &Wish,
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
            None => s.obtain(vo, wish, None).await.and_then(|c| Ok((c.membership()?, c.expires))),
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

/// Forgets the sign-in and all credentials.
///
/// # Errors
/// When files cannot be removed.
pub async fn logout(s: &Session) -> Outcome {
    let mut any = s.forget_login()?;
    for vo in s.home.vos()? {
        any |= ssh::forget(s, &vo).await?;
    }
    reminders::forget(s)?;
    if let Err(e) = ssh::take_down(s) {
        s.out.warn(&e)?;
    }
    let text = if any {
        "Signed out: keys and certificates are removed."
    } else {
        "Nobody was signed in."
    };
    s.out.show(&serde_json::json!({ "was_signed_in": any }), || text.to_owned())?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: LoginArgs,
    }

    fn wish(words: &[&str], named: &[&str]) -> Result<Wish, Error> {
        let line = Line::parse_from(["login"].iter().chain(words));
        let named: Vec<VoId> = named.iter().map(|v| v.parse().unwrap()).collect();
        line.args.wish(&named)
    }

    /// If it failed, somebody who signs in with one role for a risky piece of work would act with
    /// all that they are.
    #[test]
    fn what_is_named_is_all_that_is_asked_for() {
        let all = wish(&["alice@rennes"], &[]).unwrap();
        assert_eq!(all, Wish::default());
        assert!(!all.narrows());
        let words = ["--role", "editor", "--role", "admin", "--jwt-audience", "https://a"];
        let less = wish(&words, &["demo.rennes"]).unwrap();
        assert!(less.narrows() && less.groups.is_none());
        assert_eq!(less.roles.unwrap(), ["editor".parse().unwrap(), "admin".parse().unwrap()]);
        assert_eq!(less.audience, "https://a");
        assert!(wish(&["--group", "physics"], &["demo.rennes"]).unwrap().narrows());
        for named in [&[] as &[&str], &["demo.rennes", "x.pisa"]] {
            assert!(wish(&["--role", "editor"], named).unwrap_err().hint.unwrap().contains("--vo"));
        }
    }
}
