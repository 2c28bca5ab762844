//! Acting as a member of a VO, by a certificate that is got and renewed as needed.

use super::credential::{Credential, Wish};
use super::session::Session;
use super::ssh::{self, key::SshKey};
use std::time::Duration;
use xos_api::Request;
use xos_api::aem::{ListUnits, UnitFilter};
use xos_base::{Error, JobId, Kind, Millis, SiteId, VoId};
use xos_net::{Client, IdentityCell, Proof};

/// Longest time without a look at the clock, which may jump while this computer sleeps.
const LOOK_MAX: Duration = Duration::from_secs(60);

/// A client that acts as a member, with the credential behind it.
pub struct Member {
    /// The VO's credential.
    pub credential: Credential,
    /// The site asked.
    pub site: SiteId,
    /// The client of its core.
    pub client: Client,
    /// When a new certificate is to be got.
    renewal: Millis,
}

impl Session {
    /// Acts as a member of `vo` at `site`, with a certificate that is renewed past two thirds of
    /// its life, or got now when there is none.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`] when the person must sign in.
    pub async fn member(&self, vo: &VoId, site: &SiteId) -> Result<Member, Error> {
        let now = self.now();
        let credential = match Credential::read(&self.home, vo)?.filter(|c| c.is_valid(now)) {
            Some(c) if !c.is_old(now) => c,
            Some(c) => match self.issue(vo).await {
                Ok(new) => new,
                Err(e) => {
                    tracing::debug!(error = %e, "certificate not renewed");
                    c
                }
            },
            None => self.issue(vo).await?,
        };
        self.member_by(credential, site)
    }

    /// Acts by this credential.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when its file was changed by hand.
    pub fn member_by(&self, credential: Credential, site: &SiteId) -> Result<Member, Error> {
        let identity = IdentityCell::new(credential.identity()?);
        let client = self.client(site, &Proof::Certificate(identity))?;
        let renewal = credential.renewal(self.now());
        Ok(Member { credential, site: site.clone(), client, renewal })
    }

    /// Renews what is held for `vo`, with the same groups, roles and audience as before.
    ///
    /// # Errors
    /// As [`Session::obtain`].
    pub async fn issue(&self, vo: &VoId) -> Result<Credential, Error> {
        let wish = Credential::read(&self.home, vo)?.map(|c| c.wish).unwrap_or_default();
        let key = SshKey::kept(&self.home, vo)?;
        self.obtain(vo, &wish, key).await
    }

    /// Gets new credentials for `vo`, by the sign-in or by the present certificate: for this SSH
    /// key, or a new one. A running ssh-agent and ssh's configuration learn of them.
    ///
    /// # Errors
    /// What the VO's home says; [`Kind::Unauthenticated`] when the person must sign in.
    pub async fn obtain(
        &self,
        vo: &VoId,
        wish: &Wish,
        key: Option<SshKey>,
    ) -> Result<Credential, Error> {
        let client = self.issuer(vo).await?;
        let key = match key {
            Some(key) => key,
            None => SshKey::make()?,
        };
        let new = !self.home.vos()?.contains(vo);
        let now = self.now();
        let credential = Credential::issue(&self.home, &client, vo, wish, &key, now).await?;
        ssh::credential_came(self, vo, new).await;
        Ok(credential)
    }

    /// A client of the VO's home that may ask for credentials: by the sign-in, else by the present
    /// certificate.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`] when the person must sign in.
    pub async fn issuer(&self, vo: &VoId) -> Result<Client, Error> {
        let (now, home) = (self.now(), vo.site());
        match self.person(&home).await {
            Ok(client) => Ok(client),
            Err(e) => match Credential::read(&self.home, vo)?.filter(|c| c.is_valid(now)) {
                Some(c) => {
                    let identity = IdentityCell::new(c.identity()?);
                    self.client(&home, &Proof::Certificate(identity))
                }
                None => Err(e),
            },
        }
    }

    /// A new certificate, when the credential behind a refused request may be the reason: it was
    /// not taken, or the membership has changed since it was issued.
    ///
    /// # Errors
    /// `refused`, when a new one would change nothing or cannot be had.
    pub async fn changed(&self, old: &Credential, refused: Error) -> Result<Credential, Error> {
        if !matches!(refused.kind, Kind::Unauthenticated | Kind::Denied) {
            return Err(refused);
        }
        match self.issue(&old.vo).await {
            // Who asks was in doubt, not what they may: a new proof may settle that.
            Ok(new) if refused.kind == Kind::Unauthenticated => Ok(new),
            Ok(new) if new.membership()? != old.membership()? => Ok(new),
            Ok(_) => Err(refused),
            Err(e) => {
                tracing::debug!(error = %e, "no newer certificate");
                Err(refused)
            }
        }
    }

    /// Acts as a member of the VO that a job is in: the named or only one, else the one whose
    /// credential opens the job.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when none does, [`Kind::Unauthenticated`] when the person must sign in.
    pub async fn member_for(&self, job: &JobId) -> Result<Member, Error> {
        let site = self.named_site().unwrap_or(&job.site);
        let mut vos = match self.named_vo() {
            Some(vo) => vec![vo.clone()],
            None => self.vos()?,
        };
        if vos.len() <= 1 {
            let vo = match vos.pop() {
                Some(vo) => vo,
                None => self.the_vo().await?,
            };
            return self.member(&vo, site).await;
        }
        vos.sort_by_key(|vo| vo.site() != job.site);
        let unknown = Error::not_found(format!("none of your VOs has a job {job}"));
        let mut last = unknown.hint("`xos job list` shows your jobs");
        for vo in vos {
            // The cheapest question about a job.
            let ask = ListUnits {
                job: job.clone(),
                filter: UnitFilter::Open,
                from: None,
                limit: Some(1),
            };
            let found = async {
                let mut member = self.member(&vo, site).await?;
                member.call(self, ask).await?;
                Ok::<Member, Error>(member)
            };
            match found.await {
                Ok(member) => return Ok(member),
                Err(e) if e.kind == Kind::NotFound => {}
                Err(e) => last = e,
            }
        }
        Err(last)
    }
}

impl Member {
    /// How long to wait before [`Member::keep`] is due.
    pub fn rest(&self, s: &Session) -> Duration {
        self.renewal.since(s.now()).min(LOOK_MAX)
    }

    /// Goes on with a new certificate when it is time for one; what takes long calls this again
    /// and again, since a certificate that has ended no longer helps to get another.
    pub async fn keep(&mut self, s: &Session) {
        if self.renewal <= s.now() {
            self.renew(s).await;
        }
    }

    /// Goes on with the newest certificate there is, or the present one when none can be had.
    pub async fn renew(&mut self, s: &Session) {
        match s.member(&self.credential.vo, &self.site).await {
            Ok(new) if new.credential.chain_pem != self.credential.chain_pem => *self = new,
            Ok(_) => self.renewal = self.credential.renewal(s.now()),
            Err(e) => {
                tracing::debug!(error = %e, "no certificate");
                self.renewal = self.credential.renewal(s.now());
            }
        }
    }

    /// Sends `r`; once more with a new certificate when the membership has changed meanwhile.
    ///
    /// # Errors
    /// What the core says.
    pub async fn call<R: Request + Clone>(&mut self, s: &Session, r: R) -> Result<R::Reply, Error> {
        match self.client.call(r.clone()).await {
            Err(e) => {
                let credential = s.changed(&self.credential, e).await?;
                *self = s.member_by(credential, &self.site)?;
                self.client.call(r).await
            }
            reply => reply,
        }
    }
}
