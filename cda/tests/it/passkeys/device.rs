//! A device that keeps one passkey, with its browser: P-256, no attestation (WebAuthn level 2, 6).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use xos_api::cda::WebAuthn;
use xos_net::identity::sha256;

const USER_PRESENT: u8 = 0x01;
const USER_VERIFIED: u8 = 0x04;
const KEY_INCLUDED: u8 = 0x40;

pub struct Device {
    key: EcdsaKeyPair,
    pub id: Vec<u8>,
    /// The user handle that it was given.
    pub handle: Option<Vec<u8>>,
    pub counter: u32,
    /// The page that asks.
    pub origin: String,
    /// Checks finger or PIN.
    pub verifies: bool,
    /// Another host than the one that the core names.
    pub host: Option<String>,
}

impl Device {
    pub fn new() -> Device {
        let mut id = vec![0; 32];
        aws_lc_rs::rand::fill(&mut id).unwrap();
        Device {
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap(),
            id,
            handle: None,
            counter: 0,
            origin: "https://localhost:7443".into(),
            verifies: true,
            host: None,
        }
    }

    fn client_data(&self, kind: &str, options: &Value) -> Vec<u8> {
        let data = json!({
            "type": kind, "challenge": options["challenge"], "origin": self.origin,
            "crossOrigin": false,
        });
        data.to_string().into_bytes()
    }

    /// The authenticator data up to the counter.
    fn head(&self, host: &Value, flags: u8) -> Vec<u8> {
        let host = self.host.as_deref().or(host.as_str()).unwrap();
        let verified = if self.verifies { USER_VERIFIED } else { 0 };
        let mut data = sha256(host.as_bytes()).to_vec();
        data.push(USER_PRESENT | verified | flags);
        data.extend_from_slice(&self.counter.to_be_bytes());
        data
    }

    /// The public key as COSE writes it (RFC 9053, 7.1.1).
    fn cose(&self) -> Vec<u8> {
        let point: &[u8] = self.key.public_key().as_ref();
        assert_eq!((point.len(), point[0]), (65, 4), "an uncompressed point");
        let mut out = vec![0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20];
        out.extend_from_slice(&point[1..33]);
        out.extend_from_slice(&[0x22, 0x58, 0x20]);
        out.extend_from_slice(&point[33..]);
        out
    }

    fn answer(&self, response: Value) -> WebAuthn {
        let id = URL_SAFE_NO_PAD.encode(&self.id);
        WebAuthn(json!({
            "id": id, "rawId": id, "type": "public-key", "response": response, "extensions": {},
        }))
    }

    /// `navigator.credentials.create()`.
    pub fn create(&mut self, options: &Value) -> WebAuthn {
        let handle = options["user"]["id"].as_str().unwrap();
        self.handle = Some(URL_SAFE_NO_PAD.decode(handle).unwrap());
        let mut data = self.head(&options["rp"]["id"], KEY_INCLUDED);
        data.extend_from_slice(&[0; 16]);
        data.extend_from_slice(&u16::try_from(self.id.len()).unwrap().to_be_bytes());
        data.extend_from_slice(&self.id);
        data.extend_from_slice(&self.cose());
        // CBOR: {"fmt": "none", "attStmt": {}, "authData": data}.
        let mut object = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x59".to_vec();
        object.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        object.extend_from_slice(&data);
        self.answer(json!({
            "attestationObject": URL_SAFE_NO_PAD.encode(object),
            "clientDataJSON": URL_SAFE_NO_PAD.encode(self.client_data("webauthn.create", options)),
            "transports": ["internal"],
        }))
    }

    /// `navigator.credentials.get()`.
    pub fn get(&mut self, options: &Value) -> WebAuthn {
        self.counter += 1;
        let data = self.head(&options["rpId"], 0);
        let client = self.client_data("webauthn.get", options);
        let signed = [data.as_slice(), &sha256(&client)].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).unwrap();
        self.answer(json!({
            "authenticatorData": URL_SAFE_NO_PAD.encode(data),
            "clientDataJSON": URL_SAFE_NO_PAD.encode(client),
            "signature": URL_SAFE_NO_PAD.encode(signature.as_ref()),
            "userHandle": self.handle.as_ref().map(|h| URL_SAFE_NO_PAD.encode(h)),
        }))
    }
}
