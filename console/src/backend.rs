//! How pages reach the API: as the person, or as a member of a VO; here, or at the VO's home.

use crate::Inner;
use crate::session::Session;
use crate::tokens::{RENEW_AHEAD, Tokens};
use crate::visit::{Stop, Visit};
use futures_util::stream::BoxStream;
use std::net::IpAddr;
use std::time::Duration;
use xos_api::aem::{JobSpec, SubmitJob, Submitted};
use xos_api::cda::{IssueToken, RenewToken, Token};
use xos_api::{Request, Subscribe};
use xos_base::{Error, Kind, SiteId, VoId};
use xos_net::{Caller, Client, Proof};

/// How long a page waits for one of several sites.
const SITE_TIMEOUT: Duration = Duration::from_secs(8);

/// What a site answers within [`SITE_TIMEOUT`].
pub(crate) async fn in_time<T>(
    site: &SiteId,
    answer: impl Future<Output = Result<T, Stop>>,
) -> Result<T, Stop> {
    match tokio::time::timeout(SITE_TIMEOUT, answer).await {
        Ok(answered) => answered,
        Err(_) => Err(Stop::Failed(
            Error::unavailable(format!("site {site} did not answer in time"))
                .hint("open the page again in a while"),
        )),
    }
}

impl Inner {
    /// Renews a session's token before it expires; ends the session when its person may not go on.
    pub(crate) async fn renew(&self, session: &Session) {
        // Whoever holds the lock is renewing it already.
        let Ok(mut tokens) = session.tokens.try_lock() else { return };
        if let Err(Stop::Failed(e)) = self.person(session, &mut tokens, None).await {
            tracing::warn!(person = %session.person, error = %e, "a token was not renewed");
        }
    }

    /// The session's person as caller, with a token that lasts.
    async fn person(
        &self,
        session: &Session,
        tokens: &mut Tokens,
        address: Option<IpAddr>,
    ) -> Result<Caller, Stop> {
        let verify =
            |token: &str| self.verifier.token(token, address).map_err(|e| self.over(session, &e));
        let caller = verify(&tokens.person.token)?;
        let ends = tokens.person.expires;
        // A token that lasts as long as the session is its last one.
        if ends > self.clock.now().plus(RENEW_AHEAD) || ends >= session.until {
            return Ok(caller);
        }
        match self.grid.local(caller.clone(), RenewToken { audience: None }).await {
            Ok(renewed) => {
                session.set_site_admin(renewed.site_admin);
                tokens.person = renewed.token;
                verify(&tokens.person.token)
            }
            Err(e) if matches!(e.kind, Kind::Unauthenticated | Kind::Denied) => {
                Err(self.over(session, &e))
            }
            Err(e) => {
                tracing::warn!(error = %e, "a token was not renewed; the present one goes on");
                Ok(caller)
            }
        }
    }

    fn over(&self, session: &Session, why: &Error) -> Stop {
        tracing::info!(person = %session.person, %why, "a session ends");
        self.sessions.end(session);
        Stop::SignedOut
    }

    fn remote(&self, site: &SiteId, token: String) -> Result<Client, Error> {
        Client::new(site.clone(), self.grid.trust(), &Proof::Token(token.into()))
    }
}

impl Visit {
    /// The visitor as a person, in no VO.
    pub(crate) async fn person(&self) -> Result<Caller, Stop> {
        let mut tokens = self.session.tokens.lock().await;
        self.console.person(&self.session, &mut tokens, self.peer.address).await
    }

    /// A client of another site's core, as the person.
    async fn person_at(&self, site: &SiteId) -> Result<Client, Stop> {
        let now = self.console.clock.now();
        let mut tokens = self.session.tokens.lock().await;
        let token = match tokens.sites.usable(site, now) {
            Some(token) => token.token.clone(),
            None => {
                let caller =
                    self.console.person(&self.session, &mut tokens, self.peer.address).await?;
                let ask = RenewToken { audience: Some(site.clone()) };
                let token = self.console.grid.local(caller, ask).await?.token;
                tokens.sites.put(site.clone(), token.clone(), now);
                token.token
            }
        };
        Ok(self.console.remote(site, token)?)
    }

    /// Calls this core as the person.
    pub(crate) async fn ask<R: Request>(&self, r: R) -> Result<R::Reply, Stop> {
        let caller = self.person().await?;
        Ok(self.console.grid.local(caller, r).await?)
    }

