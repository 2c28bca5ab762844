//! Certificates of machines.

use crate::site::SiteDescriptor;
use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use xos_base::{Millis, NodeId};

/// Makes a one-time right for a machine to become the named node, valid for an hour. For the
/// site's administrators. Refused as Conflict when a cluster of the site has that name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateJoinToken {
    /// The node's label: 1 to 24 of a-z, 0-9 and '-', beginning with a letter.
    pub label: String,
}
request!(CreateJoinToken => JoinTokenView, Post "/v1/join-tokens");

/// A right to join, shown once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenView {
    /// The node.
    pub node: NodeId,
    /// Give this to the machine; whoever has it first becomes the node.
    pub token: JoinToken,
    /// Until when.
    pub expires: Millis,
}

/// The text of a right to join: `xos-join:<node>:<root fingerprint>:<secret>`.
///
/// It names the fingerprint of the site's root, so that the machine knows its core from the first
/// connection on.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct JoinToken {
    /// The node.
    pub node: NodeId,
    /// SHA-256 of the site's root certificate (DER), 64 hexadecimal digits.
    pub root: String,
    /// 32 random bytes, 64 hexadecimal digits.
    pub secret: String,
}

/// Why a text is no join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a join token; it looks like xos-join:<node>:<64 hex digits>:<64 hex digits>")]
pub struct JoinTokenError;

fn is_hex64(s: &str) -> bool {
    s.len() == 64 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;
    fn from_str(s: &str) -> Result<JoinToken, JoinTokenError> {
        let mut parts = s.trim().split(':');
        let mut next = || parts.next().ok_or(JoinTokenError);
        if next()? != "xos-join" {
            return Err(JoinTokenError);
        }
        let node = next()?.parse().map_err(|_| JoinTokenError)?;
        let (root, secret) = (next()?, next()?);
        if parts.next().is_some() || !is_hex64(root) || !is_hex64(secret) {
            return Err(JoinTokenError);
        }
        Ok(JoinToken { node, root: root.to_owned(), secret: secret.to_owned() })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "xos-join:{}:{}:{}", self.node, self.root, self.secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}, ..)", self.node)
    }
}

impl TryFrom<String> for JoinToken {
    type Error = JoinTokenError;
    fn try_from(s: String) -> Result<JoinToken, JoinTokenError> {
        s.parse()
    }
}

impl From<JoinToken> for String {
    fn from(t: JoinToken) -> String {
        t.to_string()
    }
}

/// A machine becomes a node of this site. Needs no proof but the token. Refused as Conflict when a
/// cluster of the site was given that name since.
///
/// The same token with the same key may be sent again, in case the answer was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinMachine {
    /// The right to join.
    pub token: JoinToken,
    /// PKCS #10 in PEM; the key is P-256 or Ed25519, made on the machine.
    pub csr_pem: String,
}
request!(JoinMachine => Joined, Post "/v1/join");

/// What a node needs to work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Joined {
    /// The node.
    pub node: NodeId,
    /// Its certificate and the authority between it and the site's root, PEM, leaf first.
    pub chain_pem: String,
    /// When the certificate expires; to be renewed at two thirds of its life.
    pub expires: Millis,
    /// Its own site.
    pub site: SiteDescriptor,
    /// The sites that its site trusts.
    pub trusted: Vec<SiteDescriptor>,
}

/// A new certificate for the calling node, for the same or a new key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewMachine {
    /// PKCS #10 in PEM.
    pub csr_pem: String,
}
request!(RenewMachine => Joined, Post "/v1/machines/renew");

/// SSH host certificates for the keys of the calling node's sshd: their principals are the node's
/// name (`n1.rennes`) and its label below the machines' suffix. They hold as long as the node's
/// certificate would if it were renewed now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertifyHost {
    /// The public keys, one line each as OpenSSH writes it, at most [`HOST_KEYS_MAX`]; Ed25519,
    /// ECDSA on P-256, or RSA of 2048 bits and more.
    pub keys: Vec<String>,
}
request!(CertifyHost => HostCertificates, Post "/v1/machines/ssh");

/// Most keys in one [`CertifyHost`].
pub const HOST_KEYS_MAX: usize = 8;

/// SSH host certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostCertificates {
    /// One line for each key that was asked for, in that order.
    pub certificates: Vec<String>,
    /// When they expire; to be renewed at two thirds of their life.
    pub expires: Millis,
}

/// The machines that have joined this site. For its administrators.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListMachines {}
request!(ListMachines => Vec<Machine>, Get "/v1/machines");

/// A machine of this site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The node.
    pub node: NodeId,
    /// When it joined.
    pub joined: Millis,
    /// When its certificate expires.
    pub certificate_until: Millis,
    /// Fingerprint of its key (SHA-256 over the SubjectPublicKeyInfo, hex).
    pub key: String,
}

/// Removes a node: its keys are refused from now on. For the site's administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveNode {
    /// The node.
    pub node: NodeId,
}
request!(RemoveNode => Done, Delete "/v1/machines/{node}");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_token_reads_back_and_others_are_refused() {
        let text = format!("xos-join:n1.rennes:{}:{}", "a1".repeat(32), "0f".repeat(32));
        let token: JoinToken = text.parse().unwrap();
        assert_eq!(token.to_string(), text);
        assert!(!format!("{token:?}").contains("0f0f"), "the secret shows in a log");
        for bad in [
            "",
            "xos-join",
            "xos-join:n1.rennes",
            &text[..text.len() - 1],
            &format!("{text}:x"),
            &text.replace("n1.rennes", "n1"),
            &text.replace("0f", "0F"),
        ] {
            assert!(bad.parse::<JoinToken>().is_err(), "{bad:?}");
        }
    }
}
