//! Passkeys: WebAuthn (W3C, level 2) with this core as the relying party.
//!
//! No attestation is asked for, the user's verification always is. The user handle is random for
//! each person and tells nothing about them. Keys are kept in the person's record.

mod code;
mod config;
mod record;
mod table;

pub use config::{Passkeys as PasskeyConfig, SecondFactor};

pub(crate) use code::{hash as code_hash, new as new_code};
pub(crate) use config::place;
pub(crate) use record::{Book, Entry, id_key};
pub(crate) use table::{Table, secret};

use crate::config::Config;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;
use webauthn_rs::prelude::{
    AuthenticationResult, DiscoverableAuthentication, Passkey, PasskeyRegistration,
    PublicKeyCredential, RegisterPublicKeyCredential, Uuid, Webauthn, WebauthnBuilder,
    WebauthnError,
};
use xos_api::cda::WebAuthn;
use xos_base::{Error, Millis, PersonId, SiteId};

/// How long a person may take with their device.
pub(crate) const CEREMONY_LIFE: Duration = Duration::from_secs(5 * 60);
/// How long a code for a program without a browser holds.
pub(crate) const CODE_LIFE: Duration = Duration::from_secs(5 * 60);
/// Most ceremonies of each kind, and most codes, at a time.
pub(crate) const CEREMONIES_MAX: usize = 16 * 1024;
/// Longest id of a key, in bytes (WebAuthn level 2, 4).
const KEY_ID_MAX: usize = 1023;

/// What entitles somebody to add a passkey.
pub(crate) enum By {
    /// A session.
    Session,
    /// A first step at this time, where the site wants a second one.
    FirstStep(Millis),
    /// A recovery code, of which this is the hash.
    Recovery(String),
}

/// A passkey that is being made.
pub(crate) struct Making {
    pub(crate) person: PersonId,
    pub(crate) by: By,
    pub(crate) handle: Uuid,
    state: PasskeyRegistration,
}

/// A passkey that is asked for.
pub(crate) struct Proving {
    /// Whose it must be and since when that is known; absent: anybody's, who says so by the handle.
    pub(crate) person: Option<(PersonId, Millis)>,
    state: DiscoverableAuthentication,
}

/// Who a code for a program without a browser signs in.
pub(crate) struct Vouched {
    pub(crate) person: PersonId,
    pub(crate) signed_in: Millis,
}

/// The relying party, and what is under way. Strangers begin sign-ins in a table of their own, so
/// that they push nobody out of the others.
pub(crate) struct Passkeys {
    rp: Option<(String, Webauthn)>,
    required: bool,
    pub(crate) making: Table<Making>,
    pub(crate) alone: Table<Proving>,
    pub(crate) second: Table<Proving>,
    pub(crate) codes: Table<Vouched>,
}

impl Passkeys {
    /// As the configuration, which was checked, has it.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when the host name or an address does not fit.
    pub(crate) fn open(config: &Config, site: &SiteId) -> Result<Passkeys, Error> {
        let rp = match place(config)? {
            None => None,
            Some(place) => {
                let name = format!("XOS {site}");
                let bad = |e: WebauthnError| {
                    Error::invalid(format!("[cda.passkeys] {}: {e}", place.host))
                };
                let builder = WebauthnBuilder::new(&place.host, &place.first)
                    .map_err(bad)?
                    .rp_name(&name)
                    .timeout(CEREMONY_LIFE)
                    .allow_any_port(place.any_port());
                let builder = place.others.iter().fold(builder, |b, o| b.append_allowed_origin(o));
                let webauthn = builder.build().map_err(bad)?;
                Some((place.host, webauthn))
            }
        };
        let required = config.passkeys.second_factor == SecondFactor::Required;
        Ok(Passkeys {
            rp,
            required,
            making: Table::new(CEREMONY_LIFE, CEREMONIES_MAX),
            alone: Table::new(CEREMONY_LIFE, CEREMONIES_MAX),
            second: Table::new(CEREMONY_LIFE, CEREMONIES_MAX),
            codes: Table::new(CODE_LIFE, CEREMONIES_MAX),
        })
    }

    /// The host name whose pages can use them.
    pub(crate) fn host(&self) -> Option<String> {
        self.rp.as_ref().map(|(host, _)| host.clone())
    }

    /// Whether the site wants a second step of everybody.
    pub(crate) fn required(&self) -> bool {
        self.required
    }

    fn rp(&self) -> Result<&Webauthn, Error> {
        self.rp.as_ref().map(|(_, webauthn)| webauthn).ok_or_else(|| {
            Error::unsupported("this site's console has no host name, so it takes no passkeys")
                .hint("an administrator names one: host in [cda.passkeys]")
        })
    }

