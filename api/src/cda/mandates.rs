//! How a site proves that a person asked it to work for them, and what a node gets for it.

use crate::request;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xos_base::{ClusterId, JobId, Membership, Millis, NodeId, PersonId, SiteId, VoId};

/// A person's word that a job is theirs: signed with their certificate's key (compact JWS, `typ`
/// `xos-submission+jws`, certificate chain in `x5c`); see `xos_net::submission`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// The VO that the person acts in; the one of the certificate.
    pub vo: VoId,
    /// The site that is to own the job.
    pub owner: SiteId,
    /// The digest of the job's description as sent to the owner ([`crate::aem::Outline`]), 64
    /// hexadecimal digits.
    pub digest: String,
    /// 16 random bytes, 32 hexadecimal digits: one submission stands for one job.
    pub nonce: String,
    /// When it was signed. Good for [`super::SUBMISSION_AGE_MAX_S`].
    pub issued: Millis,
}

/// What shows that the person wants the job.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MandateProof {
    /// A signed [`Submission`].
    Submission(String),
    /// The member's bearer token, issued by the VO's home with the owner as audience.
    Token(String),
}

impl std::fmt::Debug for MandateProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            MandateProof::Submission(_) => "Submission(..)",
            MandateProof::Token(_) => "Token(..)",
        })
    }
}

/// The owner of a job asks the VO's home to countersign it. For cores; the same request again
/// gives a mandate again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssueMandate {
    /// The job; its site is the caller's.
    pub job: JobId,
    /// The VO; its home is the called site.
    pub vo: VoId,
    /// The digest of the job's description; that of the submission, when one is the proof. With a
    /// token, what the owner says: it is bound from then on.
    pub digest: String,
    /// The person's word.
    pub proof: MandateProof,
}
request!(IssueMandate => String, Post "/v1/mandates");

/// A member asks their VO's home for the mandate of a login: one node may act for them while they
/// are signed in there. The proof is the member's certificate itself, not a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssueLoginMandate {
    /// The VO; its home is the called site.
    pub vo: VoId,
    /// The node that they sign in to.
    pub node: NodeId,
}
request!(IssueLoginMandate => String, Post "/v1/mandates/login");

/// A member asks their VO's home for the mandate of what they run in a cluster: its nodes may act
/// for them while it runs there. The proof is the member's certificate itself, not a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssueClusterMandate {
    /// The VO; its home is the called site.
    pub vo: VoId,
    /// The cluster.
    pub cluster: ClusterId,
}
request!(IssueClusterMandate => String, Post "/v1/mandates/cluster");

/// A person's site asks a VO's home for the mandate of a login that the person allowed there. For
/// cores, about their own people: by their word those sign in to the VO anyway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssueVouchedMandate {
    /// The VO; its home is the called site.
    pub vo: VoId,
    /// The node that the person signs in to.
    pub node: NodeId,
    /// The person, of the caller's site.
    pub person: PersonId,
    /// When they signed in there. The VO lets them act for so long after that, however often they
    /// allow a login.
    pub signed_in: Millis,
}
request!(IssueVouchedMandate => String, Post "/v1/mandates/vouched");

/// What a mandate is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Work {
    /// A job.
    Job {
        /// The job.
        job: JobId,
        /// The site that owns it.
        owner: SiteId,
        /// The digest of its description: sites run nothing else under this mandate.
        digest: String,
    },
    /// Logins of the person to one node, and to no other.
    Login {
        /// The node.
        node: NodeId,
    },
    /// Programs of the person in one cluster: nodes of its site.
    Cluster {
        /// The cluster.
        cluster: ClusterId,
    },
}

/// The content of a mandate (JWS signed by the VO's home): this member wants this work to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mandate {
    /// What it is for.
    pub work: Work,
    /// The membership in force when it was issued, narrowed as the proof was. Tickets give these
    /// groups and roles: for a job as long as the member has all of them, for a login as far as the
    /// member still has them.
    pub membership: Membership,
    /// When it was issued.
    pub issued: Millis,
    /// Until when tickets are given for it.
    pub until: Millis,
}

/// A site asks the VO's home for its node's right to act for a person. For cores; and for a node,
/// which asks its own core under the mandate of a login to it, for its own key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssueTicket {
    /// The mandate, as [`IssueMandate`] gave it.
    pub mandate: String,
    /// The node; its site is the caller's.
    pub node: NodeId,
    /// Fingerprint of the node's key, 64 hexadecimal digits.
    pub node_key: String,
}
request!(IssueTicket => IssuedTicket, Post "/v1/tickets");

/// A ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuedTicket {
    /// The ticket, for the node.
    pub ticket: String,
    /// When it lapses; to be renewed by the same request at two thirds of its life.
    pub expires: Millis,
}

/// The content of a ticket (JWS signed by the VO's home); see `xos_net::ticket`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TicketClaims {
    /// The membership that the node may act for: DER in base64.
    pub membership: String,
    /// The node.
    pub node: NodeId,
    /// Fingerprint of the node's key: only the holder of that key may use the ticket.
    pub key: String,
    /// The job it was given for; absent: for logins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// When it was issued.
    pub issued: Millis,
    /// When it lapses, at most [`super::TICKET_LIFE_MAX_S`] later.
    pub expires: Millis,
}
