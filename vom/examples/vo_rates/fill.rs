//! A VO of very many members, without a request for each: they are put into the VO's checkpoint,
//! which takes the place of the log up to its number. The registry of each site that serves the VO
//! is filled alike.

use crate::Outcome;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use xos_api::vom::MemberState;
use xos_base::{Epoch, MemberNumber, PersonId, SiteId, VoId};
use xos_store::RedbStore;
use xos_vom::registry::Registry;
use xos_vom::state::Member;

/// The member of this number, from 0, of those that are put in.
pub fn person(n: usize, site: &SiteId) -> Outcome<PersonId> {
    Ok(site.person(&format!("m{n:07}"))?)
}

/// Puts members into the VO until it has `count`. Nobody else has the registry open.
pub async fn fill(registry: &Registry, vo: &VoId, count: usize) -> Outcome<()> {
    let (mut state, chain, former) = registry.load(vo).await?;
    let site = vo.site();
    for n in 0..count {
        if state.members.len() >= count {
            break;
        }
        let person = person(n, &site)?;
        let member = Member {
            number: MemberNumber(state.next_member),
            epoch: Epoch(1),
            mandates: Epoch(1),
            suspended: None,
            groups: BTreeSet::new(),
            roles: BTreeSet::new(),
            since: state.time,
            expires: None,
            state: MemberState::Active,
            changed: state.number,
        };
        state.next_member += 1;
        state.names.entry(person.name().to_owned()).or_insert_with(|| person.clone());
        state.members.insert(person, member);
    }
    let bytes = serde_json::to_vec(&state)?;
    Ok(registry.write_checkpoint(&bytes, vo, &chain, former).await?)
}

/// The same in the registry of a core that does not run.
pub async fn file(registry: &Path, vo: &VoId, count: usize) -> Outcome<()> {
    let store = RedbStore::open(registry)?;
    fill(&Registry::new(Arc::new(store)), vo, count).await
}
