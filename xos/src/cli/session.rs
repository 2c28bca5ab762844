//! Which site, which proof: from what the person keeps at home to a client of a core.

use super::credential::{Credential, past_two_thirds};
use super::home::Home;
use super::kept::Login;
use super::output::Out;
use super::sites::SiteBook;
use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;
use xos_api::cda::RenewToken;
use xos_api::vom::{MemberState, MembershipView, Memberships};
use xos_base::when::Clock;
use xos_base::{Error, Kind, Millis, SiteId, VoId};
use xos_net::{Client, IdentityCell, Proof, Trust};

const LOGIN: &str = "login.json";

/// What else of this process's surroundings matters: what other programs of the person use.
#[derive(Clone, Debug, Default)]
pub struct Around {
    /// The person's home folder (HOME).
    pub user_home: Option<PathBuf>,
    /// The home of the person's account, where ssh looks whatever HOME says.
    pub account_home: Option<PathBuf>,
    /// Where this program is.
    pub program: Option<PathBuf>,
    /// An ssh-agent is told to listen (SSH_AUTH_SOCK).
    pub agent: bool,
}

/// The person's side of every command.
pub struct Session {
    /// Where files are kept.
    pub home: Home,
    /// Where output goes.
    pub out: Out,
    /// The surroundings.
    pub around: Around,
    site: Option<SiteId>,
    vo: Option<VoId>,
    clock: Arc<dyn Clock>,
    trust: OnceCell<Trust>,
}

impl Session {
    /// A session with the site and VO that the command line names, if it does.
    pub fn new(
        home: Home,
        out: Out,
        site: Option<SiteId>,
        vo: Option<VoId>,
        clock: Arc<dyn Clock>,
    ) -> Session {
        let (around, trust) = (Around::default(), OnceCell::new());
        Session { home, out, around, site, vo, clock, trust }
    }

    /// The same in these surroundings.
    pub fn within(self, around: Around) -> Session {
        Session { around, ..self }
    }

    /// The time now.
    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// The sites that TLS trusts.
    ///
    /// # Errors
    /// As [`SiteBook::read`].
    pub fn trust(&self) -> Result<&Trust, Error> {
        if let Some(trust) = self.trust.get() {
            return Ok(trust);
        }
        let trust = SiteBook::read(&self.home)?.trust()?;
        Ok(self.trust.get_or_init(|| trust))
    }

    /// The sign-in, if there is one that has not ended.
    ///
    /// # Errors
    /// As [`Home::read`].
    pub fn login(&self) -> Result<Option<Login>, Error> {
        Ok(self.last_login()?.filter(|l| self.now() < l.session_until))
    }

    /// The last sign-in, whether or not it has ended.
    ///
    /// # Errors
    /// As [`Home::read`].
    pub fn last_login(&self) -> Result<Option<Login>, Error> {
        self.home.read(LOGIN)
    }

    /// Keeps a sign-in.
    ///
    /// # Errors
    /// As [`Home::write`].
    pub fn keep_login(&self, login: &Login) -> Result<(), Error> {
        self.home.write(LOGIN, login)
    }

    /// Forgets the sign-in; whether there was one.
    ///
    /// # Errors
    /// As [`Home::remove`].
    pub fn forget_login(&self) -> Result<bool, Error> {
        self.home.remove(LOGIN)
    }

    /// The core has ended the sign-in: what remains is who it was, so that they need not say it
    /// again.
    ///
    /// # Errors
    /// As [`Home::write`].
    pub fn end_login(&self) -> Result<(), Error> {
        match self.last_login()? {
            Some(login) => self.keep_login(&login.ended(self.now())),
            None => Ok(()),
        }
    }

    /// The sign-in.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`] when there is none, or it has ended.
    pub fn signed_in(&self) -> Result<Login, Error> {
        match self.last_login()? {
            None => Err(Error::unauthenticated("you are not signed in")
                .hint("sign in: xos login NAME@SITE")),
            Some(l) if l.session_until <= self.now() => Err(Error::unauthenticated(format!(
                "your sign-in as {} ended at {}",
                l.person, l.session_until
            ))
            .hint(format!("sign in again: xos login {}", l.person))),
            Some(l) => Ok(l),
        }
    }

    /// The site named on the command line.
    pub fn named_site(&self) -> Option<&SiteId> {
        self.site.as_ref()
    }

