//! A site's keys in a token behind PKCS #11 (OASIS, version 2.40): made in it, not to be taken out.
//!
//! The module is loaded into this process, and talks to the token as its maker thought best; a
//! signature takes as long as that takes. A token that goes away is asked for again, and what was
//! to be signed meanwhile is refused as "not available now". A PIN that the token refuses is tried
//! once only, since tokens lock themselves.

mod connection;
mod pin;

use connection::{Connection, Fault, Place, Refused};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, RuntimeFlavor};
use xos_base::Error;
use xos_net::identity::{hex, sha256};
use xos_net::key::{KeyId, KeyKind, PrivateKey, SIGNATURE_LEN, Vault};

/// How often something is tried: once more after the token was looked for anew.
const TRIES: u32 = 2;
/// After the token was not found it is not looked for again for this time, so that requests do not
/// queue up behind one another's search.
const SEARCH_PAUSE: Duration = Duration::from_secs(1);

/// A token that was found and whose PIN was right.
pub struct Token {
    inner: Arc<Inner>,
}

struct Inner {
    place: Place,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    /// Rises with each connection.
    number: u64,
    /// Why there is none, and since when.
    missed: Option<(Instant, Error)>,
    /// Why there will be none.
    refused: Option<Error>,
}

impl Token {
    /// Loads `module`, a library, and signs in to the token with this `label` by the PIN in
    /// `pin_file`. Blocks.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when the library cannot be loaded, the PIN's file not be read,
    /// or the PIN is refused; [`xos_base::Kind::Unavailable`] when the token is not there.
    pub fn open(module: &Path, label: &str, pin_file: &Path) -> Result<Token, Error> {
        let (module, pin_file) = (module.to_owned(), pin_file.to_owned());
        let place = Place { module, label: label.to_owned(), pin_file };
        let inner = Inner { place, state: RwLock::default() };
        off_the_runtime(|| inner.connect(0))?;
        Ok(Token { inner: Arc::new(inner) })
    }
}

/// Does `work`, which waits for the token, without holding up a worker of the runtime.
fn off_the_runtime<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|h| h.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl Inner {
    /// Does `work` with the token. When that fails, the token is looked for anew.
    fn call<T>(&self, work: impl Fn(&Connection) -> Result<T, Fault>) -> Result<T, Error> {
        off_the_runtime(|| {
            let mut last = None;
            for attempt in 1..=TRIES {
                let seen = {
                    // Held while the token works: it is closed only when nobody uses it.
                    let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
                    match state.connection.as_ref().map(&work) {
                        Some(Ok(done)) => return Ok(done),
                        Some(Err(fault)) => last = Some(fault),
                        None => {}
                    }
                    state.number
                };
                if attempt == TRIES || last.as_ref().is_some_and(Fault::is_final) {
                    break;
                }
                self.connect(seen)?;
            }
            Err(self.place.failed(last))
        })
    }

    /// Connects anew, unless somebody did since connection `seen`.
    fn connect(&self, seen: u64) -> Result<(), Error> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.connection.is_some() && state.number != seen {
            return Ok(());
        }
        if let Some(e) = &state.refused {
            return Err(e.clone());
        }
        if let Some((at, e)) = &state.missed
            && at.elapsed() < SEARCH_PAUSE
        {
            return Err(e.clone());
        }
        // The library is closed before it is opened again.
        state.connection = None;
        match Connection::open(&self.place) {
            Ok(connection) => {
                state.connection = Some(connection);
                state.number += 1;
                state.missed = None;
                tracing::info!(token = self.place.label, "signed in to the token");
                Ok(())
            }
            Err(Refused { error, for_good }) => {
                match for_good {
                    true => state.refused = Some(error.clone()),
                    false => state.missed = Some((Instant::now(), error.clone())),
                }
                tracing::error!(%error, "the site's keys cannot be used");
                Err(error)
            }
        }
    }
}

impl Vault for Token {
    fn make(&self, kind: KeyKind, label: &str) -> Result<(KeyId, Vec<u8>), Error> {
        self.inner.call(|connection| {
            let mut id = KeyId::default();
            aws_lc_rs::rand::fill(&mut id.0).map_err(|_| Fault::Random)?;
            let public = connection.make(kind, id, label)?;
            tracing::info!(label, id = hex(&id.0), "a key was made in the token");
            Ok((id, public))
        })
    }

    fn key(&self, kind: KeyKind, id: KeyId, public: &[u8]) -> Result<Arc<dyn PrivateKey>, Error> {
        let found = self.inner.call(|connection| connection.public(kind, id))?;
        if found != public {
            return Err(Error::internal(format!(
                "the token {:?} holds another key with the id {}",
                self.inner.place.label,
                hex(&id.0)
            ))
            .hint("is it the right token, from the same backup as the state folder?"));
        }
        Ok(Arc::new(TokenKey { inner: self.inner.clone(), kind, id, public: found }))
    }

    fn destroy(&self, id: KeyId) -> Result<(), Error> {
        self.inner.call(|connection| connection.destroy(id))?;
        tracing::info!(id = hex(&id.0), "a key was destroyed in the token");
        Ok(())
    }
}

/// A key in the token.
struct TokenKey {
    inner: Arc<Inner>,
    kind: KeyKind,
    id: KeyId,
    public: Vec<u8>,
}

impl PrivateKey for TokenKey {
    fn kind(&self) -> KeyKind {
        self.kind
    }

    fn public(&self) -> Vec<u8> {
        self.public.clone()
    }

    fn sign(&self, bytes: &[u8]) -> Result<[u8; SIGNATURE_LEN], Error> {
        match self.kind {
            KeyKind::Ed25519 => self.inner.call(|c| c.sign(self.kind, self.id, bytes)),
            KeyKind::P256 => {
                let digest = sha256(bytes);
                self.inner.call(|c| c.sign(self.kind, self.id, &digest))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_base::Kind;

    /// If it failed, an administrator would look for a fault in the token when a path is mistyped.
    #[test]
    fn a_module_that_is_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("no-module.so");
        for content in [None, Some("no library")] {
            if let Some(text) = content {
                std::fs::write(&file, text).unwrap();
            }
            let e = Token::open(&file, "xos", &file).err().unwrap();
            assert!(e.kind == Kind::Invalid && e.message.contains("no-module.so"), "{e}");
        }
    }
}
