//! The token with the site's keys, when they lie in one.

use std::sync::Arc;
use xos_base::Error;
use xos_cda::Pkcs11;
use xos_net::key::Vault;
use xos_pkcs11::Token;

/// Opens the token that the configuration names.
///
/// # Errors
/// As [`Token::open`].
pub fn open(config: Option<&Pkcs11>) -> Result<Option<Arc<dyn Vault>>, Error> {
    let Some(Pkcs11 { module, token, pin_file }) = config else { return Ok(None) };
    Ok(Some(Arc::new(Token::open(module, token, pin_file)?)))
}
