//! Who makes a request. A [`Caller`] exists only after a proof was verified.

use crate::sign::Kind;
use crate::trust::{Subject, Trust, Usage};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use der::Decode;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use x509_parser::der_parser::oid::Oid;
use x509_parser::prelude::{FromDer, X509Certificate};
use xos_api::policy::{Action, Denial, Place};
use xos_base::when::Clock;
use xos_base::{Error, Membership, Millis, NodeId, PersonId, SiteId};

/// What this site knows of a membership now: implemented by the VO service.
pub trait Standing: Send + Sync {
    /// The right that a credential's membership and the local VO snapshot give together.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] or [`xos_base::Kind::Unauthenticated`] when none is left, with
    /// what the person can do.
    fn effective(&self, membership: &Membership, now: Millis) -> Result<Membership, Error>;
}

/// What the rules of VOs and of this site say: implemented by the VO service.
pub trait Rules: Send + Sync {
    /// Whether a member may do something at a place of this site.
    ///
    /// # Errors
    /// Which side's rule does not let them.
    fn judge(&self, member: &Membership, action: Action, place: &Place) -> Result<(), Denial>;
}

/// Whom a caller was proved to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A member of a VO, with the membership in force here and now.
    Member(Membership),
    /// A person who signed in, in no VO.
    Person(PersonId),
    /// A site's core.
    Core(SiteId),
    /// A node.
    Node(NodeId),
}

/// The content of a bearer token (JWT, RFC 7519): `typ` JWT, Ed25519.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenClaims {
    /// The site that signed in the person, or for a membership the VO's home.
    pub iss: SiteId,
    /// The person.
    pub sub: PersonId,
    /// The only site whose core accepts the token.
    pub aud: SiteId,
    /// When it was issued, seconds since 1970.
    pub iat: u64,
    /// When it ends, seconds since 1970.
    pub exp: u64,
    /// Its id, for the audit and against replay.
    pub jti: String,
    /// The membership (DER, base64), when the token speaks for a member of a VO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub membership: Option<String>,
    /// The person administers the issuing site. Counts only there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub site_admin: bool,
    /// When the person signed in, seconds since 1970. Only in a person's own token: for whom it
    /// is known, further credentials may be issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<u64>,
}

/// The extension that holds when a certificate's person signed in: INTEGER, seconds since 1970.
/// Absent in a narrowed certificate, for which nothing further is issued.
pub const SIGNED_IN_OID: &[u64] = &[1, 34, 5, 0, 14, 101];

/// Longest life of a token, in seconds; an older one is refused whatever it says.
pub const TOKEN_LIFE_MAX_S: u64 = 20 * 60;
/// How far clocks may differ, in seconds.
pub const CLOCK_SKEW_S: u64 = 60;

/// The maker of a request, proved.
#[derive(Clone, Debug)]
pub struct Caller {
    principal: Principal,
    site_admin: bool,
    address: Option<IpAddr>,
    token: Option<Arc<str>>,
    key: Option<String>,
    signed_in: Option<Millis>,
    expires: Option<Millis>,
}

impl Caller {
    /// Whom the proof names.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The membership in force.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] when the caller is not a member of a VO.
    pub fn member(&self) -> Result<&Membership, Error> {
        match &self.principal {
            Principal::Member(m) => Ok(m),
            _ => Err(Error::denied(format!("{} does not act in a VO here", self.describe()))
                .hint("sign in to a VO: `xos login --vo <vo>`")),
        }
    }

    /// The person, in a VO or not.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] when the caller is a machine.
    pub fn person(&self) -> Result<PersonId, Error> {
        match &self.principal {
            Principal::Member(m) => Ok(m.person.clone()),
            Principal::Person(p) => Ok(p.clone()),
            _ => Err(Error::denied(format!("{} is not a person", self.describe()))),
        }
    }

    /// The site whose core this is.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] when the caller is no core.
    pub fn core(&self) -> Result<&SiteId, Error> {
        match &self.principal {
            Principal::Core(site) => Ok(site),
            _ => Err(Error::denied(format!("{} is not a site's core", self.describe()))),
        }
    }

