//! One provider: what it says of itself, and the questions that it is asked.

use super::claims::{self, Claims};
use super::config;
use super::flows::{CodeFlow, DeviceFlow};
use super::known::{Known, Metadata};
use super::secret;
use super::token::{self, Refusal};
use super::web::{Web, WebError, is_allowed};
use http::header::{ACCEPT, AUTHORIZATION};
use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreDeviceAuthorizationResponse, CoreTokenResponse,
};
use openidconnect::url::Url;
use openidconnect::{
    AccessToken, AuthenticationContextClass, AuthorizationCode, ClientId, ClientSecret, CsrfToken,
    DeviceCodeErrorResponseType, EndpointMaybeSet, EndpointNotSet, EndpointSet, ErrorResponse,
    IssuerUrl, Nonce, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl,
    RequestTokenError, Scope,
};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use xos_api::cda::Answer;
use xos_base::{Error, Millis};

/// Longest code or other answer by a browser, in bytes.
const ANSWER_MAX: usize = 8 * 1024;

type Client = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// A provider.
pub(crate) struct Provider {
    pub(crate) config: config::Provider,
    pub(super) issuer: IssuerUrl,
    secret: Option<ClientSecret>,
    pub(super) web: Web,
    /// Held while the provider is asked what it is, so that many people ask once.
    pub(super) known: Mutex<Known>,
}

/// What became of asking after a device flow.
pub(crate) enum Polled {
    /// Not yet. `slower`: it shall not be asked so often.
    Pending {
        /// Lengthen the pause.
        slower: bool,
    },
    /// The person is through.
    Proved(Claims),
}

impl Provider {
    /// A provider as the configuration, which was checked, has it. Blocks on the disk.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when a file cannot be used.
    pub(crate) fn open(config: &config::Provider) -> Result<Provider, Error> {
        let issuer = IssuerUrl::new(config.issuer.clone())
            .map_err(|e| Error::invalid(format!("[[cda.providers]] issuer: {e}")))?;
        let secret = config.client_secret_file.as_deref().map(secret::read).transpose()?;
        let web = Web::new(config.ca_file.as_deref(), config.insecure_loopback)?;
        Ok(Provider { config: config.clone(), issuer, secret, web, known: Mutex::default() })
    }

    pub(super) fn unavailable(&self) -> Error {
        Error::unavailable(format!("{} does not answer as it should now", self.config.title()))
            .hint("try again in a moment, or sign in another way; the core's log says more")
    }

    /// What went wrong stands in the log: texts of a provider are nothing for people.
    pub(super) fn failed(&self, what: &str, e: &dyn std::error::Error) -> Error {
        tracing::warn!(provider = %self.config.id, error = ?causes(e), "{what}");
        self.unavailable()
    }

    fn refused(&self, why: &dyn std::fmt::Display) -> Error {
        tracing::info!(provider = %self.config.id, why = ?why.to_string(), "a sign-in is refused");
        Error::unauthenticated(format!("the sign-in at {} did not succeed", self.config.title()))
            .hint("begin again; if it stays so, tell a site administrator")
    }

