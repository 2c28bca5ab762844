//! What DIR and MRC are told by XOS: who a ticket speaks for, which epochs count, who stores.

use crate::daemon::mount::core_address;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use xos_api::cda::TicketClaims;
use xos_base::when::Clock;
use xos_base::{Error, Membership, Millis, NodeId, SiteId, VoId};
use xos_net::ticket::verify_ticket_of;
use xos_net::{Standing, Trust};
use xos_vom::Vom;
use xtreemfs_proto::dir::{Osd, Volume};
use xtreemfs_server::dir::DirPolicy;
use xtreemfs_server::mrc::VolumePolicy;
use xtreemfs_server::{AuthError, Authenticator, Epochs, Identity, Peer};

/// Most memberships of one VO that are remembered for the check of epochs: as many as a site has
/// ids for.
const REMEMBERED_PER_VO_MAX: usize = 65_536;

/// See the module's text.
pub(super) struct Knowledge {
    pub(super) site: SiteId,
    pub(super) trust: Trust,
    pub(super) vom: Vom,
    pub(super) clock: Arc<dyn Clock>,
    /// Memberships whose tickets were shown.
    pub(super) shown: Mutex<Shown>,
    /// The sites that give storage to the VOs at home here, and how many bytes.
    pub(super) stores: RwLock<HashMap<VoId, HashMap<SiteId, u64>>>,
    /// The sites that serve the VOs at home here.
    pub(super) serving: RwLock<HashMap<VoId, HashSet<SiteId>>>,
}

/// Memberships by VO and number. Each VO has room of its own, so that none pushes out another's.
#[derive(Default)]
pub(super) struct Shown(HashMap<String, HashMap<u32, Membership>>);

impl Shown {
    fn insert(&mut self, m: Membership) {
        let of_vo = self.0.entry(m.vo.to_string()).or_default();
        if of_vo.len() >= REMEMBERED_PER_VO_MAX && !of_vo.contains_key(&m.number.0) {
            // Whoever still works shows a ticket again.
            of_vo.clear();
        }
        of_vo.insert(m.number.0, m);
    }

    fn find(&self, vo: &str, member: u32) -> Option<Membership> {
        self.0.get(vo)?.get(&member).cloned()
    }
}

impl Knowledge {
    /// How many bytes each site gives `vo`.
    pub(super) fn given(&self, vo: &str) -> HashMap<SiteId, u64> {
        let Ok(vo) = vo.parse::<VoId>() else { return HashMap::new() };
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        stores.get(&vo).cloned().unwrap_or_default()
    }

    /// A membership whose ticket was shown.
    pub(super) fn member(&self, vo: &str, member: u32) -> Option<Membership> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.find(vo, member)
    }

    pub(super) fn serves(&self, vo: &VoId, site: &SiteId) -> bool {
        let serving = self.serving.read().unwrap_or_else(PoisonError::into_inner);
        serving.get(vo).is_some_and(|sites| sites.contains(site))
    }
}

fn refused(e: Error) -> AuthError {
    AuthError::Refused(e.to_string())
}

/// What a ticket says that `peer` shows: by TLS it proved its name and its key, and the ticket
/// must be for both, since a site could make more keys for one name.
fn shown_by(
    trust: &Trust,
    ticket: &[u8],
    peer: &Peer,
    now: Millis,
) -> Result<(Membership, TicketClaims), Error> {
    let jws = std::str::from_utf8(ticket).map_err(|_| Error::invalid("it is no text"))?;
    let node: NodeId = peer.id.parse().map_err(|_| Error::denied("its bearer is no node"))?;
    verify_ticket_of(trust, jws, (&node, &peer.key), now)
}

#[async_trait::async_trait]
impl Authenticator for Knowledge {
    async fn authenticate(&self, ticket: &[u8], peer: &Peer) -> Result<Identity, AuthError> {
        let now = self.clock.now();
        let (claimed, ticket) = shown_by(&self.trust, ticket, peer, now).map_err(refused)?;
        // The volumes here are those of VOs at home here; of others nothing is to be remembered.
        if claimed.vo.site() != self.site {
            let text = format!("{} is at home at {}", claimed.vo, claimed.vo.site());
            return Err(AuthError::Refused(text));
        }
        let m = self.vom.effective(&claimed, now).map_err(refused)?;
        let identity = Identity {
            vo: m.vo.as_str().into(),
            member: m.number.0,
            groups: m.groups.iter().map(|g| g.number.0).collect(),
            // Administering a VO gives no right to its members' files.
            admin: false,
            epoch: m.epoch.0,
            expires_ms: ticket.expires.0,
        };
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).insert(m);
        Ok(identity)
    }
}