    /// What the browser is to do so that a passkey is made.
    pub(crate) fn make(
        &self,
        person: PersonId,
        book: &Book,
        by: By,
    ) -> Result<(WebAuthn, Making), Error> {
        let handle = match book.handle {
            Some(handle) => handle,
            None => Uuid::from_bytes(crate::issue::random::<16>()?),
        };
        let own = book.keys.iter().map(|k| k.passkey.cred_id().clone()).collect();
        let (options, state) = self
            .rp()?
            .start_passkey_registration(handle, person.as_str(), person.as_str(), Some(own))
            .map_err(|e| Error::internal(format!("cannot begin to make a passkey: {e}")))?;
        let mut options = public_key(&options)?;
        // One that its device lists by itself, so that nobody types a name.
        options["authenticatorSelection"]["residentKey"] = json!("required");
        options["authenticatorSelection"]["requireResidentKey"] = json!(true);
        Ok((WebAuthn(options), Making { person, by, handle, state }))
    }

    /// The passkey that was made.
    pub(crate) fn made(&self, making: &Making, credential: WebAuthn) -> Result<Passkey, Error> {
        let credential: RegisterPublicKeyCredential = read(credential)?;
        let made = self.rp()?.finish_passkey_registration(&credential, &making.state);
        let passkey = made.map_err(|e| {
            tracing::info!(person = %making.person, why = %e, "a passkey was not taken");
            Error::invalid("this passkey cannot be used here")
                .hint("begin again in the console, with a device that asks for your finger or PIN")
        })?;
        if passkey.cred_id().len() > KEY_ID_MAX {
            return Err(Error::too_large(format!("the key's id has over {KEY_ID_MAX} bytes")));
        }
        Ok(passkey)
    }

    /// What the browser is to do so that a passkey is used: one of these, or any.
    pub(crate) fn ask(
        &self,
        whose: Option<(PersonId, Millis)>,
        keys: &[Entry],
    ) -> Result<(WebAuthn, Proving), Error> {
        let (options, state) = self
            .rp()?
            .start_discoverable_authentication()
            .map_err(|e| Error::internal(format!("cannot ask for a passkey: {e}")))?;
        let mut options = public_key(&options)?;
        let id = |k: &Entry| URL_SAFE_NO_PAD.encode(k.passkey.cred_id());
        let allowed = keys.iter().map(|k| json!({ "type": "public-key", "id": id(k) }));
        options["allowCredentials"] = Value::Array(allowed.collect());
        Ok((WebAuthn(options), Proving { person: whose, state }))
    }

    /// Whose passkey it says that it is, by the handle; nothing is proved yet.
    pub(crate) fn says(&self, credential: &PublicKeyCredential) -> Result<Uuid, Error> {
        let said = self.rp()?.identify_discoverable_authentication(credential);
        said.map(|(handle, _)| handle).map_err(|_| refused())
    }

    /// Checks what the browser answered against the passkey.
    pub(crate) fn proved(
        &self,
        proving: Proving,
        credential: &PublicKeyCredential,
        passkey: &Passkey,
    ) -> Result<AuthenticationResult, Error> {
        let checked =
            self.rp()?.finish_discoverable_authentication_v2(credential, proving.state, passkey);
        checked.map_err(|e| match e {
            WebauthnError::CredentialPossibleCompromise => Error::unauthenticated(
                "this passkey may have been copied: its counter did not go on",
            )
            .hint("sign in by another way and remove it, or ask a site administrator"),
            e => {
                tracing::info!(why = %e, "a passkey was refused");
                refused()
            }
        })
    }
}

/// One answer for a key that nobody has, a wrong signature, another site's page and the like.
pub(crate) fn refused() -> Error {
    Error::unauthenticated("this passkey does not sign in here")
        .hint("try again, or sign in by another way")
}

/// One answer for a flow that never was, is over, or is another one.
pub(crate) fn over() -> Error {
    Error::unauthenticated("this took too long, was done already, or was not begun here")
        .hint("begin again; it must be finished within five minutes")
}

/// What the browser answered.
pub(crate) fn read<T: DeserializeOwned>(credential: WebAuthn) -> Result<T, Error> {
    serde_json::from_value(credential.0)
        .map_err(|e| Error::invalid(format!("the browser's answer is no passkey's: {e}")))
}

/// The part of the options that `navigator.credentials` takes.
fn public_key<T: Serialize>(options: &T) -> Result<Value, Error> {
    let mut options = serde_json::to_value(options)
        .map_err(|e| Error::internal(format!("cannot write what a browser is to do: {e}")))?;
    Ok(options["publicKey"].take())
}
