//! Signing in, and the tokens of a session.

use crate::Inner;
use crate::config::Registration;
use crate::policy;
use crate::registry::PersonRecord;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::IpAddr;
use std::time::Duration;
use xos_api::cda::{
    IssueToken, PASSWORD_MAX, Password, RenewToken, SignIn, SignInOptions, SignInRules, SignedIn,
    Token,
};
use xos_api::vom::Memberships;
use xos_base::{Error, Millis, PersonId, SiteId};
use xos_net::caller::TokenClaims;
use xos_net::identity::hex;
use xos_net::sign::Kind;
use xos_net::{Caller, Peer};

/// Longest name that is looked at, in bytes.
const USER_MAX: usize = 128;

/// The answer when somebody tried too often.
pub(crate) fn limited(what: &str, wait: Duration) -> Error {
    let seconds = wait.as_millis().div_ceil(1000);
    Error::limited(format!("too many {what} in a short time"))
        .hint(format!("wait {seconds} seconds, then try again"))
}

/// One answer for a wrong name and a wrong password.
fn wrong() -> Error {
    Error::unauthenticated("wrong name or password").hint("try again, or ask a site administrator")
}

impl Inner {
    pub(crate) async fn sign_in_options(
        &self,
        _: Peer,
        _: SignInOptions,
    ) -> Result<SignInRules, Error> {
        let passwords = self.config.passwords;
        let open_registration = passwords && self.config.registration == Registration::Open;
        let (site, providers) = (self.site.clone(), self.oidc.choice());
        let (passkeys, kerberos) = (self.passkeys.host(), self.kerberos.is_some());
        Ok(SignInRules { site, open_registration, passwords, providers, passkeys, kerberos })
    }

    pub(crate) async fn sign_in(&self, peer: Peer, r: SignIn) -> Result<SignedIn, Error> {
        let audience = self.audience(r.audience)?;
        let (person, record) = self.by_password(peer, &r.user, r.password).await?;
        self.enter(person, &record, audience, r.memberships).await
    }

    /// Who it is, by name and password.
    pub(super) async fn by_password(
        &self,
        peer: Peer,
        user: &str,
        password: Password,
    ) -> Result<(PersonId, PersonRecord), Error> {
        self.takes_passwords()?;
        if user.len() > USER_MAX || password.0.len() > PASSWORD_MAX {
            return Err(Error::invalid(format!(
                "a name has at most {USER_MAX} bytes, a password {PASSWORD_MAX}"
            )));
        }
        let name = self.own_name(user)?;
        let attempt = self.attempt(name, peer.address)?;
        // A malformed name is nobody's, and answered like one.
        let person = self.site.person(name).ok();
        let record = match &person {
            Some(p) => self.person(p).await?.map(|f| f.value),
            None => None,
        };
        let phc = record.as_ref().and_then(|r| r.password.clone());
        let right = self.passwords.verify(password, phc).await;
        if right.is_err() {
            self.limiter.undo(&attempt);
        }
        let (Some(person), Some(record), true) = (person, record, right?) else {
            return Err(wrong());
        };
        self.limiter.succeeded(attempt);
        Ok((person, record))
    }

    /// Refuses where the site takes no passwords from anybody.
    pub(super) fn takes_passwords(&self) -> Result<(), Error> {
        if self.config.passwords {
            return Ok(());
        }
        Err(Error::denied(format!("site {} takes no passwords", self.site))
            .hint("sign in by its identity provider: xos login --provider ID"))
    }

