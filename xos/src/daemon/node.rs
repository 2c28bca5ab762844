//! A node's `xosd`.

use super::config::Config;
use super::{notify, osd};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use xos_api::site::SiteDescriptor;
use xos_base::Error;
use xos_base::when::SystemClock;
use xos_net::dial::Dialer;
use xos_net::tls::ALPN_XTREEMFS;
use xos_net::{Identity, IdentityCell, Trust};
use xos_node::agent::{Agent, Parts};

/// The node's certificate chain, PEM, below the node's folder.
pub const CHAIN: &str = "chain.pem";
/// The node's private key, PEM, mode 0600.
pub const KEY: &str = "key.pem";
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

/// Runs the node until `stop`.
///
/// # Errors
/// Why it cannot start.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
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
        site: config.site.name,
        state: config.site.state,
        identity,
        trust,
        clock,
        handlers,
        watcher: objects.clone(),
    })
    .await?;
    notify::ready(&format!("node {}", agent.node()));
    let serving = tokio::spawn(objects.run(stop.clone()));
    agent.run(stop).await;
    if let Err(e) = serving.await {
        tracing::error!(error = %e, "the object server failed");
    }
    Ok(())
}