    fn token_error<E: ErrorResponse + 'static>(&self, e: RequestTokenError<WebError, E>) -> Error {
        match e {
            RequestTokenError::Request(e) => self.failed("it gives no token", &e),
            RequestTokenError::ServerResponse(e) => self.refused(&e),
            e => self.refused(&causes(&e)),
        }
    }

    fn client_id(&self) -> ClientId {
        ClientId::new(self.config.client_id.clone())
    }

    fn client(&self, metadata: &Metadata) -> Client {
        CoreClient::from_provider_metadata(metadata.clone(), self.client_id(), self.secret.clone())
    }

    fn scopes(&self) -> Vec<Scope> {
        self.config.scopes.iter().cloned().map(Scope::new).collect()
    }

    /// Where a browser goes to sign in.
    ///
    /// # Errors
    /// As [`Provider::metadata`].
    pub(crate) async fn authorize_url(
        &self,
        flow: &CodeFlow,
        now: Millis,
    ) -> Result<String, Error> {
        let metadata = self.metadata(now).await?;
        let client = self.client(&metadata);
        let (state, nonce) = (CsrfToken::new(flow.state.clone()), Nonce::new(flow.nonce.clone()));
        let verifier = PkceCodeVerifier::new(flow.verifier.clone());
        let mut request = client
            .authorize_url(CoreAuthenticationFlow::AuthorizationCode, || state, || nonce)
            .set_redirect_uri(Cow::Owned(redirect_url(flow)?))
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            .add_scopes(self.scopes());
        if let Some(acr) = &self.config.acr {
            request = request.add_auth_context_value(AuthenticationContextClass::new(acr.clone()));
        }
        let (url, _, _) = request.url();
        Ok(url.into())
    }

    /// The account that a browser brought a code for.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unauthenticated`] when the code or what it gives is refused;
    /// [`xos_base::Kind::Unavailable`] when the provider does not answer.
    pub(crate) async fn finish_code(
        &self,
        flow: CodeFlow,
        answer: Answer,
        now: Millis,
    ) -> Result<Claims, Error> {
        if answer.code.0.len() > ANSWER_MAX {
            return Err(self.refused(&"the code is too long"));
        }
        // RFC 9207: an answer of another provider is not handed to this one.
        if answer.iss.is_some_and(|iss| iss != self.config.issuer) {
            return Err(self.refused(&"the answer is another provider's"));
        }
        let metadata = self.metadata(now).await?;
        let response = self
            .client(&metadata)
            .exchange_code(AuthorizationCode::new(answer.code.0))
            .map_err(|e| self.refused(&e))?
            .set_redirect_uri(Cow::Owned(redirect_url(&flow)?))
            .set_pkce_verifier(PkceCodeVerifier::new(flow.verifier))
            .request_async(&self.web)
            .await
            .map_err(|e| self.token_error(e))?;
        self.claims(metadata, &response, Some(&Nonce::new(flow.nonce)), now).await
    }

    /// Begins a sign-in by another device.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unsupported`] when the provider has none.
    pub(crate) async fn begin_device(
        &self,
        now: Millis,
    ) -> Result<CoreDeviceAuthorizationResponse, Error> {
        let metadata = self.metadata(now).await?;
        let endpoint = metadata.additional_metadata().device_authorization_endpoint.clone();
        let endpoint = endpoint.ok_or_else(|| {
            let title = self.config.title();
            Error::unsupported(format!("{title} does not let people sign in by another device"))
                .hint("sign in where you have a browser, or by another way")
        })?;
        let client = self.client(&metadata).set_device_authorization_url(endpoint);
        let details: CoreDeviceAuthorizationResponse = client
            .exchange_device_code()
            .add_scopes(self.scopes())
            .request_async(&self.web)
            .await
            .map_err(|e| self.token_error(e))?;
        let page = details.verification_uri().url();
        if !is_allowed(page, self.config.insecure_loopback) {
            let e = WebError::Address(page.to_string());
            return Err(self.failed("its page for other devices", &e));
        }
        Ok(details)
    }

    /// An address of the provider, if a browser may go there.
    pub(crate) fn page(&self, address: &str) -> Option<String> {
        let url = Url::parse(address).ok()?;
        is_allowed(&url, self.config.insecure_loopback).then(|| url.into())
    }

    /// Asks once after a sign-in by another device.
    ///
    /// # Errors
    /// As [`Provider::finish_code`]; the flow is over, unless it is
    /// [`xos_base::Kind::Unavailable`].
    pub(crate) async fn poll_device(
        &self,
        flow: &DeviceFlow,
        now: Millis,
    ) -> Result<Polled, Error> {
        let metadata = self.metadata(now).await?;
        let client = self.client(&metadata);
        // The crate asks until it has an answer, with pauses; here, the first pause is the answer.
        let (pausing, slower) = (Notify::new(), AtomicBool::new(false));
        let usual = flow.details.interval();
        let pause = |length: Duration| {
            slower.store(length > usual, Ordering::Relaxed);
            pausing.notify_one();
            std::future::pending::<()>()
        };
        let asking = client
            .exchange_device_access_token(flow.details.as_ref())
            .map_err(|e| self.refused(&e))?
            .request_async(&self.web, pause, None);
        let response = tokio::select! {
            response = asking => response,
            () = pausing.notified() => {
                return Ok(Polled::Pending { slower: slower.load(Ordering::Relaxed) });
            }
        };
        let response = response.map_err(|e| {
            let ended = match &e {
                RequestTokenError::ServerResponse(said) => self.device_ended(said.error()),
                _ => None,
            };
            ended.unwrap_or_else(|| self.token_error(e))
        })?;
        self.claims(metadata, &response, None, now).await.map(Polled::Proved)
    }

    fn device_ended(&self, said: &DeviceCodeErrorResponseType) -> Option<Error> {
        match said {
            DeviceCodeErrorResponseType::AccessDenied => Some(Error::unauthenticated(format!(
                "the sign-in was declined at {}",
                self.config.title()
            ))),
            DeviceCodeErrorResponseType::ExpiredToken => {
                Some(Error::unauthenticated("the code was not used in time").hint("begin again"))
            }
            _ => None,
        }
    }

    /// What a verified answer says of the account.
    async fn claims(
        &self,
        metadata: Arc<Metadata>,
        response: &CoreTokenResponse,
        nonce: Option<&Nonce>,
        now: Millis,
    ) -> Result<Claims, Error> {
        let wanted = token::Wanted {
            client_id: self.client_id(),
            issuer: self.issuer.clone(),
            nonce,
            acr: self.config.acr.as_deref(),
            now,
        };
        let mut read = token::read(&wanted, &metadata, response);
        if matches!(&read, Err(Refusal::UnknownKey(_)))
            && let Some(newer) = self.newer(&metadata, now).await?
        {
            read = token::read(&wanted, &newer, response);
        }
        let mut claims = read.map_err(|e| self.refused(&e))?;
        if claims::lacking(&self.config, &claims).is_some() {
            self.add_user_info(&metadata, response.access_token(), &mut claims).await?;
        }
        Ok(claims)
    }

    /// Adds what the provider tells only at its userinfo endpoint (OpenID Connect Core, 5.3). What
    /// the token says stays as it is.
    async fn add_user_info(
        &self,
        metadata: &Metadata,
        token: &AccessToken,
        claims: &mut Claims,
    ) -> Result<(), Error> {
        let Some(endpoint) = metadata.userinfo_endpoint() else { return Ok(()) };
        let request = http::Request::get(endpoint.as_str())
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, format!("Bearer {}", token.secret()))
            .body(Vec::new())
            .map_err(|e| self.refused(&e))?;
        let answer =
            self.web.send(request).await.map_err(|e| self.failed("it tells nothing more", &e))?;
        if answer.status() != http::StatusCode::OK {
            return Err(self.refused(&format!("userinfo answers {}", answer.status())));
        }
        let more: Claims = serde_json::from_slice(answer.body()).map_err(|e| self.refused(&e))?;
        if more.get("sub") != claims.get("sub") {
            return Err(self.refused(&"userinfo is of another account"));
        }
        for (name, value) in more {
            claims.entry(name).or_insert(value);
        }
        Ok(())
    }
}

fn redirect_url(flow: &CodeFlow) -> Result<RedirectUrl, Error> {
    RedirectUrl::new(flow.redirect.clone())
        .map_err(|e| Error::internal(format!("a redirect that was checked: {e}")))
}

/// An error with all that caused it.
fn causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
