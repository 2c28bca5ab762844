//! `xosd join`: this machine becomes a node of a site.

use super::args::Join;
use super::core::state_folder;
use super::durable::{check_place, replace, write_new};
use super::node::{CHAIN, KEY, SITES};
use super::say;
use rcgen::{CertificateParams, KeyPair};
use std::io::{ErrorKind, Read};
use std::path::Path;
use xos_api::cda::{JoinMachine, JoinToken, Joined};
use xos_base::{Error, Kind, NodeId, SiteId};
use xos_net::discover::discover;
use xos_net::{Client, Proof, Trust};

/// Longest token, in bytes.
const TOKEN_MAX: u64 = 4096;

/// Makes the node's key, gets its certificate, and writes the configuration.
///
/// The core voids the node's earlier keys when it answers. So whatever may fail is looked at
/// before, the new key is on the disk before, and a join that did not come to its end can be
/// repeated: it goes on with that key, for which the same token still holds.
///
/// # Errors
/// What is in the way; nothing of a machine that has joined is replaced.
pub async fn run(args: Join) -> Result<(), Error> {
    let token: JoinToken = read_token(&args.token)?
        .parse()
        .map_err(|e| Error::invalid(format!("{e}")).hint("`xos node token NAME` prints one"))?;
    let config = configuration(&args, &token.node);
    let folder = args.state.join("node");
    refuse_if_joined(&args, &folder, &config)?;
    let (site, trust) = meet(&args, &token).await?;
    state_folder(&args.state)?;
    state_folder(&folder)?;
    check_place(&args.config)?;
    let key = own_key(&folder.join(KEY))?;
    let csr_pem = CertificateParams::default()
        .serialize_request(&key)
        .and_then(|csr| csr.pem())
        .map_err(|e| Error::internal(format!("cannot make a certificate request: {e}")))?;
    let client = Client::new(site, &trust, &Proof::None)?;
    let joined = client.call(JoinMachine { token, csr_pem }).await.map_err(|e| match e.kind {
        Kind::Denied => e.hint(format!("move {} away and try again", folder.join(KEY).display())),
        _ => e,
    })?;
    write(&args, &folder, &joined, &config).map_err(|e| {
        e.hint("mend this and repeat the command: within the hour the same token holds")
    })?;
    say(&format!("This machine is node {} now.", joined.node));
    say("Start it with `xosd run`.");
    Ok(())
}

/// The site that the token is for, and the way to its core.
async fn meet(args: &Join, token: &JoinToken) -> Result<(SiteId, Trust), Error> {
    let (mut descriptor, fingerprint) = discover(&args.core).await?;
    if fingerprint.strip_prefix("sha256:") != Some(token.root.as_str()) {
        return Err(Error::unauthenticated(format!(
            "the core at {} has another root ({fingerprint}) than the token names",
            args.core
        ))
        .hint("check the address; if it is right, somebody stands in between"));
    }
    if !descriptor.addresses.contains(&args.core) {
        descriptor.addresses.insert(0, args.core.clone());
    }
    let trust = Trust::new();
    let site = descriptor.site.clone();
    trust.add(descriptor)?;
    Ok((site, trust))
}

/// The certificate is written last: where one is, this machine has joined. A configuration without
/// one may be this join's own, which was cut short.
fn refuse_if_joined(args: &Join, folder: &Path, config: &str) -> Result<(), Error> {
    let chain = folder.join(CHAIN);
    let exists = |path: &Path| Error::conflict(format!("{} exists already", path.display()));
    match std::fs::read_to_string(&args.config) {
        Ok(present) if present != config || chain.exists() => {
            return Err(exists(&args.config)
                .hint("this machine has joined a site or is a core; `xosd run` starts it"));
        }
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(Error::invalid(format!("cannot read {}: {e}", args.config.display())));
        }
        _ => {}
    }
    if chain.exists() {
        return Err(exists(&chain).hint(format!(
            "this machine is a node: put its {} back and run `xosd run`; or, to join anew, move \
             {KEY}, {CHAIN} and {SITES} in {} away",
            args.config.display(),
            folder.display()
        )));
    }
    Ok(())
}

/// The key of an earlier join that did not come to its end, or a new one, which is written.
fn own_key(path: &Path) -> Result<KeyPair, Error> {
    match std::fs::read_to_string(path) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(|e| {
            Error::invalid(format!("{} is damaged: {e}", path.display()))
                .hint("move it away and try again")
        }),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let key = KeyPair::generate()
                .map_err(|e| Error::internal(format!("cannot make a key: {e}")))?;
            write_new(path, key.serialize_pem())?;
            Ok(key)
        }
        Err(e) => Err(Error::invalid(format!("cannot read {}: {e}", path.display()))),
    }
}

fn write(args: &Join, folder: &Path, joined: &Joined, config: &str) -> Result<(), Error> {
    let mut sites = vec![joined.site.clone()];
    sites.extend(joined.trusted.iter().filter(|s| s.site != joined.site.site).cloned());
    let sites = serde_json::to_string(&sites)
        .map_err(|e| Error::internal(format!("cannot encode the trusted sites: {e}")))?;
    replace(&folder.join(SITES), sites)?;
    if !args.config.exists() {
        write_new(&args.config, config)?;
    }
    write_new(&folder.join(CHAIN), &joined.chain_pem)
}

fn configuration(args: &Join, node: &NodeId) -> String {
    let osd = if args.no_osd { "" } else { "\n[osd]\n" };
    let state = toml::Value::from(args.state.display().to_string());
    format!(
        "# XOS node {node}. docs/config.md lists every section and key.\n\n\
         [site]\nname = \"{site}\"\nstate = {state}\n\n[node]\nname = \"{label}\"\n{osd}",
        site = node.site(),
        label = node.label(),
    )
}

fn read_token(given: &str) -> Result<String, Error> {
    if given != "-" {
        return Ok(given.to_owned());
    }
    let mut text = String::new();
    std::io::stdin()
        .take(TOKEN_MAX)
        .read_to_string(&mut text)
        .map_err(|e| Error::invalid(format!("cannot read the token: {e}")))?;
    Ok(text.trim().to_owned())
}