    /// The site named on the command line, else that of the last sign-in.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when no site is known.
    pub fn site(&self) -> Result<SiteId, Error> {
        if let Some(site) = &self.site {
            return Ok(site.clone());
        }
        SiteBook::read(&self.home)?.last.ok_or_else(|| {
            Error::not_found("this computer knows no site yet")
                .hint("add yours: xos site add ADDRESS (its administrator knows the address)")
        })
    }

    /// The site named on the command line, else the VO's home.
    pub fn site_of(&self, vo: &VoId) -> SiteId {
        self.site.clone().unwrap_or_else(|| vo.site())
    }

    /// A client of `site`.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the site is not known.
    pub fn client(&self, site: &SiteId, proof: &Proof) -> Result<Client, Error> {
        Client::new(site.clone(), self.knowing(site)?, proof)
    }

    /// The sites that TLS trusts, when `site` is one of them.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when it is not known.
    pub fn knowing(&self, site: &SiteId) -> Result<&Trust, Error> {
        let trust = self.trust()?;
        if trust.descriptor(site).is_err() {
            return Err(Error::not_found(format!("this computer does not know the site {site}"))
                .hint("add it: xos site add ADDRESS (its administrator knows the address)"));
        }
        Ok(trust)
    }

    /// A client of `site` that says nobody's name.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the site is not known.
    pub fn anonymous(&self, site: &SiteId) -> Result<Client, Error> {
        self.client(site, &Proof::None)
    }

    /// A client of `site` that acts as the person who signed in.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`] when nobody is signed in.
    pub async fn person(&self, site: &SiteId) -> Result<Client, Error> {
        let token = self.token(site).await?;
        self.client(site, &Proof::Token(token))
    }

    /// A token for `audience`, renewed past two thirds of its life.
    async fn token(&self, audience: &SiteId) -> Result<Arc<str>, Error> {
        let now = self.now();
        let mut login = self.signed_in()?;
        let kept = login.token(audience, now).cloned();
        if let Some(t) = &kept
            && !past_two_thirds(t.issued, t.token.expires, now)
        {
            return Ok(t.token.token.as_str().into());
        }
        let own = login.person.site();
        let renewed = match Session::own_proof(&login, now) {
            Ok(proof) => {
                let ask = RenewToken { audience: (*audience != own).then(|| audience.clone()) };
                self.client(&own, &proof)?.call(ask).await
            }
            Err(e) => Err(e),
        };
        match (renewed, kept) {
            (Ok(signed_in), _) => {
                let token: Arc<str> = signed_in.token.token.as_str().into();
                login.session_until = signed_in.session_until;
                login.site_admin = signed_in.site_admin;
                login.keep(signed_in.token, now);
                self.keep_login(&login)?;
                Ok(token)
            }
            // Still good for a few minutes; the next command tries again.
            (Err(e), Some(t)) => {
                tracing::debug!(error = %e, "token not renewed");
                Ok(t.token.token.as_str().into())
            }
            (Err(e), None) => Err(e),
        }
    }

    /// What shows the person's own site that they signed in: a token that has not expired.
    fn own_proof(login: &Login, now: Millis) -> Result<Proof, Error> {
        match login.token(&login.person.site(), now) {
            Some(t) => Ok(Proof::Token(t.token.token.as_str().into())),
            None => Err(Error::unauthenticated(format!(
                "your sign-in as {} was left alone too long",
                login.person
            ))
            .hint(format!("sign in again: xos login {}", login.person))),
        }
    }

    /// A client for looking after a VO, at its home unless the command line names a site: as the
    /// person who signed in, whose word carries all that they are; else by the VO's certificate.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`] when there is neither.
    pub async fn vo_client(&self, vo: &VoId) -> Result<Client, Error> {
        self.vo_client_at(vo, &self.site_of(vo)).await
    }

    /// The same at `site`.
    ///
    /// # Errors
    /// As [`Session::vo_client`].
    pub async fn vo_client_at(&self, vo: &VoId, site: &SiteId) -> Result<Client, Error> {
        match self.person(site).await {
            Err(e) if e.kind == Kind::Unauthenticated => {
                match Credential::read(&self.home, vo)?.filter(|c| c.is_valid(self.now())) {
                    Some(c) => {
                        let identity = IdentityCell::new(c.identity()?);
                        self.client(site, &Proof::Certificate(identity))
                    }
                    None => Err(e),
                }
            }
            other => other,
        }
    }

