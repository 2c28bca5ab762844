//! A node's `xosd`.

use super::config::Config;
use super::durable::replace;
use super::{notify, osd};
use rcgen::{CertificateParams, KeyPair};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use xos_api::cda::RenewMachine;
use xos_api::site::SiteDescriptor;
use xos_base::when::{Clock, SystemClock};
use xos_base::{Error, Millis};
use xos_net::dial::Dialer;
use xos_net::identity::validity;
use xos_net::tls::ALPN_XTREEMFS;
use xos_net::trust::{Subject, subject_of};
use xos_net::{Client, Identity, IdentityCell, Proof, Trust};
use xos_node::agent::{Agent, Parts};

/// The node's certificate chain, PEM, below the node's folder.
pub const CHAIN: &str = "chain.pem";
/// The node's private key, PEM, mode 0600.
pub const KEY: &str = "key.pem";
/// How often to look whether the certificate is to be renewed: often enough for the shortest life
/// that `machine_s` may be, an hour, of which a third is left.
const RENEWAL_LOOK: Duration = Duration::from_secs(600);
/// The trusted sites, JSON; the own one comes first.
pub const SITES: &str = "sites.json";

/// Reads certificate, key and trusted sites of a node.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] naming the file.
pub fn read_identity(folder: &Path) -> Result<(IdentityCell, Trust), Error> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|e| {
            Error::invalid(format!("cannot read {}: {e}", path.display()))
                .hint("`xosd join` makes this machine a node")
        })
    };
    let identity = Identity::from_pem(&read(CHAIN)?, &read(KEY)?)?;
    let sites: Vec<SiteDescriptor> = serde_json::from_str(&read(SITES)?)
        .map_err(|e| Error::invalid(format!("{SITES} is damaged: {e}")))?;
    let trust = Trust::new();
    for site in sites {
        trust.add(site)?;
    }
    Ok((IdentityCell::new(identity), trust))
}

/// Runs the node until `stop`; `cgroup` as [`Parts::cgroup`].
///
/// # Errors
/// Why it cannot start.
pub async fn run(
    config: Config,
    cgroup: Option<PathBuf>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let Some(node) = config.node else {
        return Err(Error::invalid("section [node] is missing"));
    };
    let folder = config.site.state.join("node");
    let (identity, trust) = read_identity(&folder)?;
    let id = config.site.name.node(&node.name)?;
    let clock = Arc::new(SystemClock);
    let dialer = Dialer::new(trust.clone(), identity.clone());
    let objects = osd::Objects::start(config.osd, &id, &config.site.state, dialer, &trust).await?;
    let handlers = HashMap::from([(ALPN_XTREEMFS.to_vec(), objects.handler())]);
    let agent = Agent::start(Parts {
        config: node,
        cgroup,
        site: config.site.name,
        state: config.site.state,
        identity: identity.clone(),
        trust: trust.clone(),
        clock: clock.clone(),
        handlers,
        watcher: objects.clone(),
        socket: xos_base::local::SOCKET.into(),
    })
    .await?;
    notify::ready(&format!("node {}", agent.node()));
    let renewing = tokio::spawn(renew(folder, identity, trust, clock, stop.clone()));
    let serving = tokio::spawn(objects.run(stop.clone()));
    agent.run(stop).await;
    for task in [serving, renewing] {
        if let Err(e) = task.await {
            tracing::error!(error = %e, "a part of the node failed");
        }
    }
    Ok(())
}

/// Renews the node's certificate, for the same key, when two thirds of its life are over.
async fn renew(
    folder: PathBuf,
    identity: IdentityCell,
    trust: Trust,
    clock: Arc<SystemClock>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        match renew_if_due(&folder, &identity, &trust, clock.now()).await {
            Ok(false) => {}
            Ok(true) => tracing::info!("the node's certificate was renewed"),
            Err(e) => tracing::warn!(error = %e, "the node's certificate was not renewed yet"),
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(RENEWAL_LOOK) => {}
        }
    }
}

async fn renew_if_due(
    folder: &Path,
    identity: &IdentityCell,
    trust: &Trust,
    now: Millis,
) -> Result<bool, Error> {
    let present = identity.get();
    let leaf = present.chain().first().ok_or_else(|| Error::internal("no certificate"))?;
    let (from, until) = validity(leaf)?;
    if now < from.plus(until.since(from) / 3 * 2) {
        return Ok(false);
    }
    let Subject::Node(node) = subject_of(leaf)? else {
        return Err(Error::invalid("this machine's certificate names no node"));
    };
    let fault = |e: &dyn std::fmt::Display| Error::internal(format!("renewal: {e}"));
    let key_pem = std::fs::read_to_string(folder.join(KEY)).map_err(|e| fault(&e))?;
    let key = KeyPair::from_pem(&key_pem).map_err(|e| fault(&e))?;
    let csr_pem = CertificateParams::default()
        .serialize_request(&key)
        .and_then(|csr| csr.pem())
        .map_err(|e| fault(&e))?;
    let client = Client::new(node.site(), trust, &Proof::Certificate(identity.clone()))?;
    let joined = client.call(RenewMachine { csr_pem }).await?;
    let renewed = Identity::from_pem(&joined.chain_pem, &key_pem)?;
    replace(&folder.join(CHAIN), &joined.chain_pem)?;
    identity.replace(renewed);
    Ok(true)
}
