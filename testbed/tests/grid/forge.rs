//! Certificates: those that people have, and those that others make in their name.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};
use xos_base::Membership;
use xos_base::membership::EXTENSION_OID;
use xos_net::Identity;
use xos_net::trust::{Subject, subject_of};
use xos_testbed::Host;
use xos_testbed::grid::Person;

use crate::tool::Json;
use crate::world::World;

/// A person's file `credential.json`.
pub struct Credential {
    pub key: String,
    pub chain: String,
}

impl Credential {
    /// Key and chain in one text.
    pub fn pem(&self) -> String {
        format!("{}{}", self.key, self.chain)
    }

    /// What the certificate says.
    pub fn membership(&self) -> Membership {
        let identity = Identity::from_pem(&self.chain, &self.key).unwrap();
        match subject_of(&identity.chain()[0]).unwrap() {
            Subject::Member(membership) => membership,
            other => panic!("a person's certificate names {other:?}"),
        }
    }
}

impl World {
    /// What `person` keeps on the laptop for a VO.
    pub fn credential(&self, person: &Person, vo: &str) -> Credential {
        let path = format!("/home/{}/.xos/vo/{vo}/credential.json", person.name);
        let file: Json = serde_json::from_slice(&self.laptop().read_file(path).unwrap()).unwrap();
        let text = |name: &str| file[name].as_str().unwrap().to_owned();
        Credential { key: text("key_pem"), chain: text("chain_pem") }
    }
}

/// An authority: its key and certificate.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// That of a core, from its file in `/var/lib/xos/ca`.
    pub fn of(core: &Host, name: &str) -> Authority {
        let file = core.read_file(format!("/var/lib/xos/ca/{name}.pem")).unwrap();
        let text = String::from_utf8(file).unwrap();
        let (key, pem) = text.split_at(text.find("-----BEGIN CERTIFICATE").unwrap());
        let key = KeyPair::from_pem(key).unwrap();
        Authority { issuer: Issuer::from_ca_cert_pem(pem, key).unwrap(), pem: pem.to_owned() }
    }

    /// One that nobody knows, with the name of a real one.
    pub fn own(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Signs what `forged` asks for; key and chain in PEM.
    pub fn sign(&self, forged: &Forged) -> String {
        let key = forged.key.as_ref().map_or_else(KeyPair::generate, |pem| KeyPair::from_pem(pem));
        let key = key.unwrap();
        let mut p = CertificateParams::default();
        p.distinguished_name = DistinguishedName::new();
        p.distinguished_name.push(DnType::CommonName, "forged");
        (p.not_before, p.not_after) = forged.span;
        p.is_ca = IsCa::ExplicitNoCa;
        p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        p.use_authority_key_identifier_extension = true;
        if let Some(membership) = &forged.membership {
            let der = membership.to_der().unwrap();
            p.custom_extensions.push(CustomExtension::from_oid_content(EXTENSION_OID, der));
        }
        if let Some(machine) = &forged.machine {
            p.subject_alt_names.push(SanType::DnsName(machine.as_str().try_into().unwrap()));
            p.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let leaf = p.signed_by(&key, &self.issuer).unwrap().pem();
        format!("{}{leaf}{}", key.serialize_pem(), self.pem)
    }
}

/// What a certificate shall say.
#[derive(Clone)]
pub struct Forged {
    pub membership: Option<Membership>,
    pub machine: Option<String>,
    pub span: (OffsetDateTime, OffsetDateTime),
    /// The key in PEM; without one, a new one.
    pub key: Option<String>,
}

impl Forged {
    /// A member's certificate for the next hour.
    pub fn of(membership: Membership) -> Forged {
        let now = OffsetDateTime::now_utc();
        let hour = Duration::hours(1);
        let span = (now - hour, now + hour);
        Forged { membership: Some(membership), machine: None, span, key: None }
    }

    /// The same, valid from and until so many minutes from now.
    pub fn between(mut self, from: i64, until: i64) -> Forged {
        let now = OffsetDateTime::now_utc();
        self.span = (now + Duration::minutes(from), now + Duration::minutes(until));
        self
    }

    /// The same for a machine.
    pub fn machine(mut self, name: &str) -> Forged {
        self.machine = Some(name.to_owned());
        self
    }

    /// A machine's certificate for the next hour, for the key that it has.
    pub fn of_machine(name: &str, key: String) -> Forged {
        let now = OffsetDateTime::now_utc();
        let hour = Duration::hours(1);
        let span = (now - hour, now + hour);
        Forged { membership: None, machine: Some(name.to_owned()), span, key: Some(key) }
    }
}
