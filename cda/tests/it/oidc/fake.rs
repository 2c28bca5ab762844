//! A provider made for attacks: it gives whatever token it is told to.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// What the token endpoint does.
#[derive(Clone)]
pub enum Reply {
    /// Gives this as ID token.
    Token(String),
    /// Gives no ID token.
    Nothing,
    /// Answers with far more than a token needs.
    Huge,
    /// Sends elsewhere.
    Redirect,
    /// Never answers.
    Silent,
}

pub struct Fake {
    pub issuer: String,
    pub reply: Mutex<Reply>,
    /// How often somebody followed a redirect.
    pub followed: AtomicU32,
    /// How often the keys were fetched.
    pub keys_fetched: AtomicU32,
    key: EcdsaKeyPair,
}

fn text(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn new_key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

fn es256(key: &EcdsaKeyPair, header: &Value, claims: &Value) -> String {
    let said = format!("{}.{}", text(header), text(claims));
    let signature = key.sign(&SystemRandom::new(), said.as_bytes()).unwrap();
    format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

impl Fake {
    pub async fn start() -> Arc<Fake> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Arc::new(Fake {
            issuer: format!("http://{}", listener.local_addr().unwrap()),
            reply: Mutex::new(Reply::Nothing),
            followed: AtomicU32::new(0),
            keys_fetched: AtomicU32::new(0),
            key: new_key(),
        });
        let serving = fake.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let fake = serving.clone();
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let fake = fake.clone();
                    async move { Ok::<_, Infallible>(fake.answer(request.uri().path()).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                // It breaks off when the core has had enough.
                tokio::spawn(async move { connection.await.ok() });
            }
        });
        fake
    }

    async fn answer(&self, path: &str) -> http::Response<Full<Bytes>> {
        let at = |path: &str| format!("{}{path}", self.issuer);
        let reply = self.reply.lock().unwrap().clone();
        let value = match (path, reply) {
            ("/.well-known/openid-configuration", _) => json!({
                "issuer": self.issuer, "authorization_endpoint": at("/authorize"),
                "token_endpoint": at("/token"), "jwks_uri": at("/jwks"),
                "response_types_supported": ["code"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
            }),
            ("/jwks", _) => {
                self.keys_fetched.fetch_add(1, Ordering::SeqCst);
                json!({ "keys": [self.jwk()] })
            }
            ("/token", Reply::Token(token)) => {
                json!({ "access_token": "a", "token_type": "Bearer", "id_token": token })
            }
            ("/token", Reply::Nothing) => json!({ "access_token": "a", "token_type": "Bearer" }),
            ("/token", Reply::Huge) => json!({ "access_token": "a".repeat(4 << 20) }),
            ("/token", Reply::Redirect) => {
                return http::Response::builder()
                    .status(307)
                    .header("location", at("/elsewhere"))
                    .body(Full::default())
                    .unwrap();
            }
            ("/token", Reply::Silent) => std::future::pending().await,
            _ => {
                self.followed.fetch_add(1, Ordering::SeqCst);
                json!({})
            }
        };
        http::Response::builder()
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(value.to_string())))
            .unwrap()
    }

    fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig", "alg": "ES256",
            "x": part(&point[1..33]), "y": part(&point[33..]),
        })
    }

    pub fn tell(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    /// A token as it should be.
    pub fn signed(&self, claims: &Value) -> String {
        es256(&self.key, &json!({ "alg": "ES256", "kid": "k1" }), claims)
    }

    /// The same by a key that is not the provider's; `kid` says which it claims to be.
    pub fn signed_by_another(&self, kid: &str, claims: &Value) -> String {
        es256(&new_key(), &json!({ "alg": "ES256", "kid": kid }), claims)
    }

    /// A token that nobody signed.
    pub fn unsigned(&self, claims: &Value) -> String {
        format!("{}.{}.", text(&json!({ "alg": "none" })), text(claims))
    }

    /// A token under a shared secret.
    pub fn hs256(&self, secret: &[u8], claims: &Value) -> String {
        let header = json!({ "alg": "HS256", "kid": "k1" });
        let said = format!("{}.{}", text(&header), text(claims));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), said.as_bytes());
        format!("{said}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    }

    /// What an attacker may take for a shared secret: the public key, as everybody can fetch it.
    pub fn public_forms(&self) -> [Vec<u8>; 2] {
        [self.key.public_key().as_ref().to_vec(), self.jwk().to_string().into_bytes()]
    }
}