    /// The name in `alice` or `alice@rennes`, at rennes.
    pub(super) fn own_name<'a>(&self, user: &'a str) -> Result<&'a str, Error> {
        match user.split_once('@') {
            None => Ok(user),
            Some((name, site)) if site == self.site.as_str() => Ok(name),
            // Not what was typed: it may be a password, and the audit keeps this text.
            Some(_) => Err(Error::invalid(format!("this name is not of site {}", self.site))
                .hint("people sign in at their own site")),
        }
    }

    /// What a person gets who proved just now by one way who they are, if one is enough.
    pub(crate) async fn enter(
        &self,
        person: PersonId,
        record: &PersonRecord,
        audience: SiteId,
        memberships: bool,
    ) -> Result<SignedIn, Error> {
        self.check_one_is_enough(record)?;
        self.admit(person, record, audience, memberships, self.now()).await
    }

    /// What a person gets who proved at `at` all that is wanted.
    pub(super) async fn admit(
        &self,
        person: PersonId,
        record: &PersonRecord,
        audience: SiteId,
        memberships: bool,
        at: Millis,
    ) -> Result<SignedIn, Error> {
        if record.disabled {
            return Err(Error::denied(format!("{person} may not sign in here"))
                .hint("ask a site administrator"));
        }
        // Tokens and certificates know it in whole seconds.
        let at = Millis::from_secs(at.secs());
        let mut signed_in = self.session(person, record, audience, at)?;
        if memberships {
            let ask = Memberships { person: signed_in.person.clone() };
            signed_in.memberships = Some(self.grid.call(&self.site, ask).await?);
        }
        Ok(signed_in)
    }

    pub(super) fn attempt(
        &self,
        name: &str,
        address: Option<IpAddr>,
    ) -> Result<crate::state::limit::Attempt, Error> {
        self.limiter
            .attempt(name, address, self.now())
            .map_err(|wait| limited("attempts to sign in", wait))
    }

    /// Checks a person's present password, within the same budgets as signing in.
    pub(crate) async fn prove(
        &self,
        person: &PersonId,
        address: Option<IpAddr>,
        password: Password,
        record: &PersonRecord,
    ) -> Result<(), Error> {
        if password.0.len() > PASSWORD_MAX {
            return Err(wrong());
        }
        let attempt = self.attempt(person.name(), address)?;
        let right = self.passwords.verify(password, record.password.clone()).await;
        if right.is_err() {
            self.limiter.undo(&attempt);
        }
        if !right? {
            return Err(Error::unauthenticated("the present password is wrong"));
        }
        self.limiter.succeeded(attempt);
        Ok(())
    }

    /// A token is for this site, or for one that is trusted here.
    pub(crate) fn audience(&self, wanted: Option<SiteId>) -> Result<SiteId, Error> {
        match wanted {
            None => Ok(self.site.clone()),
            Some(site) => self.trust.descriptor(&site).map(|d| d.site),
        }
    }

    pub(crate) async fn renew_token(
        &self,
        caller: Caller,
        r: RenewToken,
    ) -> Result<SignedIn, Error> {
        let audience = self.audience(r.audience)?;
        let session = self.config.session();
        let grant = policy::may_renew_token(&caller, &self.site, session, self.now())?;
        let record = self.enabled(&grant).await?.ok_or_else(wrong)?.value;
        self.session(grant.person, &record, audience, grant.signed_in)
    }

    fn session(
        &self,
        person: PersonId,
        record: &PersonRecord,
        audience: SiteId,
        signed_in: Millis,
    ) -> Result<SignedIn, Error> {
        let session_until = signed_in.plus(self.config.session());
        let site_admin = record.site_admin;
        let claims = TokenClaims {
            site_admin: site_admin && audience == self.site,
            auth_time: Some(signed_in.secs()),
            ..self.claims(&person, &audience, session_until)?
        };
        let token = self.token(claims)?;
        let recovered = self.told_of_recovery(record);
        Ok(SignedIn { person, token, session_until, site_admin, memberships: None, recovered })
    }

    /// A token's content, for at most the configured life and not beyond `limit`.
    fn claims(
        &self,
        person: &PersonId,
        audience: &SiteId,
        limit: Millis,
    ) -> Result<TokenClaims, Error> {
        let now = self.now();
        let exp = now.plus(Duration::from_secs(self.config.token_s)).min(limit);
        Ok(TokenClaims {
            iss: self.site.clone(),
            sub: person.clone(),
            aud: audience.clone(),
            iat: now.secs(),
            exp: exp.secs(),
            jti: hex(&crate::issue::random::<16>()?),
            membership: None,
            site_admin: false,
            auth_time: None,
        })
    }

    fn token(&self, claims: TokenClaims) -> Result<Token, Error> {
        let token = self.keys.signer().sign(Kind::Token, &claims)?;
        Ok(Token { token, audience: claims.aud, expires: Millis::from_secs(claims.exp) })
    }

    pub(crate) async fn issue_token(&self, caller: Caller, r: IssueToken) -> Result<Token, Error> {
        let audience = self.audience(r.audience)?;
        let now = self.now();
        let renewal = self.config.renewal();
        let grant = policy::may_enter(&caller, &r.vo, &self.site, renewal, now)?;
        self.enabled(&grant).await?;
        let member = self.membership(&r.vo, &grant.person).await?;
        let grant = grant.within(&r.vo, &member, now)?;
        let m = policy::narrow(member.membership, r.groups.as_deref(), r.roles.as_deref())?;
        let limit = m.expires.unwrap_or(grant.until).min(grant.until);
        let der = m.to_der().map_err(|e| Error::internal(e.to_string()))?;
        let claims = TokenClaims {
            membership: Some(STANDARD.encode(der)),
            ..self.claims(&grant.person, &audience, limit)?
        };
        self.token(claims)
    }
}