impl Epochs for Knowledge {
    fn least_valid(&self, vo: &str, member: u32) -> Option<u64> {
        let m = self.member(vo, member)?;
        self.vom.effective(&m, self.clock.now()).ok().map(|m| m.epoch.0)
    }
}

impl VolumePolicy for Knowledge {
    fn may_manage(&self, _: &Peer, _: &str) -> bool {
        // Volumes are made with their VO, in process.
        false
    }
}

impl DirPolicy for Knowledge {
    fn may_register_volume(&self, peer: &Peer, volume: &Volume) -> bool {
        let own = core_address(&self.site);
        peer.id == own && volume.mrc_address == own
    }

    fn may_register_osd(&self, peer: &Peer, osd: &Osd) -> bool {
        let Ok(node) = peer.id.parse::<NodeId>() else { return false };
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        let gives = |vo: &String| {
            let vo = vo.parse::<VoId>().ok();
            vo.and_then(|vo| stores.get(&vo)).is_some_and(|sites| sites.contains_key(&node.site()))
        };
        osd.id == peer.id && osd.address == peer.id && osd.vos.iter().all(gives)
    }

    fn site_of(&self, peer: &Peer) -> String {
        let node = peer.id.parse::<NodeId>();
        node.map_or_else(|_| peer.id.clone(), |node| node.site().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
    use xos_api::site::SiteDescriptor;
    use xos_base::membership::Group;
    use xos_base::{Epoch, GroupNumber, MemberNumber};
    use xos_net::key::{KeyKind, LocalKey};
    use xos_net::sign::{Kind, Signer, vouch};
    use xtreemfs_server::Role;

    /// Rennes as others know it, with its signing key.
    fn rennes() -> (Trust, Signer) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap();
        let (signer, site) = (Signer::generate().unwrap(), "rennes".parse().unwrap());
        let keys = vec![signer.public()];
        let root_key = LocalKey::from_pkcs8(KeyKind::P256, &key.serialize_der()).unwrap();
        let keys =
            vouch(&root_key, &xos_api::site::SiteKeys::signing(&site, keys, Millis(1))).unwrap();
        let root = STANDARD.encode(root.der());
        let trust = Trust::new();
        let descriptor = SiteDescriptor { site, addresses: vec![], root, keys, withdrawn: None };
        trust.add(descriptor).unwrap();
        (trust, signer)
    }

    fn membership(vo: &str, number: u32) -> Membership {
        Membership {
            vo: vo.parse().unwrap(),
            person: "alice@rennes".parse().unwrap(),
            number: MemberNumber(number),
            epoch: Epoch(1),
            groups: vec![Group { name: "members".parse().unwrap(), number: GroupNumber(1) }],
            roles: vec![],
            expires: None,
        }
    }

    /// Else a VO with many members makes everybody of all others prove anew who they are, all the
    /// time.
    #[test]
    fn a_vo_pushes_out_its_own_memberships_only() {
        let mut shown = Shown::default();
        shown.insert(membership("demo.rennes", 7));
        let many = membership("many.rennes", 0);
        for number in 0..=REMEMBERED_PER_VO_MAX as u32 {
            shown.insert(Membership { number: MemberNumber(number), ..many.clone() });
        }
        assert!(shown.find("demo.rennes", 7).is_some());
        assert!(shown.find("many.rennes", REMEMBERED_PER_VO_MAX as u32).is_some());
        assert!(shown.0["many.rennes"].len() <= REMEMBERED_PER_VO_MAX);
    }

    #[test]
    fn a_ticket_serves_the_node_and_the_key_that_it_was_given_to() {
        // Else a second key for a node's name, once made or stolen, would serve for its tickets.
        let (trust, signer) = rennes();
        let m = membership("demo.rennes", 7);
        let ticket = serde_json::json!({
            "membership": STANDARD.encode(m.to_der().unwrap()),
            "node": "n1.pisa",
            "key": "a1".repeat(32),
            "job": "1.rennes",
            "issued": Millis(1000),
            "expires": Millis(60_000),
        });
        let ticket = signer.sign(Kind::Ticket, &ticket).unwrap();
        let by = |id: &str, key: &str| {
            let peer = Peer { id: id.into(), key: key.into(), role: Role::Client };
            shown_by(&trust, ticket.as_bytes(), &peer, Millis(2000)).map(|(m, _)| m)
        };
        assert_eq!(by("n1.pisa", &"a1".repeat(32)).unwrap(), m);
        for (id, key) in [
            ("n1.pisa", "b2".repeat(32)),
            ("n1.pisa", String::new()),
            ("n2.pisa", "a1".repeat(32)),
            ("rennes", "a1".repeat(32)),
        ] {
            assert!(by(id, &key).is_err(), "{id} with {key:?}");
        }
    }
}
