//! What trees wrote whose output is collected here.

use super::Clustered;
use crate::agent::Agent;
use crate::agent::units::in_background;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::ErrorKind;
use xos_api::Done;
use xos_api::aem::{OUTPUT_PART_MAX, OutputPart, OutputStream};
use xos_base::{ClusterId, Error};
use xos_ssi::ghost::spool::Spools;
use xos_ssi::seat::SPOOLS_FOLDER;
use xos_ssi::wire::{ClusterForget, ClusterOutput, FORGET_MAX};

impl Agent {
    fn spools(&self, clustered: &Clustered, cluster: &ClusterId) -> Result<Spools, Error> {
        let seated = clustered.at(cluster)?;
        Ok(Spools::new(clustered.folder(&seated.seat).join(SPOOLS_FOLDER)))
    }

    pub(super) async fn tree_output(&self, r: ClusterOutput) -> Result<OutputPart, Error> {
        let spools = self.spools(self.clustered()?, &r.cluster)?;
        let (error, limit) = (r.stream == OutputStream::Stderr, r.limit.min(OUTPUT_PART_MAX));
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let read = in_background(move || spools.read(r.tree.0, error, r.from, limit)).await?;
        let piece = read.map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::not_found(e.to_string()),
            _ => Error::unavailable(format!("the output of tree {} is not read: {e}", r.tree)),
        })?;
        Ok(OutputPart::new(STANDARD.encode(&piece.bytes), piece.end))
    }

    pub(super) async fn forget_trees(&self, r: ClusterForget) -> Result<Done, Error> {
        if r.trees.len() > FORGET_MAX {
            return Err(Error::too_large(format!("at most {FORGET_MAX} trees at a time")));
        }
        let spools = self.spools(self.clustered()?, &r.cluster)?;
        let gone = in_background(move || r.trees.iter().try_for_each(|t| spools.forget(t.0)));
        gone.await?.map_err(|e| Error::unavailable(format!("output is not removed: {e}")))?;
        Ok(Done {})
    }
}
