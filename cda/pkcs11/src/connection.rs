//! One connection to the token: the library, a login, and sessions for those who sign.

use crate::pin;
use cryptoki::context::{CInitializeArgs, Pkcs11};
use cryptoki::error::{Error as ModuleError, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use xos_base::Error;
use xos_net::identity::hex;
use xos_net::key::{KeyId, KeyKind, SIGNATURE_LEN};

/// Most sessions that are kept for later.
const IDLE_MAX: usize = 16;
/// P-256 as PKCS #11 names curves: its object identifier, in DER (RFC 5480, section 2.1.1.1).
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// Ed25519: a PrintableString, in DER (PKCS #11 Current Mechanisms 3.0, section 2.3.10).
const ED25519: [u8; 14] = *b"\x13\x0cedwards25519";

/// Where the token is.
pub(crate) struct Place {
    pub(crate) module: PathBuf,
    pub(crate) label: String,
    pub(crate) pin_file: PathBuf,
}

/// Why there is no connection.
pub(crate) struct Refused {
    pub(crate) error: Error,
    /// Trying again is of no use, and may lock the token.
    pub(crate) for_good: bool,
}

/// Why the token did not do what it should.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The module says so.
    Module(ModuleError),
    /// It holds no such key.
    NoKey(KeyId),
    /// What it gave has another form than expected.
    Form(&'static str),
    /// It makes keys that can be taken out of it.
    Loose,
    /// The system gives no random bytes.
    Random,
}

impl From<ModuleError> for Fault {
    fn from(e: ModuleError) -> Fault {
        Fault::Module(e)
    }
}

impl Fault {
    /// Whether another connection would change nothing.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Fault::Form(_) | Fault::Loose | Fault::Random)
    }
}

impl Place {
    /// What people are told.
    pub(crate) fn failed(&self, fault: Option<Fault>) -> Error {
        let label = &self.label;
        let restore = "is it the right token, from the same backup as the state folder?";
        match fault {
            Some(Fault::Module(e)) => {
                Error::unavailable(format!("the token {label:?} failed: {}", told(&e)))
                    .hint("look at the token and at the log of its module")
            }
            Some(Fault::NoKey(id)) => {
                Error::internal(format!("the token {label:?} holds no key {}", hex(&id.0)))
                    .hint(restore)
            }
            Some(Fault::Form(what)) => Error::internal(format!("the token {label:?} gave {what}")),
            Some(Fault::Loose) => Error::invalid(format!(
                "the token {label:?} makes keys that can be taken out of it"
            ))
            .hint("use another token, or keep the keys in files"),
            Some(Fault::Random) => Error::internal("the system gives no random bytes"),
            None => Error::unavailable(format!("the token {label:?} goes and comes")),
        }
    }

    fn refused(&self, what: &str, e: &ModuleError) -> Refused {
        let error = Error::unavailable(format!("the token {:?}: {what}: {}", self.label, told(e)))
            .hint("look at the token and at the log of its module");
        Refused { error, for_good: false }
    }

    /// Why the token does not take the PIN.
    fn pin_refused(&self, why: RvError) -> Refused {
        let error = Error::invalid(format!(
            "the token {:?} refuses the PIN in {}: {why:?}",
            self.label,
            self.pin_file.display()
        ))
        .hint("put that right before another start: after some wrong PINs a token locks itself");
        Refused { error, for_good: true }
    }
}

/// An error of the module in few words: its own are whole paragraphs.
fn told(e: &ModuleError) -> String {
    match e {
        ModuleError::Pkcs11(value, function) => format!("{function:?}: {value:?}"),
        other => other.to_string(),
    }
}

/// The library, signed in to the token.
pub(crate) struct Connection {
    /// Signs nothing: the login lasts as long as any session is open.
    _login: Mutex<Session>,
    idle: Mutex<Vec<Session>>,
    found: Mutex<HashMap<KeyId, ObjectHandle>>,
    slot: Slot,
    context: Pkcs11,
}

