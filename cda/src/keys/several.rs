//! Files with several keys (PKCS #8 in PEM): the first signs, the others still count.

use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use xos_api::site::DESCRIPTOR_LIST_MAX;
use xos_base::Error;

/// The keys of one file. A key rolls by being put first.
pub(crate) struct Several<K> {
    first: K,
    others: Vec<K>,
}

impl<K> Several<K> {
    /// Reads the keys in `text`, the content of `file`; `key` reads one, from PKCS #8 DER.
    pub(crate) fn read(
        file: &str,
        text: &str,
        key: impl Fn(&[u8]) -> Result<K, Error>,
    ) -> Result<Several<K>, Error> {
        let ders: Result<Vec<_>, _> =
            PrivatePkcs8KeyDer::pem_slice_iter(text.as_bytes()).take(DESCRIPTOR_LIST_MAX).collect();
        let ders = ders.map_err(|e| Error::internal(format!("{file} is damaged: {e}")))?;
        let mut keys = ders.iter().map(|der| {
            key(der.secret_pkcs8_der())
                .map_err(|e| Error { message: format!("{file}: {}", e.message), ..e })
        });
        let first =
            keys.next().ok_or_else(|| Error::internal(format!("{file} holds no key")))??;
        let others = keys.collect::<Result<Vec<K>, Error>>()?;
        Ok(Several { first, others })
    }

    /// The one that signs.
    pub(crate) fn first(&self) -> &K {
        &self.first
    }

    /// All that count, the first first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &K> {
        std::iter::once(&self.first).chain(&self.others)
    }
}