    /// The VOs that this computer holds a credential for.
    ///
    /// # Errors
    /// As [`Home::vos`].
    pub fn vos(&self) -> Result<Vec<VoId>, Error> {
        let mut vos = Vec::new();
        for vo in self.home.vos()? {
            if Credential::read(&self.home, &vo)?.is_some() {
                vos.push(vo);
            }
        }
        Ok(vos)
    }

    /// The VO that the command line or XOS_VO names.
    pub fn named_vo(&self) -> Option<&VoId> {
        self.vo.as_ref()
    }

    /// The VO of the only credential here. Folders are made only for credentials, so that none is
    /// read.
    ///
    /// # Errors
    /// As [`Home::vos`].
    pub fn only_vo(&self) -> Result<Option<VoId>, Error> {
        let mut vos = self.home.vos()?;
        Ok(if vos.len() == 1 { vos.pop() } else { None })
    }

    /// The VO to act in: the named one, else the only one.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when it is not clear, [`Kind::Unauthenticated`] when there is none.
    pub async fn the_vo(&self) -> Result<VoId, Error> {
        if let Some(vo) = &self.vo {
            return Ok(vo.clone());
        }
        let mut vos = match self.only_vo()? {
            Some(vo) => vec![vo],
            None => self.vos()?,
        };
        if vos.is_empty() {
            let views = self.memberships().await?;
            vos = views.iter().filter(|v| idle(v).is_none()).map(|v| v.vo.clone()).collect();
        }
        let mut vos = vos.into_iter();
        match (vos.next(), vos.next()) {
            (Some(vo), None) => Ok(vo),
            (None, _) => Err(Error::denied("you are in no VO yet")
                .hint("see `xos vo list`, then ask to join one: xos vo apply VO")),
            (Some(a), Some(b)) => Err(Error::invalid("you are in several VOs: say which one")
                .hint(format!("add for example --vo {a} or --vo {b}, or set XOS_VO"))),
        }
    }

    /// The memberships that the person's own site knows.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`] when nobody is signed in.
    pub async fn memberships(&self) -> Result<Vec<MembershipView>, Error> {
        let person = self.signed_in()?.person;
        self.person(&person.site()).await?.call(Memberships { person }).await
    }
}

/// Why nobody can act by this membership now; `None` when they can.
pub fn idle(view: &MembershipView) -> Option<String> {
    let halted = view.vo_state.halted().map(|why| format!("the VO {why}"));
    halted.or_else(|| match &view.member.state {
        MemberState::Suspended { reason } => Some(format!("suspended: {reason}")),
        MemberState::Active => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::credential::Wish;
    use crate::cli::kept::tests::login;

    struct At(Millis);
    impl Clock for At {
        fn now(&self) -> Millis {
            self.0
        }
    }

    fn session(dir: &std::path::Path, now: u64) -> Session {
        let out = Out::new(false, true);
        Session::new(Home::new(&dir.join("xos")), out, None, None, Arc::new(At(Millis(now))))
    }

    #[tokio::test]
    async fn who_must_sign_in_is_told_how() {
        let dir = tempfile::tempdir().unwrap();
        let s = session(dir.path(), 5);
        let e = s.signed_in().err().unwrap();
        assert_eq!(e.kind, Kind::Unauthenticated);
        s.keep_login(&login()).unwrap();
        assert!(s.signed_in().is_ok());
        let e = session(dir.path(), 1_000_000).signed_in().err().unwrap();
        assert!(e.to_string().contains("xos login alice@rennes"), "{e}");
        s.end_login().unwrap();
        let e = s.signed_in().err().unwrap();
        assert!(e.to_string().contains("xos login alice@rennes"), "{e}");
    }

    #[tokio::test]
    async fn an_unclear_vo_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let s = session(dir.path(), 5);
        let credential = |vo: &str| Credential {
            vo: vo.parse().unwrap(),
            key_pem: String::new(),
            chain_pem: String::new(),
            issued: Millis(0),
            expires: Millis(9),
            renewable_until: None,
            wish: Wish::default(),
        };
        s.home.write("vo/demo.rennes/credential.json", &credential("demo.rennes")).unwrap();
        assert_eq!(s.the_vo().await.unwrap().as_str(), "demo.rennes");
        s.home.write("vo/other.pisa/credential.json", &credential("other.pisa")).unwrap();
        let e = s.the_vo().await.unwrap_err();
        assert!(e.to_string().contains("--vo demo.rennes"), "{e}");
    }
}
