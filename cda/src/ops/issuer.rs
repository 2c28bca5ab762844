//! What services outside XOS learn of the issuer of this site's JWTs.

use crate::Inner;
use xos_api::cda::{GetIssuer, GetJwks, Issuer, Jwks};
use xos_base::Error;
use xos_net::Peer;

impl Inner {
    pub(crate) async fn issuer(&self, _: Peer, _: GetIssuer) -> Result<Issuer, Error> {
        Ok(self.outside.describe(self.provider_endpoints()))
    }

    pub(crate) async fn jwks(&self, _: Peer, _: GetJwks) -> Result<Jwks, Error> {
        Ok(Jwks { keys: self.keys.jwks() })
    }
}
