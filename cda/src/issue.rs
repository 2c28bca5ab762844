//! Certificates of members and machines: what stands in them. Signs, but does no I/O.

use crate::csr::PublicKey;
use crate::keys::Authority;
use der::Encode;
use der::asn1::OctetStringRef;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use std::net::IpAddr;
use std::time::Duration;
use time::OffsetDateTime;
use xos_base::membership::EXTENSION_OID;
use xos_base::{Error, Membership, Millis};
use xos_net::caller::SIGNED_IN_OID;
use xos_net::identity::hex;

/// How far certificates reach back, for clocks that are behind.
pub(crate) const BACKDATE: Duration = Duration::from_secs(10 * 60);

/// A certificate that was issued.
pub(crate) struct Issued {
    /// Leaf and authority.
    pub(crate) chain_pem: String,
    pub(crate) serial: String,
    pub(crate) until: Millis,
}

/// The extensions of an original XOS certificate, 1.34.5.0.14.1 to .8, by their last number:
/// GlobalPrimaryVOName, GlobalSecondaryVONames, GlobalUserID, GlobalPrimaryGroupName,
/// GlobalSecondaryGroupNames, Role, Group, Subgroup.
///
/// Lists are joined by commas, as the original did. Original readers take BIT STRING, OCTET STRING
/// or SEQUENCE: each content here is an OCTET STRING of UTF-8. A credential speaks of one VO and
/// groups are not yet nested, so .2 and .8 are empty.
fn original_extensions(m: &Membership) -> [(u64, String); 8] {
    let names = |groups: &[xos_base::Group]| {
        groups.iter().map(|g| g.name.as_str()).collect::<Vec<_>>().join(",")
    };
    let roles = m.roles.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(",");
    let (primary, secondary) = m.groups.split_at(m.groups.len().min(1));
    [
        (1, m.vo.to_string()),
        (2, String::new()),
        (3, m.person.to_string()),
        (4, names(primary)),
        (5, names(secondary)),
        (6, roles),
        (7, names(&m.groups)),
        (8, String::new()),
    ]
}

/// Issues a member's certificate. `signed_in` stands in it unless the credential is narrowed.
pub(crate) fn member(
    authority: &Authority,
    m: &Membership,
    key: &PublicKey,
    signed_in: Option<Millis>,
    (now, until): (Millis, Millis),
) -> Result<Issued, Error> {
    let broken = |e: der::Error| Error::internal(format!("cannot encode an extension: {e}"));
    let mut p = leaf(now, until)?;
    p.distinguished_name.push(DnType::OrganizationName, m.vo.as_str());
    p.distinguished_name.push(DnType::CommonName, m.person.as_str());
    p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    for (last, text) in original_extensions(m) {
        let content =
            OctetStringRef::new(text.as_bytes()).and_then(|o| o.to_der()).map_err(broken)?;
        let oid = [1, 34, 5, 0, 14, last];
        p.custom_extensions.push(CustomExtension::from_oid_content(&oid, content));
    }
    let der = m.to_der().map_err(|e| Error::internal(e.to_string()))?;
    p.custom_extensions.push(CustomExtension::from_oid_content(EXTENSION_OID, der));
    if let Some(at) = signed_in {
        let content = at.secs().to_der().map_err(broken)?;
        p.custom_extensions.push(CustomExtension::from_oid_content(SIGNED_IN_OID, content));
    }
    finish(p, key, authority, until)
}

/// Issues a machine's certificate: its `.xos.internal` name, and for a core more names by which
/// browsers reach it.
pub(crate) fn machine(
    authority: &Authority,
    machine_name: &str,
    more: &[String],
    key: &impl PublicKeyData,
    (now, until): (Millis, Millis),
) -> Result<Issued, Error> {
    let mut p = leaf(now, until)?;
    p.distinguished_name.push(DnType::CommonName, machine_name);
    p.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let mut names = vec![machine_name.to_owned()];
    names.extend_from_slice(more);
    for name in names {
        p.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(name.as_str().try_into().map_err(|_| {
                Error::invalid(format!("{name:?} is neither a host name nor an IP address"))
            })?),
        });
    }
    finish(p, key, authority, until)
}

fn leaf(now: Millis, until: Millis) -> Result<CertificateParams, Error> {
    let mut p = CertificateParams::default();
    p.distinguished_name = DistinguishedName::new();
    p.serial_number = Some(random_serial()?);
    p.not_before = time_of(now.minus(BACKDATE))?;
    p.not_after = time_of(until)?;
    p.is_ca = IsCa::ExplicitNoCa;
    p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    p.use_authority_key_identifier_extension = true;
    Ok(p)
}

fn finish(
    p: CertificateParams,
    key: &impl PublicKeyData,
    authority: &Authority,
    until: Millis,
) -> Result<Issued, Error> {
    let serial = p.serial_number.as_ref().map(|s| hex(s.as_ref())).unwrap_or_default();
    let cert = p.signed_by(key, &authority.issuer).map_err(|e| authority.failure(&e))?;
    Ok(Issued {
        chain_pem: format!("{}{}", cert.pem(), authority.pem),
        serial,
        until: Millis::from_secs(until.secs()),
    })
}

/// 128 random bits, positive and of full length (RFC 5280, 4.1.2.2).
pub(crate) fn random_serial() -> Result<SerialNumber, Error> {
    let mut bytes = random::<16>()?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Error::internal("the system gives no random bytes"))?;
    Ok(bytes)
}

/// A time as certificates hold it, in whole seconds.
pub(crate) fn time_of(at: Millis) -> Result<OffsetDateTime, Error> {
    i64::try_from(at.secs())
        .ok()
        .and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok())
        .ok_or_else(|| Error::internal(format!("{at} is no time that a certificate can hold")))
}
