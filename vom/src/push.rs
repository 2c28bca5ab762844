//! Tells every connected node which accounts there are: all when it connects, then what changes.

use crate::Inner;
use crate::replica::backoff;
use crate::rules::Court;
use crate::rules::logins::Logins;
use crate::served::Served;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use xos_api::vom::{AccountState, GRACE_S_DEFAULT, LEASE_S_DEFAULT, VoAccounts};
use xos_base::{Error, NodeId, VoId};
use xos_net::for_each_node;

/// How often it is looked whether time alone has changed what a node must know: a share's end, a
/// lapsed lease.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// What a node has been told of one VO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    number: u64,
    state: AccountState,
    /// Which turn of the VO's names.
    names: u64,
    /// By which rules members sign in; none in a VO that is no more.
    rules: Option<Court>,
}

/// Serves nodes as they come and go. A node that connects anew may have lost what it knew.
pub(crate) async fn run(inner: Arc<Inner>) {
    let nodes = inner.nodes.clone();
    let tell = |node| tell(inner.clone(), node);
    for_each_node("accounts", nodes.changes(), || nodes.connected(), tell).await;
}

/// Keeps one node informed; ended from outside when the node goes.
async fn tell(inner: Arc<Inner>, node: NodeId) {
    let mut told: HashMap<VoId, Told> = HashMap::new();
    let mut grown = inner.grown.subscribe();
    let mut shares = inner.shares.changed();
    let mut names = inner.names.changed();
    let mut trusted = inner.trust.changes();
    let mut rules = inner.rules.own.changed();
    let mut attempt = 0;
    loop {
        grown.mark_unchanged();
        rules.mark_unchanged();
        shares.mark_unchanged();
        names.mark_unchanged();
        trusted.mark_unchanged();
        let wait = match bring_up(&inner, &node, &mut told).await {
            Ok(()) => {
                attempt = 0;
                LOOK_EVERY
            }
            Err(error) => {
                let pause = backoff(attempt, told.len() as u64);
                tracing::warn!(%node, %error, ?pause, "accounts not taken by a node");
                attempt = attempt.saturating_add(1);
                pause
            }
        };
        // The pause keeps off a node that cannot keep what it knows already: what is new, which may
        // be a suspension, does not wait for its end.
        tokio::select! {
            _ = grown.changed() => {}
            _ = shares.changed() => {}
            _ = names.changed() => {}
            _ = trusted.changed() => {}
            _ = rules.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn bring_up(
    inner: &Inner,
    node: &NodeId,
    told: &mut HashMap<VoId, Told>,
) -> Result<(), Error> {
    let mut failed = None;
    for served in inner.shares.all() {
        let vo = served.vo;
        let Some((parts, now)) = parts(inner, node, &vo, told.get(&vo)) else { continue };
        // If a part fails, the node has half a list: begin again with all.
        told.remove(&vo);
        match send(inner, node, parts).await {
            Ok(()) => {
                told.insert(vo, now);
            }
            // What one VO's accounts meet must not hold up those of the others.
            Err(e) => failed = Some(e),
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn send(inner: &Inner, node: &NodeId, parts: Vec<VoAccounts>) -> Result<(), Error> {
    for part in parts {
        inner.nodes.accounts(node, part).await?;
    }
    Ok(())
}

/// What to send about one VO, and what the node knows then; `None` when it knows it already.
pub(crate) fn parts(
    inner: &Inner,
    node: &NodeId,
    vo: &VoId,
    told: Option<&Told>,
) -> Option<(Vec<VoAccounts>, Told)> {
    let served = inner.shares.one(vo)?;
    let Some(live) = inner.vos.one(vo) else { return erased(inner, &served, told) };
    let now = inner.clock.now();
    let state = live.read();
    let home = inner.home_of(&live, &state, now);
    let account = served.account_state(&inner.site, &state, now, home);
    let names = inner.names.of(vo, told.map_or(0, |t| t.names));
    let court = inner.rules.court(&state);
    let next = Told {
        number: state.number,
        state: account,
        names: names.turn,
        rules: Some(court.clone()),
    };
    if told == Some(&next) {
        return None;
    }
    // A VO that is not served has no accounts; its processes, if any are left, end.
    if account == AccountState::Ended {
        if told.is_some_and(|t| t.state == AccountState::Ended) {
            return None;
        }
        return Some((vec![ended(&served, state.number)], next));
    }
    let told = told.filter(|t| t.state != AccountState::Ended);
    let before = told.and_then(|t| t.rules.as_ref());
    let logins = Logins::new(&inner.rules.judge, (&inner.site, node), &court, before);
    let since = told.map(|t| t.number);
    let mut parts = state.accounts(served.block(), account, since, &names, &logins);
    // One that was never set is left out: nodes of an earlier version do not know the word.
    let lease_s = Some(inner.lease_s(&state)).filter(|s| *s != LEASE_S_DEFAULT);
    let grace_s = Some(inner.grace_s(&state)).filter(|s| *s != GRACE_S_DEFAULT);
    for part in &mut parts {
        (part.lease_s, part.grace_s) = (lease_s, grace_s);
    }
    Some((parts, next))
}

/// What a node is told of a VO that has no accounts here.
fn ended(served: &Served, number: u64) -> VoAccounts {
    VoAccounts {
        vo: served.vo.clone(),
        number,
        full: true,
        more: false,
        base: served.base,
        size: served.size,
        state: AccountState::Ended,
        members: Vec::new(),
        groups: Vec::new(),
        groups_gone: Vec::new(),
        lease_s: None,
        grace_s: None,
        terms: None,
    }
}

/// The same of a VO that is no more: a node that was away when it ended may hold it still.
fn erased(inner: &Inner, served: &Served, told: Option<&Told>) -> Option<(Vec<VoAccounts>, Told)> {
    let number = inner.graves.one(&served.vo)?.number;
    if told.is_some_and(|t| t.state == AccountState::Ended) {
        return None;
    }
    let now = Told { number, state: AccountState::Ended, names: 0, rules: None };
    Some((vec![ended(served, number)], now))
}
