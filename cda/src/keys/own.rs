//! The core's own certificate: by which names, and when it is renewed.

use super::authority::{Authority, span_of};
use crate::config::is_host;
use crate::issue;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::CertificateDer;
use std::net::IpAddr;
use std::time::Duration;
use xos_api::site::DESCRIPTOR_LIST_MAX;
use xos_base::{Error, Millis, SiteId};
use xos_net::Identity;
use xos_net::trust::{MACHINE_SUFFIX, core_name};
use zeroize::Zeroizing;

/// Life of the core's certificate.
pub const CORE_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Refuses what cannot be a name of the core.
pub(super) fn check_names(names: &[String]) -> Result<(), Error> {
    if names.len() > DESCRIPTOR_LIST_MAX {
        return Err(Error::invalid(format!("more than {DESCRIPTOR_LIST_MAX} names for the core")));
    }
    if let Some(bad) = names.iter().find(|n| n.ends_with(MACHINE_SUFFIX)) {
        return Err(Error::invalid(format!(
            "name {bad:?} for the core ends in {MACHINE_SUFFIX}, which XOS gives out itself"
        )));
    }
    match names.iter().find(|n| n.parse::<IpAddr>().is_err() && !is_host(n)) {
        Some(bad) => {
            Err(Error::invalid(format!("{bad:?} for the core is neither a host name nor an IP")))
        }
        None => Ok(()),
    }
}

/// A new key for the core with its chain: the text of its file.
pub(super) fn core_file(
    machines: &Authority,
    site: &SiteId,
    names: &[String],
    now: Millis,
) -> Result<Zeroizing<String>, Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|e| Error::internal(format!("cannot make the core's key: {e}")))?;
    let until = now.plus(CORE_LIFE).min(machines.span.until);
    let issued = issue::machine(machines, &core_name(site), names, &key, (now, until))?;
    Ok(Zeroizing::new(format!("{}{}", key.serialize_pem(), issued.chain_pem)))
}

/// Whether the core's certificate is to be renewed: two thirds of its life are over, its names
/// changed, or another authority stands for its machines now.
pub(super) fn is_due(
    identity: &Identity,
    machines: &Authority,
    names: &[String],
    now: Millis,
) -> Result<bool, Error> {
    let [leaf, above @ ..] = identity.chain() else { return Ok(true) };
    let is_above = above.first() == Some(&machines.der);
    Ok(!is_above || span_of(leaf)?.is_due(now) || has_other_names(leaf, names)?)
}

fn has_other_names(leaf: &CertificateDer<'_>, wanted: &[String]) -> Result<bool, Error> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let damaged = || Error::internal("the core's certificate is damaged");
    let (_, cert) = X509Certificate::from_der(leaf).map_err(|_| damaged())?;
    let san = cert.subject_alternative_name().map_err(|_| damaged())?.ok_or_else(damaged)?;
    let mut present: Vec<String> = Vec::new();
    for name in &san.value.general_names {
        match name {
            GeneralName::DNSName(n) if n.ends_with(MACHINE_SUFFIX) => {}
            GeneralName::DNSName(n) => present.push((*n).to_owned()),
            GeneralName::IPAddress(b) => present.push(
                match b.len() {
                    4 => <[u8; 4]>::try_from(*b).map(|a| IpAddr::from(a).to_string()),
                    _ => <[u8; 16]>::try_from(*b).map(|a| IpAddr::from(a).to_string()),
                }
                .map_err(|_| damaged())?,
            ),
            _ => return Ok(true),
        }
    }
    let canonical = |n: &String| n.parse::<IpAddr>().map_or(n.clone(), |ip| ip.to_string());
    Ok(present != wanted.iter().map(canonical).collect::<Vec<_>>())
}
