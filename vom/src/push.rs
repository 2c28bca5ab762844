//! Tells every connected node which accounts there are: all when it connects, then what changes.

use crate::Inner;
use crate::live::Live;
use crate::names::NamesOf;
use crate::replica::backoff;
use crate::rules::Court;
use crate::rules::logins::{Differ, Logins, differing};
use crate::served::Served;
use crate::state::Vo;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use xos_api::vom::{AccountState, GRACE_S_DEFAULT, LEASE_S_DEFAULT, VoAccounts};
use xos_base::{Error, Kind, NodeId, VoId};
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
    let mut found = inner.rules.logins.ready();
    let mut attempt = 0;
    loop {
        grown.mark_unchanged();
        rules.mark_unchanged();
        found.mark_unchanged();
        shares.mark_unchanged();
        names.mark_unchanged();
        trusted.mark_unchanged();
        let mut brought = bring_up(&inner, &node, &mut told).await;
        // What a node has taken and cannot keep, as on a full disk, it knows all the same.
        if brought.as_ref().err().is_none_or(|e| e.kind != Kind::Unavailable) {
            brought = brought.and(inner.nodes.accounts_told(&node).await);
        }
        let wait = match brought {
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
            _ = found.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn bring_up(
    inner: &Arc<Inner>,
    node: &NodeId,
    told: &mut HashMap<VoId, Told>,
) -> Result<(), Error> {
    let mut failed = None;
    for served in inner.shares.all() {
        let vo = served.vo;
        let before = told.get(&vo).cloned();
        if before.as_ref().is_some_and(|told| knows(inner, &vo, told)) {
            continue;
        }
        // Of a large VO it takes long to gather.
        let (of, to, about) = (inner.clone(), node.clone(), vo.clone());
        let gather = move || parts(&of, &to, &about, before.as_ref());
        let gathered = tokio::task::spawn_blocking(gather).await;
        let (parts, now) = match gathered {
            Ok(Some(news)) => news,
            Ok(None) => continue,
            Err(e) => {
                failed = Some(Error::internal(format!("the accounts of {vo}: {e}")));
                continue;
            }
        };
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

/// What a node would know of a VO that was told all, and what the VO's accounts are called.
fn all(
    inner: &Inner,
    served: &Served,
    (live, state): (&Live, &Vo),
    told: Option<&Told>,
) -> (Told, NamesOf) {
    let now = inner.clock.now();
    let home = inner.home_of(live, state, now);
    let names = inner.names.of(&served.vo, told.map_or(0, |t| t.names));
    let all = Told {
        number: state.news,
        state: served.account_state(&inner.site, state, now, home),
        names: names.turn,
        rules: Some(inner.rules.court(state)),
    };
    (all, names)
}

/// Whether there is nothing new about a VO that is served here.
fn knows(inner: &Inner, vo: &VoId, told: &Told) -> bool {
    let (Some(served), Some(live)) = (inner.shares.one(vo), inner.vos.one(vo)) else {
        return false;
    };
    let state = live.read();
    all(inner, &served, (&*live, &*state), Some(told)).0 == *told
}

/// What to send about one VO, and what the node knows then; `None` when it knows it already.
fn parts(
    inner: &Arc<Inner>,
    node: &NodeId,
    vo: &VoId,
    told: Option<&Told>,
) -> Option<(Vec<VoAccounts>, Told)> {
    let served = inner.shares.one(vo)?;
    let Some(live) = inner.vos.one(vo) else { return erased(inner, &served, told) };
    let (rules, at) = (&inner.rules, (&inner.site, node));
    let court = rules.court(&live.read());
    let findings = rules.logins.findings(vo, &court, at);
    let before = told.filter(|t| t.state != AccountState::Ended).and_then(|t| t.rules.clone());
    let differ = match &before {
        Some(before) => differing(inner, &live, (before, &court), node),
        None => {
            findings.prepare(&rules.judge, &live);
            Some(Differ::nobody())
        }
    };
    // What else has changed does not wait until it is found whom new rules concern: until then the
    // node is told by those before.
    let (court, findings, differ) = match (differ, before) {
        (None, Some(before)) => {
            let findings = rules.logins.findings(vo, &before, at);
            (before, findings, Differ::nobody())
        }
        (differ, _) => (court, findings, differ.unwrap_or_else(Differ::nobody)),
    };
    let state = live.read();
    let (mut next, names) = all(inner, &served, (&*live, &*state), told);
    // If they changed once more just now, that is the next thing to tell.
    next.rules = Some(court);
    if told == Some(&next) {
        return None;
    }
    // A VO that is not served has no accounts; its processes, if any are left, end.
    if next.state == AccountState::Ended {
        if told.is_some_and(|t| t.state == AccountState::Ended) {
            return None;
        }
        return Some((vec![ended(&served, state.number)], next));
    }
    let told = told.filter(|t| t.state != AccountState::Ended);
    // Who changed since it was found whom new rules concern may be one of them too.
    let since = told.map(|t| t.number.min(differ.number));
    let logins = Logins::new(&rules.judge, findings, differ);
    let mut parts = state.accounts(served.block(), next.state, since, &names, &logins);
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
