//! What the core may ask of the node.

use super::{Agent, VoWatcher, keep, units};
use std::sync::Arc;
use xos_api::node::sessions::{ListSessions, WhyNode};
use xos_api::node::{AccountsTold, DialBack, EraseVolumes, SetSites, SetTicket, SetVolumes};
use xos_api::site::SiteDescriptor;
use xos_api::vom::VoAccounts;
use xos_api::{Done, Request};
use xos_base::{Error, SiteId, VoId};
use xos_net::{Caller, Router, Trust};

impl Agent {
    /// Registers the operations for one control stream, for the own core only.
    pub(super) fn register(self: Arc<Agent>, router: &mut Router, stream: units::Stream) {
        let agent = self;
        on(router, &agent, |agent: Arc<Agent>, r: DialBack| async move {
            tokio::spawn(async move {
                if let Err(e) = agent.link.accept(r.token).await {
                    tracing::info!(error = %e, "a stream to this node was not served");
                }
            });
            Ok(Done {})
        });
        on(router, &agent, |agent: Arc<Agent>, r: SetSites| async move {
            let own = agent.node.site();
            let taken = take_sites(&agent.trust, &own, r.sites);
            let mut sites = agent.trust.descriptors();
            sites.sort_by_key(|s| s.site != own);
            keep::write(&agent.folder.join("sites.json"), &sites)?;
            taken.map(|()| Done {})
        });
        on(router, &agent, |agent: Arc<Agent>, r: VoAccounts| async move {
            agent.take_accounts(r).await?;
            Ok(Done {})
        });
        on(router, &agent, |agent: Arc<Agent>, _: AccountsTold| async move {
            agent.told_all().await;
            Ok(Done {})
        });
        on(router, &agent, |agent: Arc<Agent>, r: SetTicket| async move {
            agent.take_ticket(&r.ticket)?;
            Ok(Done {})
        });
        on(router, &agent, |agent: Arc<Agent>, r: SetVolumes| async move {
            agent.volumes.set(r.volumes.clone())?;
            agent.watcher.volumes_changed(&r.volumes);
            Ok(Done {})
        });
        on(router, &agent, |agent: Arc<Agent>, r: EraseVolumes| async move {
            let kept = |vo: &VoId| agent.volumes.wanted().iter().any(|kept| kept.vo == *vo);
            erase(&r.vos, kept, agent.watcher.as_ref()).await
        });
        on(router, &agent, |agent: Arc<Agent>, r: WhyNode| async move { agent.why(&r) });
        on(router, &agent, |agent: Arc<Agent>, r: ListSessions| async move {
            Ok(agent.list_sessions(&r))
        });
        agent.clone().register_units(router, stream);
        agent.register_cluster(router);
    }
}

/// Trusts `sites`, and no other but the own one. Those that are forgotten go first, and what is
/// wrong with one keeps only that one from being taken; the first such error is told at the end.
fn take_sites(trust: &Trust, own: &SiteId, sites: Vec<SiteDescriptor>) -> Result<(), Error> {
    for known in trust.descriptors() {
        if known.site != *own && !sites.iter().any(|s| s.site == known.site) {
            trust.remove(&known.site);
        }
    }
    let mut taken = Ok(());
    for site in sites {
        let id = site.site.clone();
        if let Err(error) = trust.add(site) {
            tracing::error!(site = %id, %error, "what the core says of a site cannot be taken");
            taken = taken.and(Err(error));
        }
    }
    taken
}

/// Erases what is kept for `vos`. One that cannot go yet, as its volume is `kept` here, keeps no
/// other from going: the core asks again for all. The last error is told.
async fn erase(
    vos: &[VoId],
    kept: impl Fn(&VoId) -> bool,
    watcher: &dyn VoWatcher,
) -> Result<Done, Error> {
    let mut last = Ok(Done {});
    for vo in vos {
        let erased = if kept(vo) {
            Err(Error::conflict(format!("{vo} still has its volume here")))
        } else {
            watcher.vo_erased(vo).await
        };
        if let Err(error) = erased {
            last = Err(error);
        }
    }
    last
}