impl Connection {
    /// Loads the library and signs in.
    pub(crate) fn open(place: &Place) -> Result<Connection, Refused> {
        let for_good = |error| Refused { error, for_good: true };
        let pin = pin::read(&place.pin_file);
        let context = Pkcs11::new(&place.module).map_err(|e| {
            for_good(
                Error::invalid(format!("cannot load {}: {e}", place.module.display()))
                    .hint("[cda.pkcs11] module names the library that came with the token"),
            )
        })?;
        let pin = pin.map_err(for_good)?;
        context
            .initialize(CInitializeArgs::OsThreads)
            .map_err(|e| place.refused("its library does not start", &e))?;
        let slot = slot(&context, place)?;
        let login =
            context.open_ro_session(slot).map_err(|e| place.refused("it gives no session", &e))?;
        login.login(UserType::User, Some(&pin)).map_err(|e| match e {
            ModuleError::Pkcs11(
                why @ (RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinExpired
                | RvError::PinLocked),
                _,
            ) => place.pin_refused(why),
            other => place.refused("nobody can sign in", &other),
        })?;
        Ok(Connection {
            _login: Mutex::new(login),
            idle: Mutex::default(),
            found: Mutex::default(),
            slot,
            context,
        })
    }

    /// Makes a key that stays in the token; its public part.
    pub(crate) fn make(&self, kind: KeyKind, id: KeyId, label: &str) -> Result<Vec<u8>, Fault> {
        let session = self.context.open_rw_session(self.slot)?;
        let (mechanism, curve) = match kind {
            KeyKind::Ed25519 => (Mechanism::EccEdwardsKeyPairGen, ED25519.to_vec()),
            KeyKind::P256 => (Mechanism::EccKeyPairGen, P256.to_vec()),
        };
        let named = [
            Attribute::Token(true),
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Id(id.0.to_vec()),
        ];
        let mut public = named.to_vec();
        public.extend([
            Attribute::Private(false),
            Attribute::Verify(true),
            Attribute::EcParams(curve),
        ]);
        let mut private = named.to_vec();
        private.extend([
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
        ]);
        let (public, private) = session.generate_key_pair(&mechanism, &public, &private)?;
        let asked = [AttributeType::Sensitive, AttributeType::Extractable];
        let is = session.get_attributes(private, &asked)?;
        let [Attribute::Sensitive(true), Attribute::Extractable(false)] = is[..] else {
            session.destroy_object(private)?;
            session.destroy_object(public)?;
            return Err(Fault::Loose);
        };
        point_of(&session, kind, public)
    }

    /// The public part of a key.
    pub(crate) fn public(&self, kind: KeyKind, id: KeyId) -> Result<Vec<u8>, Fault> {
        self.with(|session| {
            self.private(session, id)?;
            point_of(session, kind, find(session, id, ObjectClass::PUBLIC_KEY)?)
        })
    }

    /// Signs `data`: for P-256, which must be a SHA-256 already.
    pub(crate) fn sign(
        &self,
        kind: KeyKind,
        id: KeyId,
        data: &[u8],
    ) -> Result<[u8; SIGNATURE_LEN], Fault> {
        let mechanism = match kind {
            KeyKind::Ed25519 => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)),
            KeyKind::P256 => Mechanism::Ecdsa,
        };
        self.with(|session| {
            let key = self.private(session, id)?;
            let signature = session.sign(&mechanism, key, data)?;
            signature.try_into().map_err(|_| Fault::Form("a signature of another length"))
        })
    }

    /// Destroys both parts of a key, if they are there.
    pub(crate) fn destroy(&self, id: KeyId) -> Result<(), Fault> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let session = self.context.open_rw_session(self.slot)?;
        for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
            match find(&session, id, class) {
                Ok(object) => session.destroy_object(object)?,
                Err(Fault::NoKey(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Does `work` in a session of its own, which is kept for others when all went well.
    fn with<T>(&self, work: impl FnOnce(&Session) -> Result<T, Fault>) -> Result<T, Fault> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let session = match kept {
            Some(session) => session,
            None => self.context.open_ro_session(self.slot)?,
        };
        let done = work(&session)?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(session);
        }
        Ok(done)
    }

    /// The private part of a key; looked for once in a connection.
    fn private(&self, session: &Session, id: KeyId) -> Result<ObjectHandle, Fault> {
        let known = self.found.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied();
        if let Some(handle) = known {
            return Ok(handle);
        }
        let handle = find(session, id, ObjectClass::PRIVATE_KEY)?;
        self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(id, handle);
        Ok(handle)
    }
}

