//! The section `[cda.pkcs11]`. The token itself is opened by whoever links what loads libraries.

use serde::Deserialize;
use std::path::PathBuf;

/// The section `[cda.pkcs11]`: a token for the site's keys. The core's own key, by which it proves
/// itself in TLS, is in its file always.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11 {
    /// The library (PKCS #11) that came with the token, an absolute path.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// A file with the PIN of the token's user alone, which nobody but root may read.
    pub pin_file: PathBuf,
}