    /// Calls the core of the VO's home as the person: for changes, and what only the home knows.
    pub(crate) async fn ask_home<R: Request>(&self, vo: &VoId, r: R) -> Result<R::Reply, Stop> {
        self.ask_site(&vo.site(), r).await
    }

    /// Calls a site's core as the person.
    pub(crate) async fn ask_site<R: Request>(&self, site: &SiteId, r: R) -> Result<R::Reply, Stop> {
        if *site == *self.console.grid.site() {
            return self.ask(r).await;
        }
        Ok(self.person_at(site).await?.call(r).await?)
    }

    /// Calls the core of a trusted site as the person; it is not waited for longer than
    /// [`SITE_TIMEOUT`].
    pub(crate) async fn ask_at<R: Request>(&self, site: &SiteId, r: R) -> Result<R::Reply, Stop> {
        if *site == *self.console.grid.site() {
            return self.ask(r).await;
        }
        let answer = async { Ok::<_, Stop>(self.person_at(site).await?.call(r).await?) };
        in_time(site, answer).await
    }

    /// A client of the core of a site that serves a VO, as its member; absent for this core.
    pub(crate) async fn member_at(&self, vo: &VoId, site: &SiteId) -> Result<Option<Client>, Stop> {
        if *site == *self.console.grid.site() {
            return Ok(None);
        }
        let ask =
            IssueToken { vo: vo.clone(), audience: Some(site.clone()), groups: None, roles: None };
        let token = self.ask_home(vo, ask).await?;
        Ok(Some(self.console.remote(site, token.token)?))
    }

    /// Calls this core as the person, and the VO's home when this core does not know the VO.
    pub(crate) async fn ask_either<R: Request + Clone>(
        &self,
        vo: &VoId,
        r: R,
    ) -> Result<R::Reply, Stop> {
        match self.ask(r.clone()).await {
            Err(Stop::Failed(e))
                if e.kind == Kind::NotFound && vo.site() != *self.console.grid.site() =>
            {
                self.ask_home(vo, r).await
            }
            other => other,
        }
    }

    /// The visitor as a member of a VO.
    pub(crate) async fn member(&self, vo: &VoId) -> Result<Caller, Stop> {
        let verify = |token: &str| self.console.verifier.token(token, self.peer.address);
        let now = self.console.clock.now();
        {
            let mut tokens = self.session.tokens.lock().await;
            match tokens.vos.usable(vo, now).map(|t| verify(&t.token)) {
                Some(Ok(caller)) => return Ok(caller),
                // The membership changed since: a new token says what it is now.
                Some(Err(_)) => tokens.vos.forget(vo),
                None => {}
            }
        }
        let token = self.member_token(vo).await?;
        let caller = verify(&token.token)?;
        self.session.tokens.lock().await.vos.put(vo.clone(), token, now);
        Ok(caller)
    }

    /// A new token of the visitor as a member of a VO.
    async fn member_token(&self, vo: &VoId) -> Result<Token, Stop> {
        let own = self.console.grid.site().clone();
        let ask = IssueToken { vo: vo.clone(), audience: Some(own), groups: None, roles: None };
        self.ask_home(vo, ask).await
    }

    /// Submits a job to this core, by a token of its own: one token proves one job.
    pub(crate) async fn submit(&self, spec: JobSpec) -> Result<Submitted, Stop> {
        let token = self.member_token(&spec.vo).await?;
        let caller = self.console.verifier.token(&token.token, self.peer.address)?;
        Ok(self.console.grid.local(caller, SubmitJob { spec, proof: None }).await?)
    }

    /// Calls this core as a member of a VO.
    pub(crate) async fn ask_member<R: Request>(&self, vo: &VoId, r: R) -> Result<R::Reply, Stop> {
        let caller = self.member(vo).await?;
        Ok(self.console.grid.local(caller, r).await?)
    }

    /// Opens a stream at this core as a member of a VO.
    pub(crate) async fn follow<S: Subscribe>(
        &self,
        vo: &VoId,
        s: S,
    ) -> Result<BoxStream<'static, Result<S::Item, Error>>, Stop> {
        let caller = self.member(vo).await?;
        Ok(self.console.grid.local_stream(caller, s).await?)
    }
}
