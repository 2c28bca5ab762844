//! Requests between a core and its nodes; they travel on the control stream that the node opens.
//!
//! The stream is symmetrical: a core's request to a node and a node's report to its core are both
//! requests, and a report's reply is its acknowledgement.

pub mod sessions;
pub mod units;

use crate::site::SiteDescriptor;
use crate::{Done, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{ClusterId, Error, NodeId, SiteId, VoId};

/// What a machine offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// Processors that units may use, in thousandths of one.
    pub cpu_milli: u32,
    /// Memory that units may use, in bytes.
    pub memory_bytes: u64,
    /// The processor architecture, as JSDL names it: `x86_64`.
    pub arch: String,
}

/// A node reports itself, first thing on each control stream and whenever its capacity changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The node; must be the one that its certificate names.
    pub node: NodeId,
    /// The version of its `xosd`.
    pub version: String,
    /// What it offers to units.
    pub capacity: Capacity,
    /// Fingerprint of its key (SHA-256 over the SubjectPublicKeyInfo, hex): tickets name it.
    pub key: String,
}
request!(Hello => Done, Post "/v1/node/hello");

/// The core asks a node to dial back, to serve a stream that somebody opened to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DialBack {
    /// Names the waiting stream, once; a secret of core and node.
    pub token: String,
}
request!(DialBack => Done, Post "/v1/node/dial-back");

/// What a person's client says first on a stream of `xos-ssh/1` to a node, one frame. Who they are,
/// the certificate says under which the stream was opened; it must be a member's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SshOpening {
    /// The mandate of this login ([`crate::cda::IssueLoginMandate`]): with it the node gets a
    /// ticket, so that the VO's volume is the person's there too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mandate: Option<String>,
    /// The account's name is all that is asked for: the node does not go on to its sshd, which
    /// takes it amiss when somebody comes and says nothing (sshd_config(5), `PerSourcePenalties`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub name_only: bool,
}

/// The node's answer, one frame; after [`SshOpened::Ok`] the stream is that of its sshd, unless the
/// name was all that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SshOpened {
    /// Go on.
    Ok {
        /// The person's local account there.
        account: String,
    },
    /// Why not.
    Error(Error),
}

/// What a person's client says first on a stream of `xos-cluster/1` to the node that collects a
/// tree's output ([`crate::cluster::ClusterTree::output_at`]), one frame. Who they are, the
/// certificate says; it must be that of the member whose the tree is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachOpening {
    /// The cluster.
    pub cluster: ClusterId,
    /// The tree.
    pub tree: u64,
    /// The newest copy of it that the client heard of: a node that knows only older ones has
    /// nothing for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
}

/// The node's answer, one frame; after [`AttachOpened::Ok`] both sides speak as a ghost and its
/// relay do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttachOpened {
    /// Go on.
    Ok {},
    /// Why not.
    Error(Error),
}

/// The core tells a node which sites are trusted; replaces what the node knew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSites {
    /// Every trusted site, the own one included.
    pub sites: Vec<SiteDescriptor>,
}
request!(SetSites => Done, Post "/v1/node/sites");

/// The core tells a node that it has told the accounts of all VOs, as they are: so it is heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccountsTold {}
request!(AccountsTold => Done, Post "/v1/node/told");

/// The core brings a ticket, or a fresh one: the node may act for that person until it expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTicket {
    /// The ticket, signed by the VO's home.
    pub ticket: String,
}
request!(SetTicket => Done, Post "/v1/node/ticket");

/// A VO's volume as a node mounts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeMount {
    /// The VO; it is mounted at `/xtreemfs/<vo>`.
    pub vo: VoId,
    /// The volume's name at its DIR.
    pub volume: String,
    /// The site whose core runs DIR and MRC.
    pub home: SiteId,
    /// Whether this site gives the VO storage: then the node keeps objects of the volume.
    pub store: bool,
}

/// The core tells a node which volumes it mounts and serves objects of; replaces what the node
/// knew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetVolumes {
    /// Every volume.
    pub volumes: Vec<VolumeMount>,
}
request!(SetVolumes => Done, Post "/v1/node/volumes");

/// The core tells a node which VOs are erased: their own logs say so, signed by their homes. The
/// node's object server deletes all that it keeps for them. The reply says that nobody reaches it
/// any more; told again, it does nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EraseVolumes {
    /// At most [`ERASED_VOS_MAX`].
    pub vos: Vec<VoId>,
}
request!(EraseVolumes => Done, Post "/v1/node/volumes/erase");

/// Most VOs in one [`EraseVolumes`].
pub const ERASED_VOS_MAX: usize = 1000;
