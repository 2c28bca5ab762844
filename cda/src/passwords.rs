//! Passwords: argon2id (RFC 9106) with OWASP's minimum, a bounded number at the same time.

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};
use xos_api::cda::{PASSWORD_MAX, PASSWORD_MIN, Password};
use xos_base::Error;
use zeroize::Zeroizing;

/// Memory of one hash, in KiB (OWASP Password Storage Cheat Sheet: 19 MiB, t=2, p=1).
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Most people who wait for their turn.
const WAITING_MAX: usize = 64;

/// Hashes and checks passwords.
pub(crate) struct Passwords {
    turns: Semaphore,
    waiting: Semaphore,
    /// A hash that no password has, for names that do not exist.
    nobody: Arc<str>,
}

/// Refuses a password that is too short or too long.
pub(crate) fn check_form(password: &Password) -> Result<(), Error> {
    let len = password.0.len();
    if !(PASSWORD_MIN..=PASSWORD_MAX).contains(&len) {
        return Err(Error::invalid(format!(
            "the password has {len} bytes; it must have {PASSWORD_MIN} to {PASSWORD_MAX}"
        )));
    }
    Ok(())
}

fn argon() -> Result<Argon2<'static>, Error> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)
        .map_err(|e| Error::internal(format!("argon2: {e}")))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The PHC string of `password`. Takes about 20 ms and 19 MiB.
pub(crate) fn hash_now(password: &[u8]) -> Result<String, Error> {
    let salt = crate::issue::random::<16>()?;
    argon()?
        .hash_password_with_salt(password, &salt)
        .map(|h| h.to_string())
        .map_err(|e| Error::internal(format!("argon2: {e}")))
}

impl Passwords {
    /// Hashes at most `at_once` at the same time. Hashes once itself.
    pub(crate) fn new(at_once: usize) -> Result<Passwords, Error> {
        let nobody = hash_now(&crate::issue::random::<32>()?)?.into();
        let waiting = Semaphore::new(WAITING_MAX + at_once);
        Ok(Passwords { turns: Semaphore::new(at_once), waiting, nobody })
    }

    /// The PHC string of `password`, whose form is checked.
    pub(crate) async fn hash(&self, password: Password) -> Result<String, Error> {
        check_form(&password)?;
        let text = Zeroizing::new(password.0);
        let _turn = self.turn().await?;
        run(move || hash_now(text.as_bytes())).await?
    }

    /// Whether `password` is the one of `phc`. `None`, for who does not exist, takes as long and
    /// is never right.
    pub(crate) async fn verify(
        &self,
        password: Password,
        phc: Option<String>,
    ) -> Result<bool, Error> {
        let exists = phc.is_some();
        let phc = phc.unwrap_or_else(|| self.nobody.to_string());
        let text = Zeroizing::new(password.0);
        let _turn = self.turn().await?;
        let right = run(move || {
            let argon = argon()?;
            Ok::<bool, Error>(argon.verify_password(text.as_bytes(), phc.as_str()).is_ok())
        })
        .await??;
        Ok(right && exists)
    }

    async fn turn(&self) -> Result<(SemaphorePermit<'_>, SemaphorePermit<'_>), Error> {
        let place = self.waiting.try_acquire().map_err(|_| {
            Error::limited("too many people sign in at this moment").hint("try again in a moment")
        })?;
        let turn = self
            .turns
            .acquire()
            .await
            .map_err(|_| Error::unavailable("this core is being stopped"))?;
        Ok((turn, place))
    }
}

async fn run<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(f)
        .await
        .map_err(|e| Error::internal(format!("a password could not be checked: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password(text.into())
    }

    #[tokio::test]
    async fn only_the_right_password_of_somebody_is_right() {
        let p = Passwords::new(1).unwrap();
        let phc = p.hash(password("correct horse")).await.unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(p.verify(password("correct horse"), Some(phc.clone())).await.unwrap());
        assert!(!p.verify(password("correct horsf"), Some(phc.clone())).await.unwrap());
        assert!(!p.verify(password("correct horse"), None).await.unwrap());
        assert_ne!(phc, p.hash(password("correct horse")).await.unwrap(), "salts must differ");
    }

    #[tokio::test]
    async fn short_and_long_passwords_are_refused() {
        let p = Passwords::new(1).unwrap();
        assert!(p.hash(password("123456789")).await.is_err());
        assert!(p.hash(Password("x".repeat(PASSWORD_MAX + 1))).await.is_err());
        p.hash(password("1234567890")).await.unwrap();
    }
}