/// Registers `R` for the own core.
pub(super) fn on<R, F, Fut>(router: &mut Router, agent: &Arc<Agent>, f: F)
where
    R: Request,
    F: Fn(Arc<Agent>, R) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R::Reply, Error>> + Send + 'static,
{
    let agent = agent.clone();
    let f = Arc::new(f);
    router.on::<R, _, _>(move |caller: Caller, r| {
        let (agent, f) = (agent.clone(), f.clone());
        async move {
            let site = caller.core()?;
            if *site != agent.node.site() {
                return Err(Error::denied(format!("only the core of {} may", agent.node.site())));
            }
            f(agent, r).await
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Erasing, Members};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
    use std::sync::Mutex;
    use xos_api::node::VolumeMount;
    use xos_base::Millis;
    use xos_net::key::{KeyKind, LocalKey};
    use xos_net::sign::{Signer, vouch};

    fn site(name: &str) -> SiteDescriptor {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap();
        let (signer, site) = (Signer::generate().unwrap(), name.parse().unwrap());
        let keys = vouch(
            &LocalKey::from_pkcs8(KeyKind::P256, &key.serialize_der()).unwrap(),
            &xos_api::site::SiteKeys::signing(&site, vec![signer.public()], Millis(1)),
        )
        .unwrap();
        let root = STANDARD.encode(root.der());
        SiteDescriptor { site, addresses: vec![], root, keys, withdrawn: None }
    }

    #[test]
    fn a_forgotten_site_goes_whatever_is_wrong_with_another() {
        // wrong: a site that is trusted no more would stay so on a node as long as another one's
        // descriptor is bad, and those after the bad one would not be known
        let trust = Trust::new();
        let (rennes, pisa, lyon) = (site("rennes"), site("pisa"), site("lyon"));
        for known in [&rennes, &pisa] {
            trust.add(known.clone()).unwrap();
        }
        let bad = SiteDescriptor { root: "no certificate".into(), ..site("bad") };
        let own = rennes.site.clone();
        let e = take_sites(&trust, &own, vec![bad, lyon]).unwrap_err();
        assert_eq!(e.kind, xos_base::Kind::Invalid);
        let known: Vec<_> = trust.descriptors().into_iter().map(|s| s.site).collect();
        assert_eq!(known, ["lyon", "rennes"].map(|s| s.parse().unwrap()));
    }

    /// Writes down which VOs are erased; the object server cannot erase `broken.rennes`.
    #[derive(Default)]
    struct Heard(Mutex<Vec<VoId>>);

    impl VoWatcher for Heard {
        fn may_act(&self, _: &VoId, _: Members) {}
        fn volumes_kept(&self, _: &[VolumeMount]) {}
        fn volumes_changed(&self, _: &[VolumeMount]) {}
        fn vo_erased<'a>(&'a self, vo: &'a VoId) -> Erasing<'a> {
            Box::pin(async move {
                if vo.as_str() == "broken.rennes" {
                    return Err(Error::internal("the disk is broken"));
                }
                self.0.lock().unwrap().push(vo.clone());
                Ok(())
            })
        }
    }

    #[tokio::test]
    async fn a_vo_that_cannot_be_erased_yet_keeps_no_other() {
        // wrong: what members of erased VOs left would lie on a node for as long as one volume is
        // still mounted there, or the core would believe that it is gone
        let vos = ["kept.rennes", "gone.pisa", "broken.rennes", "late.rennes"];
        let vos = vos.map(|vo| vo.parse::<VoId>().unwrap());
        let heard = Heard::default();
        let e = erase(&vos[..2], |vo| *vo == vos[0], &heard).await.unwrap_err();
        assert_eq!(e.kind, xos_base::Kind::Conflict, "{e}");
        let e = erase(&vos, |vo| *vo == vos[0], &heard).await.unwrap_err();
        assert_eq!(e.kind, xos_base::Kind::Internal, "{e}");
        erase(&vos[..1], |_| false, &heard).await.unwrap();
        let heard = heard.0.lock().unwrap();
        let order = [&vos[1], &vos[1], &vos[3], &vos[0]];
        assert_eq!(heard.iter().collect::<Vec<_>>(), order);
    }
}
