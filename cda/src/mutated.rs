//! What strangers send to cda, good ones made bad: none may panic, hang or take much memory.

#[path = "../../tools/mutate.rs"]
mod mutate;

use crate::csr;
use crate::keys::pem;
use crate::ops::read_statement;
use crate::ssh;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mutate::{modest, survives};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use xos_api::cda::{JoinToken, SiteStatement};
use xos_api::site::SiteDescriptor;
use xos_base::{Millis, SiteId};
use xos_net::key::{KeyKind, LocalKey};
use xos_net::sign::{Kind, Signer, vouch};

#[test]
fn certificate_requests() {
    let mut samples = Vec::new();
    for alg in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
        let key = KeyPair::generate_for(alg).unwrap();
        let names = vec!["a.example".to_owned()];
        for params in [CertificateParams::default(), CertificateParams::new(names).unwrap()] {
            let text = params.serialize_request(&key).unwrap().pem().unwrap();
            let der = CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).unwrap();
            samples.push(der.to_vec());
            samples.push(text.into_bytes());
        }
    }
    survives(&samples, 20_000, modest, |input| {
        // Whether it is refused does not matter, only that it is answered.
        csr::read(&String::from_utf8_lossy(input)).ok();
        csr::read(&pem("CERTIFICATE REQUEST", input)).ok();
    });
}

#[test]
fn ssh_keys() {
    let field = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
    let p256 = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let modulus = [&[0][..], &[0xff; 256]].concat();
    let fields: [&[&[u8]]; 3] = [
        &[b"ssh-ed25519", &[7; 32]],
        &[b"ecdsa-sha2-nistp256", b"nistp256", p256.public_key_raw()],
        &[b"ssh-rsa", &[1, 0, 1], &modulus],
    ];
    let mut samples = Vec::new();
    for all in fields {
        let bytes: Vec<u8> = all.iter().flat_map(|f| field(f)).collect();
        let kind = String::from_utf8(all[0].to_vec()).unwrap();
        let line = format!("{kind} {} a comment", STANDARD.encode(&bytes));
        ssh::host_key(&line).unwrap();
        samples.push(line.into_bytes());
        samples.push(bytes);
    }
    let kinds = ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa", "ssh-ed448@example.org"];
    // A length that lies is believed up to 1 MiB, for each of two numbers at most.
    survives(
        &samples,
        20_000,
        |n| modest(n) + (2 << 20),
        |input| {
            let text = String::from_utf8_lossy(input);
            ssh::host_key(&text).ok();
            ssh::person_key(&text).ok();
            for kind in kinds {
                ssh::host_key(&format!("{kind} {}", STANDARD.encode(input))).ok();
            }
        },
    );
}

#[test]
fn invitations_and_join_tokens() {
    let site: SiteId = "rennes".parse().unwrap();
    let (key, signer) = (KeyPair::generate().unwrap(), Signer::generate().unwrap());
    let root = CertificateParams::default().self_signed(&key).unwrap();
    let keys = vec![signer.public()];
    let from = SiteDescriptor {
        site: site.clone(),
        addresses: vec!["core.example.org:7443".into()],
        root: STANDARD.encode(root.der()),
        keys: vouch(
            &LocalKey::from_pkcs8(KeyKind::P256, &key.serialize_der()).unwrap(),
            &xos_api::site::SiteKeys::signing(&site, keys, Millis(1)),
        )
        .unwrap(),
        withdrawn: None,
    };
    let to: SiteId = "pisa".parse().unwrap();
    let secret = Some("0f".repeat(32));
    let statement = SiteStatement { from, to: to.clone(), secret, expires: Millis(9) };
    let good = signer.sign(Kind::SiteOffer, &statement).unwrap();
    read_statement(&good, &to, Millis(1)).unwrap();
    let token = format!("xos-join:n1.rennes:{}:{}", "a1".repeat(32), "0f".repeat(32));
    let samples = vec![
        good.clone().into_bytes(),
        serde_json::to_vec(&statement).unwrap(),
        token.into_bytes(),
    ];
    survives(
        &samples,
        10_000,
        |n| modest(n) + (1 << 20),
        |input| {
            let text = String::from_utf8_lossy(input);
            read_statement(&text, &to, Millis(1)).ok();
            text.parse::<JoinToken>().ok();
            let parts: Vec<&str> = good.split('.').collect();
            let body = URL_SAFE_NO_PAD.encode(input);
            read_statement(&format!("{}.{body}.{}", parts[0], parts[2]), &to, Millis(1)).ok();
            // A stranger signs what they like.
            if let Ok(value) = serde_json::from_slice::<serde_json::Value>(input) {
                let jws = signer.sign(Kind::SiteOffer, &value).unwrap();
                read_statement(&jws, &to, Millis(1)).ok();
            }
        },
    );
}
