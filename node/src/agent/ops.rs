//! What the core may ask of the node.

use super::{Agent, keep, units};
use std::sync::Arc;
use xos_api::node::{DialBack, SetSites, SetTicket, SetVolumes};
use xos_api::vom::VoAccounts;
use xos_api::{Done, Request};
use xos_base::Error;
use xos_net::{Caller, Router};

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
            for site in &r.sites {
                agent.trust.add(site.clone())?;
            }
            for known in agent.trust.descriptors() {
                if known.site != agent.node.site() && !r.sites.iter().any(|s| s.site == known.site)
                {
                    agent.trust.remove(&known.site);
                }
            }
            keep::write(&agent.folder.join("sites.json"), &r.sites)?;
            Ok(Done {})
        });
        on(router, &agent, |agent: Arc<Agent>, r: VoAccounts| async move {
            agent.take_accounts(r).await?;
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
        agent.register_units(router, stream);
    }
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