    /// The node.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] when the caller is no node.
    pub fn node(&self) -> Result<&NodeId, Error> {
        match &self.principal {
            Principal::Node(node) => Ok(node),
            _ => Err(Error::denied(format!("{} is not a node", self.describe()))),
        }
    }

    /// Whether the caller administers this site.
    pub fn site_admin(&self) -> bool {
        self.site_admin
    }

    /// Where the request came from, when it came over the network.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The bearer token that the caller came with.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Fingerprint of the key that the caller proved to hold
    /// ([`crate::identity::key_fingerprint`]).
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// When the person signed in, if the proof says so: only for such a caller are further
    /// credentials issued.
    pub fn signed_in(&self) -> Option<Millis> {
        self.signed_in
    }

    /// When the proof ends: the bearer token, or the certificate. Absent for the own core.
    pub fn expires(&self) -> Option<Millis> {
        self.expires
    }

    /// The caller in one phrase, for logs and messages.
    pub fn describe(&self) -> String {
        match &self.principal {
            Principal::Member(m) => format!("{} of {}", m.person, m.vo),
            Principal::Person(p) => p.to_string(),
            Principal::Core(site) => format!("the core of {site}"),
            Principal::Node(node) => format!("node {node}"),
        }
    }

    /// The own core, calling itself in process, or as a node sees it on the control stream that
    /// it opened and verified.
    pub(crate) fn own_core(site: SiteId) -> Caller {
        Caller::plain(Principal::Core(site))
    }

    /// A machine that opened a stream to this one, with the fingerprint of the key that it
    /// proved to hold.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] for a person: they come by ssh, which proves them itself.
    pub(crate) fn machine(subject: Subject, key: String) -> Result<Caller, Error> {
        let principal = match subject {
            Subject::Core(site) => Principal::Core(site),
            Subject::Node(node) => Principal::Node(node),
            Subject::Member(_) => {
                return Err(Error::denied("a person's certificate opens no stream to a node"));
            }
        };
        Ok(Caller { key: Some(key), ..Caller::plain(principal) })
    }

    /// A person who opened a stream to this node's sshd. The membership is the credential's; what
    /// the node's accounts say of it is for the handler to apply.
    pub(crate) fn credential(membership: Membership, key: String) -> Caller {
        Caller { key: Some(key), ..Caller::plain(Principal::Member(membership)) }
    }

    fn plain(principal: Principal) -> Caller {
        Caller {
            principal,
            site_admin: false,
            address: None,
            token: None,
            key: None,
            signed_in: None,
            expires: None,
        }
    }
}

/// Where a request came from, before anybody proved anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer {
    /// The network address, when there is one.
    pub address: Option<IpAddr>,
}

/// Turns proofs into callers.
#[derive(Clone)]
pub struct Verifier {
    site: SiteId,
    trust: Trust,
    clock: Arc<dyn Clock>,
    standing: Arc<OnceLock<Arc<dyn Standing>>>,
}

impl Verifier {
    /// A verifier for the site `site`.
    pub fn new(site: SiteId, trust: Trust, clock: Arc<dyn Clock>) -> Verifier {
        Verifier { site, trust, clock, standing: Arc::new(OnceLock::new()) }
    }

    /// Sets who knows the VOs. Until then no member is accepted.
    pub fn set_standing(&self, standing: Arc<dyn Standing>) {
        if self.standing.set(standing).is_err() {
            tracing::warn!("the VO service was already set; the first one stays");
        }
    }

    /// The trusted sites.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The own site.
    pub fn site(&self) -> &SiteId {
        &self.site
    }

