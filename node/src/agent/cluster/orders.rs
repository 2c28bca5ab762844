//! Between the core and the agent.

use crate::agent::Agent;
use crate::agent::ops::on;
use std::sync::Arc;
use xos_api::Done;
use xos_base::Error;
use xos_net::Router;
use xos_ssi::cell::proto::Tree;
use xos_ssi::wire::{
    ClusterForget, ClusterHeard, ClusterOutput, ClusterSay, ClusterSignal, ClusterTell, ClusterWhy,
    Obstacles,
};

fn gone(e: &std::io::Error) -> Error {
    Error::unavailable(format!("the cluster's agent on this node is gone: {e}"))
        .hint("it is started again; try again in a moment")
}

impl Agent {
    /// Registers what the core asks of a node in a cluster.
    pub(in crate::agent) fn register_cluster(self: Arc<Agent>, router: &mut Router) {
        on(router, &self, |agent: Arc<Agent>, r: ClusterTell| async move {
            let seated = agent.clustered()?.at(&r.cluster)?;
            let heard = agent.hear_cluster(&seated, None, r.messages, r.programs);
            heard.map(|()| Done {}).map_err(|e| gone(&e))
        });
        on(router, &self, |agent: Arc<Agent>, r: ClusterSignal| async move {
            let seated = agent.clustered()?.at(&r.cluster)?;
            let tree = Tree { id: r.tree.0, epoch: r.epoch };
            let sent = seated.client.signal(tree, r.pid, r.signal.into()).await;
            sent.map(|()| Done {}).map_err(Error::conflict)
        });
        on(router, &self, |agent: Arc<Agent>, r: ClusterWhy| async move {
            let seated = agent.clustered()?.at(&r.cluster)?;
            let tree = Tree { id: r.tree.0, epoch: r.epoch };
            let obstacles = seated.client.why(tree).await.map_err(Error::conflict)?;
            Ok(Obstacles { obstacles })
        });
        on(router, &self, |agent: Arc<Agent>, r: ClusterOutput| async move {
            agent.tree_output(r).await
        });
        on(router, &self, |agent: Arc<Agent>, r: ClusterForget| async move {
            agent.forget_trees(r).await
        });
    }

    pub(super) fn clustered(&self) -> Result<&super::Clustered, Error> {
        self.cluster.as_ref().ok_or_else(|| {
            Error::unsupported("this node works in no cluster")
                .hint("its xosd.toml needs a section [node.cluster]")
        })
    }

    /// Tells the core what the agent says, and the agent what it hears.
    pub(super) async fn pass_on(self: &Arc<Agent>, id: u64, say: ClusterSay) {
        let said = self.say(say).await;
        let Some(seated) = self.cluster.as_ref().and_then(|c| c.seated().clone()) else { return };
        let passed = match said {
            Ok(ClusterHeard { seat: Some(seat), messages, programs, now: _ }) => {
                let stays = super::same(&seat, &seated.seat);
                let places = (seat.places != seated.seat.places).then(|| seat.places.clone());
                self.note_seat(seat);
                if !stays {
                    return;
                }
                let told = places.map_or(Ok(()), |places| seated.client.places(places));
                told.and_then(|()| self.hear_cluster(&seated, Some(id), messages, programs))
            }
            Ok(ClusterHeard { seat: None, .. }) => {
                tracing::info!("this node was taken out of {}", seated.seat.cluster);
                seated.client.end()
            }
            Err(error) => {
                tracing::debug!(%error, "the core does not hear of the cluster");
                seated.client.unheard(id)
            }
        };
        if let Err(error) = passed {
            tracing::warn!(%error, "the cluster's agent does not hear the core");
        }
    }

    /// Other nodes came or went, or the place is another one.
    fn note_seat(&self, seat: xos_ssi::wire::Seat) {
        let Some(clustered) = &self.cluster else { return };
        if let Some(seated) = clustered.seated().as_mut() {
            seated.seat = seat;
        }
    }
}
