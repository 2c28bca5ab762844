//! `xos renew`: credentials stay fresh by themselves, as long as their VO's home renews them.

pub mod unit;

use super::credential::Credential;
use super::output::Outcome;
use super::session::Session;
use super::token::KeptJwt;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use xos_base::{Error, Kind, Millis, VoId};

/// How often the watch looks at the clock, which may jump while this computer sleeps; also the
/// pause before what could not be renewed is tried again.
const LOOK: Duration = Duration::from_secs(60);

/// `xos renew`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos renew              renew what is past two thirds of its life; for cron
  xos renew --watch      stay, and do so until you sign out or nothing can be renewed
  xos renew --install    have systemd run the watch for you, from each sign-in on
  xos renew --remove     no longer

Certificates are renewed for up to 7 days after the sign-in unless the VO or its home site says \
less, and never after the membership has ended. It says nothing when all is well.")]
pub struct RenewArgs {
    /// Stay, and renew whenever it is time.
    #[arg(long, conflicts_with_all = ["install", "remove"])]
    watch: bool,
    /// Install the watch as a service of yours.
    #[arg(long, conflicts_with = "remove")]
    install: bool,
    /// Remove that service.
    #[arg(long)]
    remove: bool,
}

/// What became of one VO's credentials.
#[derive(Serialize)]
struct Looked {
    vo: VoId,
    renewed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<Error>,
}

/// Renews once, or as the arguments say.
///
/// # Errors
/// Why nothing could be done at all.
pub async fn run(s: &Session, args: RenewArgs) -> Outcome {
    match (args.watch, args.install, args.remove) {
        (true, _, _) => watch(s).await,
        (_, true, _) => unit::install(s).await,
        (_, _, true) => unit::remove(s).await,
        _ => once(s).await,
    }
}

async fn once(s: &Session) -> Outcome {
    keep_sign_in(s).await;
    let mut looked = Vec::new();
    for vo in s.vos()? {
        let (renewed, trouble) = match renew(s, &vo).await {
            Ok(renewed) => (renewed, None),
            // No fault, and cron would tell of it again and again.
            Err(e) if is_over(s, &vo, &e)? => (false, None),
            Err(e) => (false, Some(e)),
        };
        looked.push(Looked { vo, renewed, trouble });
    }
    let troubles = || looked.iter().filter_map(|l| l.trouble.as_ref());
    for e in troubles() {
        s.out.warn(e)?;
    }
    s.out.show(&looked, String::new)?;
    Ok(troubles().next().map_or(0, |e| e.kind.exit_code()))
}

/// Renews what is due for `vo`; whether something was.
async fn renew(s: &Session, vo: &VoId) -> Result<bool, Error> {
    let now = s.now();
    let Some(credential) = Credential::read(&s.home, vo)? else { return Ok(false) };
    if !credential.is_valid(now) || credential.is_old(now) {
        s.issue(vo).await?;
        return Ok(true);
    }
    if KeptJwt::read(&s.home, vo)?.is_some_and(|jwt| jwt.is_old(now)) {
        s.jwt(vo, None).await?;
        return Ok(true);
    }
    Ok(false)
}

/// Whether only a new sign-in helps: there is none, or `e` says that it is too old for the VO, and
/// the certificate is no proof any more.
fn is_over(s: &Session, vo: &VoId, e: &Error) -> Result<bool, Error> {
    let now = s.now();
    let proves = |c: &Credential| c.is_valid(now) && c.renewable_until.is_some_and(|t| now < t);
    let by_sign_in = s.login()?.is_some() && e.kind != Kind::Unauthenticated;
    Ok(!by_sign_in && !Credential::read(&s.home, vo)?.is_some_and(|c| proves(&c)))
}

/// The sign-in itself lasts only while it is used.
async fn keep_sign_in(s: &Session) {
    let kept = match s.signed_in() {
        Ok(login) => s.person(&login.person.site()).await.map(|_| ()),
        Err(e) => Err(e),
    };
    if let Err(e) = kept {
        // Certificates renew themselves without it.
        tracing::debug!(error = %e, "no sign-in to keep");
    }
}

/// Which VOs the watch still looks after.
#[derive(Default)]
struct Refused {
    /// VOs whose home renews no more, with when the credential that was refused had been issued.
    vos: BTreeMap<VoId, Millis>,
    /// The exit code of the last refusal.
    code: u8,
}

