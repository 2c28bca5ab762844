//! `xosd join`: this machine becomes a node of a site.

use super::args::Join;
use super::core::state_folder;
use super::node::{CHAIN, KEY, SITES};
use super::say;
use super::setup::write_new;
use rcgen::{CertificateParams, KeyPair};
use std::io::Read;
use xos_api::cda::{JoinMachine, JoinToken, Joined};
use xos_base::Error;
use xos_net::discover::discover;
use xos_net::{Client, Proof, Trust};

/// Longest token, in bytes.
const TOKEN_MAX: u64 = 4096;

/// Makes the node's key, gets its certificate, and writes the configuration.
///
/// # Errors
/// What is in the way; nothing that exists is replaced.
pub async fn run(args: Join) -> Result<(), Error> {
    if args.config.exists() {
        return Err(Error::conflict(format!("{} exists already", args.config.display()))
            .hint("this machine has joined a site or is a core; `xosd run` starts it"));
    }
    let token: JoinToken = read_token(&args.token)?
        .parse()
        .map_err(|e| Error::invalid(format!("{e}")).hint("`xos node token NAME` prints one"))?;
    let (descriptor, fingerprint) = discover(&args.core).await?;
    if fingerprint.strip_prefix("sha256:") != Some(token.root.as_str()) {
        return Err(Error::unauthenticated(format!(
            "the core at {} has another root ({fingerprint}) than the token names",
            args.core
        ))
        .hint("check the address; if it is right, somebody stands in between"));
    }
    let mut descriptor = descriptor;
    if !descriptor.addresses.contains(&args.core) {
        descriptor.addresses.insert(0, args.core.clone());
    }
    let trust = Trust::new();
    let site = descriptor.site.clone();
    trust.add(descriptor)?;
    let key =
        KeyPair::generate().map_err(|e| Error::internal(format!("cannot make a key: {e}")))?;
    let csr_pem = CertificateParams::default()
        .serialize_request(&key)
        .and_then(|csr| csr.pem())
        .map_err(|e| Error::internal(format!("cannot make a certificate request: {e}")))?;
    let client = Client::new(site, &trust, &Proof::None)?;
    let joined = client.call(JoinMachine { token, csr_pem }).await?;
    write(&args, &joined, &key.serialize_pem())?;
    say(&format!("This machine is node {} now.", joined.node));
    say("Start it with `xosd run`.");
    Ok(())
}

fn write(args: &Join, joined: &Joined, key: &str) -> Result<(), Error> {
    let folder = args.state.join("node");
    state_folder(&args.state)?;
    state_folder(&folder)?;
    let mut sites = vec![joined.site.clone()];
    sites.extend(joined.trusted.iter().filter(|s| s.site != joined.site.site).cloned());
    let sites = serde_json::to_string(&sites)
        .map_err(|e| Error::internal(format!("cannot encode the trusted sites: {e}")))?;
    write_new(&folder.join(KEY), key)?;
    write_new(&folder.join(CHAIN), &joined.chain_pem)?;
    write_new(&folder.join(SITES), &sites)?;
    let osd = if args.no_osd { "" } else { "\n[osd]\n" };
    let state = toml::Value::from(args.state.display().to_string());
    let text = format!(
        "# XOS node {node}. docs/config.md lists every section and key.\n\n\
         [site]\nname = \"{site}\"\nstate = {state}\n\n[node]\nname = \"{label}\"\n{osd}",
        node = joined.node,
        site = joined.node.site(),
        label = joined.node.label(),
    );
    write_new(&args.config, &text)
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