    /// The caller that a verified TLS connection's certificate chain names. The chain is looked
    /// at again for each request: connections outlive changes of trust.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unauthenticated`] or [`xos_base::Kind::Denied`].
    pub fn certificate(
        &self,
        chain: &[CertificateDer<'_>],
        address: Option<IpAddr>,
    ) -> Result<Caller, Error> {
        let now = self.clock.now();
        let subject = self.trust.verify_chain(chain, Usage::Client, now)?;
        let key = crate::identity::key_fingerprint(&chain[0])?;
        let mut caller = match subject {
            Subject::Member(m) => {
                let plain = Caller::plain(Principal::Member(self.effective(&m, now)?));
                Caller { key: Some(key), ..plain }
            }
            machine => Caller::machine(machine, key)?,
        };
        caller.address = address;
        caller.signed_in = signed_in(&chain[0])?;
        caller.expires = Some(crate::identity::validity(&chain[0])?.1);
        Ok(caller)
    }

    /// The caller that a bearer token names.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unauthenticated`] or [`xos_base::Kind::Denied`].
    pub fn token(&self, token: &str, address: Option<IpAddr>) -> Result<Caller, Error> {
        let now = self.clock.now();
        let refuse = |why: &str| {
            Error::unauthenticated(format!("token refused: {why}")).hint("sign in again")
        };
        let issuer = unverified_issuer(token).ok_or_else(|| refuse("it is malformed"))?;
        let claims: TokenClaims = self.trust.verify(Kind::Token, token, &issuer)?;
        if claims.iss != issuer {
            return Err(refuse("its issuer is not who signed it"));
        }
        if claims.aud != self.site {
            return Err(refuse("it was issued for another site"));
        }
        let now_s = now.secs();
        let oldest = claims.iat.saturating_add(TOKEN_LIFE_MAX_S);
        if claims.exp <= now_s || oldest < now_s {
            return Err(refuse("it has expired"));
        }
        if claims.iat > now_s.saturating_add(CLOCK_SKEW_S) {
            return Err(refuse("it is not valid yet"));
        }
        let principal = match &claims.membership {
            None if claims.sub.site() == issuer => Principal::Person(claims.sub.clone()),
            None => return Err(refuse("its issuer does not vouch for that person")),
            Some(text) => {
                let der = STANDARD.decode(text).map_err(|_| refuse("its membership"))?;
                let m = Membership::from_der(&der).map_err(|e| refuse(&e.to_string()))?;
                if m.vo.site() != issuer || m.person != claims.sub {
                    return Err(refuse("its issuer does not vouch for that VO"));
                }
                Principal::Member(self.effective(&m, now)?)
            }
        };
        Ok(Caller {
            principal,
            site_admin: claims.site_admin && issuer == self.site && claims.sub.site() == self.site,
            address,
            token: Some(token.into()),
            key: None,
            signed_in: match claims.membership {
                None => claims.auth_time.map(Millis::from_secs),
                Some(_) => None,
            },
            expires: Some(Millis::from_secs(claims.exp.min(oldest))),
        })
    }

    fn effective(&self, m: &Membership, now: Millis) -> Result<Membership, Error> {
        match self.standing.get() {
            Some(s) => s.effective(m, now),
            None => Err(Error::unavailable("this machine does not know any VO yet")
                .hint("try again in a moment")),
        }
    }
}

/// What [`SIGNED_IN_OID`] says in a certificate that was verified.
fn signed_in(leaf: &CertificateDer<'_>) -> Result<Option<Millis>, Error> {
    let refuse = || Error::unauthenticated("certificate refused: its time of sign-in is malformed");
    let (_, cert) = X509Certificate::from_der(leaf).map_err(|_| refuse())?;
    let oid = Oid::from(SIGNED_IN_OID).map_err(|_| refuse())?;
    match cert.get_extension_unique(&oid).map_err(|_| refuse())? {
        None => Ok(None),
        Some(ext) => <u64 as Decode>::from_der(ext.value)
            .map(|secs| Some(Millis::from_secs(secs)))
            .map_err(|_| refuse()),
    }
}

/// The `iss` of a token nobody verified, only to choose the key.
fn unverified_issuer(token: &str) -> Option<SiteId> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: SiteId,
    }
    if token.len() > crate::sign::JWS_MAX {
        return None;
    }
    let payload = token.split('.').nth(1)?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice::<Issuer>(&bytes).ok().map(|i| i.iss)
}