impl Refused {
    /// Whether there is something to do for this credential; a new sign-in brings another.
    fn lets(&self, credential: &Credential) -> bool {
        self.vos.get(&credential.vo) != Some(&credential.issued)
    }

    fn add(&mut self, credential: &Credential, e: &Error) {
        self.vos.insert(credential.vo.clone(), credential.issued);
        self.code = e.kind.exit_code();
    }
}

/// Whether trying again is in vain until the person does something.
fn is_final(e: &Error) -> bool {
    matches!(e.kind, Kind::Denied | Kind::Unauthenticated)
}

async fn watch(s: &Session) -> Outcome {
    if s.vos()?.is_empty() {
        return Err(Error::unauthenticated("there is nothing to renew")
            .hint("sign in: xos login NAME@SITE")
            .into());
    }
    let mut refused = Refused::default();
    loop {
        keep_sign_in(s).await;
        let mut watched = 0;
        for vo in s.vos()? {
            let Some(credential) = Credential::read(&s.home, &vo)? else { continue };
            if !refused.lets(&credential) {
                continue;
            }
            match renew(s, &vo).await {
                Ok(_) => watched += 1,
                Err(e) if is_final(&e) => {
                    refused.add(&credential, &e);
                    s.out.warn(&given_up(&vo, &e))?;
                }
                Err(e) => {
                    tracing::debug!(%vo, error = %e, "not renewed yet");
                    watched += 1;
                }
            }
        }
        if watched == 0 {
            s.out.note("Nothing is left to renew.")?;
            return Ok(refused.code);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn given_up(vo: &VoId, e: &Error) -> Error {
    let text = format!("the credentials of {vo} are renewed no more: {}", e.message);
    Error { message: text, ..e.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::credential::Wish;
    use crate::cli::home::Home;
    use crate::cli::kept::tests::login;
    use crate::cli::output::Out;
    use std::sync::Arc;
    use xos_base::when::Clock;

    fn credential(vo: &str, issued: u64) -> Credential {
        Credential {
            vo: vo.parse().unwrap(),
            key_pem: String::new(),
            chain_pem: String::new(),
            issued: Millis(issued),
            expires: Millis(issued + 1000),
            renewable_until: None,
            wish: Wish::default(),
        }
    }

    struct At(u64);
    impl Clock for At {
        fn now(&self) -> Millis {
            Millis(self.0)
        }
    }

    /// If it failed, cron would write to a person for hours that a VO wants a new sign-in; or say
    /// nothing where something is wrong that no sign-in mends.
    #[test]
    fn what_only_a_sign_in_mends_is_no_trouble() {
        let dir = tempfile::tempdir().unwrap();
        let at = |now| {
            let (home, out) = (Home::new(&dir.path().join("xos")), Out::new(false, true));
            Session::new(home, out, None, None, Arc::new(At(now)))
        };
        let demo =
            Credential { renewable_until: Some(Millis(2000)), ..credential("demo.rennes", 1500) };
        at(1500).home.write("vo/demo.rennes/credential.json", &demo).unwrap();
        let over = |now, e: &Error| is_over(&at(now), &demo.vo, e).unwrap();
        let (old, denied) = (Error::unauthenticated("too long ago"), Error::denied("suspended"));
        assert!(over(2000, &old) && over(2000, &denied), "nobody is signed in");
        assert!(!over(1999, &old), "the certificate still proves who asks");
        at(1500).keep_login(&login()).unwrap();
        assert!(over(2000, &old), "the sign-in is too old for the VO");
        assert!(!over(2000, &denied) && !over(2000, &Error::unavailable("away")));
    }

    /// If it failed, the watch would ask for ever where it was told no, or not go on after a new
    /// sign-in, or give up because a core was away for a minute.
    #[test]
    fn what_is_refused_for_good_is_left_until_a_new_sign_in() {
        let mut refused = Refused::default();
        let demo = credential("demo.rennes", 1);
        assert!(refused.lets(&demo));
        refused.add(&demo, &Error::denied("suspended"));
        assert!(!refused.lets(&demo));
        assert!(refused.lets(&credential("demo.rennes", 2)));
        assert!(refused.lets(&credential("x.pisa", 1)));
        assert_eq!(refused.code, 77);
        assert!(is_final(&Error::denied("no")) && is_final(&Error::unauthenticated("no")));
        for e in [Error::unavailable("away"), Error::new(Kind::Limited, "busy")] {
            assert!(!is_final(&e), "{e}");
        }
    }
}