/// The slot of the token.
fn slot(context: &Pkcs11, place: &Place) -> Result<Slot, Refused> {
    let failed = |e: ModuleError| place.refused("its library shows no slots", &e);
    let mut found = Vec::new();
    for slot in context.get_slots_with_token().map_err(failed)? {
        match context.get_token_info(slot) {
            Ok(info) if info.label() == place.label => found.push(slot),
            Ok(_) => {}
            // Another token in another slot must not keep this one from being found.
            Err(e) => tracing::warn!(error = told(&e), "a slot does not tell what is in it"),
        }
    }
    let (label, module) = (&place.label, place.module.display());
    match found[..] {
        [slot] => Ok(slot),
        [] => {
            let error = Error::unavailable(format!("{module} finds no token {label:?}"))
                .hint("is it plugged in, and does its module find its own configuration?");
            Err(Refused { error, for_good: false })
        }
        _ => {
            let error = Error::invalid(format!("{module} finds several tokens {label:?}"))
                .hint("give the site's token a label of its own");
            Err(Refused { error, for_good: true })
        }
    }
}

/// One part of a key.
fn find(session: &Session, id: KeyId, class: ObjectClass) -> Result<ObjectHandle, Fault> {
    let wanted = [Attribute::Class(class), Attribute::Token(true), Attribute::Id(id.0.to_vec())];
    session.find_objects(&wanted)?.first().copied().ok_or(Fault::NoKey(id))
}

fn point_of(session: &Session, kind: KeyKind, public: ObjectHandle) -> Result<Vec<u8>, Fault> {
    let got = session.get_attributes(public, &[AttributeType::EcPoint])?;
    let found = match &got[..] {
        [Attribute::EcPoint(bytes)] => point(kind, bytes),
        _ => None,
    };
    found.map(<[u8]>::to_vec).ok_or(Fault::Form("a public key of another form"))
}

/// The point in `bytes`: an OCTET STRING in DER (PKCS #11 2.40), for Ed25519 with some tokens a BIT
/// STRING, or the bare bytes.
fn point(kind: KeyKind, bytes: &[u8]) -> Option<&[u8]> {
    let length = kind.public_len();
    let bare = match bytes {
        _ if bytes.len() == length => bytes,
        [0x04, n, rest @ ..] if usize::from(*n) == rest.len() => rest,
        [0x03, n, 0, rest @ ..] if usize::from(*n) == rest.len() + 1 => rest,
        _ => return None,
    };
    (bare.len() == length).then_some(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, keys of some makers' tokens could not be used, or bytes of their frame would
    /// pass for a part of the key.
    #[test]
    fn public_keys_of_all_forms_are_read_and_others_refused() {
        let (ed25519, p256) = ([7; 32], [4; 65]);
        let framed = |head: &[u8], key: &[u8]| [head, key].concat();
        for (kind, key) in [(KeyKind::Ed25519, &ed25519[..]), (KeyKind::P256, &p256[..])] {
            let n = u8::try_from(key.len()).unwrap();
            assert_eq!(point(kind, key), Some(key));
            assert_eq!(point(kind, &framed(&[4, n], key)), Some(key));
            assert_eq!(point(kind, &framed(&[3, n + 1, 0], key)), Some(key));
            for bad in [&framed(&[4, n + 1], key), &framed(&[5, n], key), &framed(&[4, n], &[])] {
                assert_eq!(point(kind, bad), None);
            }
            assert_eq!(point(kind, &framed(&[4, n - 1], &key[1..])), None, "too short");
            assert_eq!(point(kind, &[]), None);
        }
    }

    /// If it failed, people would be told to look into the code when a token was pulled out.
    #[test]
    fn what_fails_is_told_to_whom_it_concerns() {
        let place = Place { module: "m.so".into(), label: "xos".into(), pin_file: "pin".into() };
        let gone = ModuleError::Pkcs11(RvError::DeviceRemoved, cryptoki::context::Function::Sign);
        let e = place.failed(Some(Fault::Module(gone)));
        assert_eq!(e.kind, xos_base::Kind::Unavailable);
        assert!(e.message.contains("DeviceRemoved") && e.message.contains("xos"), "{e}");
        assert!(place.failed(Some(Fault::NoKey(KeyId([1; 16])))).message.contains("0101"));
        assert!(place.pin_refused(RvError::PinIncorrect).for_good);
    }
}
