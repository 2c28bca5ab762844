//! What a provider says of itself (OpenID Connect Discovery) and its keys, kept for a while.

use super::provider::Provider;
use super::web::{WebError, is_allowed};
use openidconnect::core::{
    CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreGrantType,
    CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm,
    CoreResponseMode, CoreResponseType, CoreSubjectIdentifierType,
};
use openidconnect::{AdditionalProviderMetadata, DeviceAuthorizationUrl, ProviderMetadata};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use xos_base::{Error, Millis};

/// How long what a provider says of itself is believed.
const METADATA_LIFE: Duration = Duration::from_secs(3600);
/// How often, at most, it is asked anew because a token was signed by a key nobody knows.
const KEYS_PAUSE: Duration = Duration::from_secs(60);
/// How long a provider that failed is left alone.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// What OpenID Connect Discovery does not name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Extra {
    /// RFC 8628, 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) device_authorization_endpoint: Option<DeviceAuthorizationUrl>,
}
impl AdditionalProviderMetadata for Extra {}

/// What a provider says of itself, with its keys.
pub(crate) type Metadata = ProviderMetadata<
    Extra,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// What is kept, since when, and when asking failed last.
#[derive(Default)]
pub(super) struct Known {
    metadata: Option<(Arc<Metadata>, Millis)>,
    failed: Option<Millis>,
}

impl Provider {
    /// What the provider says of itself.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when it does not answer, or not as it should.
    pub(super) async fn metadata(&self, now: Millis) -> Result<Arc<Metadata>, Error> {
        let mut known = self.known.lock().await;
        if let Some((metadata, at)) = &known.metadata
            && now.since(*at) < METADATA_LIFE
        {
            return Ok(metadata.clone());
        }
        self.fetch(&mut known, now).await
    }

    /// The same, newer than `stale`; `None` when it was asked for only a moment ago.
    pub(super) async fn newer(
        &self,
        stale: &Arc<Metadata>,
        now: Millis,
    ) -> Result<Option<Arc<Metadata>>, Error> {
        let mut known = self.known.lock().await;
        if let Some((metadata, at)) = &known.metadata {
            if !Arc::ptr_eq(metadata, stale) {
                return Ok(Some(metadata.clone()));
            }
            if now.since(*at) < KEYS_PAUSE {
                return Ok(None);
            }
        }
        self.fetch(&mut known, now).await.map(Some)
    }

    async fn fetch(&self, known: &mut Known, now: Millis) -> Result<Arc<Metadata>, Error> {
        if known.failed.is_some_and(|at| now.since(at) < FAILURE_PAUSE) {
            return Err(self.unavailable());
        }
        match self.discover().await {
            Ok(metadata) => {
                let metadata = Arc::new(metadata);
                *known = Known { metadata: Some((metadata.clone(), now)), failed: None };
                Ok(metadata)
            }
            Err(e) => {
                known.failed = Some(now);
                Err(e)
            }
        }
    }

    async fn discover(&self) -> Result<Metadata, Error> {
        let metadata = Metadata::discover_async(self.issuer.clone(), &self.web)
            .await
            .map_err(|e| self.failed("the provider does not say what it is", &e))?;
        let authorize = metadata.authorization_endpoint().url();
        if !is_allowed(authorize, self.config.insecure_loopback) {
            let e = WebError::Address(authorize.to_string());
            return Err(self.failed("the provider's sign-in page cannot be used", &e));
        }
        if metadata.token_endpoint().is_none() {
            tracing::warn!(provider = %self.config.id, "the provider names no token endpoint");
            return Err(self.unavailable());
        }
        Ok(metadata)
    }
}
