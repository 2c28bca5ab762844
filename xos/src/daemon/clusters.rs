//! Where a core keeps its clusters, in the registry:
//!
//! | key | content |
//! | --- | --- |
//! | `ssi/<cluster>/settings` | [`Settings`]: the cluster is there |
//! | `ssi/<cluster>/last` | the last number given to a tree |
//! | `ssi/<cluster>/node/<number>` | [`Member`] |
//! | `ssi/<cluster>/tree/<number>` | [`Tree`] |
//! | `ssi/<cluster>/program/<number>` | [`Program`] |
//! | `ssi/<cluster>/envelope/<envelope>` | [`Envelope`] of units |
//! | `ssi/<cluster>/task/<envelope>/<name>` | [`TaskSpec`] of units in it |
//! | `ssi/<cluster>/unit/<envelope>/<number>/<attempt>` | [`Unit`] |
//! | `ssi/<cluster>/queued/<number>` | [`Waiting`]: a program that waits until a node has room |

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xos_api::aem::TaskSpec;
use xos_api::node::units::EnvelopeId;
use xos_base::{ClusterId, Error, NodeId};
use xos_cda::Cda;
use xos_ssi::cluster::members::Member;
use xos_ssi::cluster::messages::TreeId;
use xos_ssi::cluster::trees::Tree;
use xos_ssi::pids::NodeNumber;
use xos_ssi::service::{Change, Envelope, Kept, Machines, Records, Settings, Unit, Waiting};
use xos_ssi::wire::{Program, TreeUnit};
use xos_store::{Key, KeyError, OPS_MAX, Op, PAGE_ENTRIES_MAX, Prefix, Store, StoreError};

/// What all keys begin with.
const ROOT: &str = "ssi";

/// The clusters in the registry.
pub struct Registry {
    store: Arc<dyn Store>,
}

impl Registry {
    /// In this one.
    pub fn new(store: Arc<dyn Store>) -> Registry {
        Registry { store }
    }
}

/// The machines that joined the site.
pub struct Joined(pub Cda);

#[async_trait]
impl Machines for Joined {
    async fn has(&self, node: &NodeId) -> Result<bool, Error> {
        self.0.has_node(node).await
    }
}

fn key_error(e: KeyError) -> Error {
    Error::internal(format!("registry key: {e}"))
}

fn key(cluster: &ClusterId, parts: &[&str]) -> Result<Key, Error> {
    let all = [ROOT, cluster.as_str()].into_iter().chain(parts.iter().copied());
    Key::of(all).map_err(key_error)
}

fn tree_key(cluster: &ClusterId, kind: &str, tree: TreeId) -> Result<Key, Error> {
    key(cluster, &[kind, &format!("{:020}", tree.0)])
}

fn unit_key(cluster: &ClusterId, unit: &TreeUnit) -> Result<Key, Error> {
    let (envelope, number) = (unit.envelope.to_string(), format!("{:010}", unit.unit));
    key(cluster, &["unit", &envelope, &number, &unit.attempt.to_string()])
}

/// Reads what [`EnvelopeId`] shows itself as.
fn envelope(text: &str) -> Option<EnvelopeId> {
    let (job, serial) = text.split_once('@')?;
    Some(EnvelopeId { job: job.parse().ok()?, serial: serial.parse().ok()? })
}

fn encode<T: Serialize>(value: &T) -> Result<Bytes, Error> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|e| Error::internal(format!("cannot encode a registry value: {e}")))
}

fn decode<T: DeserializeOwned>(key: &Key, value: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(value).map_err(|e| damaged(key, &e.to_string()))
}

fn damaged(key: &Key, why: &str) -> Error {
    Error::internal(format!("the registry's clusters are damaged at {key}: {why}"))
        .hint("restore the registry from a backup")
}

/// What a change writes and removes.
fn ops(cluster: &ClusterId, change: &Change) -> Result<Vec<Op>, Error> {
    Ok(match change {
        Change::Settings(s) => vec![Op::put(key(cluster, &["settings"])?, encode(s)?)],
        Change::Queued(tree, w) => vec![Op::put(tree_key(cluster, "queued", *tree)?, encode(w)?)],
        Change::Begun(tree) => vec![Op::Del(tree_key(cluster, "queued", *tree)?)],
        Change::Last(last) => vec![Op::put(key(cluster, &["last"])?, encode(last)?)],
        Change::Program(tree, p) => {
            vec![Op::put(tree_key(cluster, "program", *tree)?, encode(p)?)]
        }
        Change::Tree(tree, t) => vec![Op::put(tree_key(cluster, "tree", *tree)?, encode(t)?)],
        Change::Gone(tree) => vec![
            Op::Del(tree_key(cluster, "tree", *tree)?),
            Op::Del(tree_key(cluster, "program", *tree)?),
            Op::Del(tree_key(cluster, "queued", *tree)?),
        ],
        Change::Node(number, m) => {
            vec![Op::put(key(cluster, &["node", &number.to_string()])?, encode(m)?)]
        }
        Change::Envelope(id, e) => {
            vec![Op::put(key(cluster, &["envelope", &id.to_string()])?, encode(e)?)]
        }
        Change::Task(id, name, task) => {
            vec![Op::put(key(cluster, &["task", &id.to_string(), name])?, encode(task)?)]
        }
        Change::Unit(id, unit) => vec![Op::put(unit_key(cluster, id)?, encode(unit)?)],
        Change::UnitGone(id) => vec![Op::Del(unit_key(cluster, id)?)],
        Change::TaskGone(id, name) => {
            vec![Op::Del(key(cluster, &["task", &id.to_string(), name])?)]
        }
        Change::EnvelopeGone(id) => vec![Op::Del(key(cluster, &["envelope", &id.to_string()])?)],
    })
}

/// What is written together. A unit that left is with its tree: a core that comes back with the
/// one and not the other would run again here what goes on elsewhere.
fn pieces(changes: &[Change]) -> Vec<Vec<&Change>> {
    let left = |change: &Change| match change {
        Change::Unit(_, unit) if unit.left.is_some() => unit.tree,
        _ => None,
    };
    let of_left: BTreeSet<TreeId> = changes.iter().filter_map(left).collect();
    let tree = |change: &Change| match change {
        Change::Tree(tree, _) | Change::Gone(tree) if of_left.contains(tree) => Some(*tree),
        _ => None,
    };
    let mut trees: BTreeMap<TreeId, &Change> =
        changes.iter().filter_map(|change| Some((tree(change)?, change))).collect();
    let mut all = Vec::new();
    for change in changes.iter().filter(|change| tree(change).is_none()) {
        let mut piece = vec![change];
        piece.extend(left(change).and_then(|tree| trees.remove(&tree)));
        all.push(piece);
    }
    all
}

/// The cluster and the change that an entry is.
fn read(at: &Key, value: &[u8]) -> Result<(ClusterId, Change), Error> {
    let bad = || damaged(at, "nobody writes such a key");
    let segments = at.segments().map_err(key_error)?;
    let texts: Vec<String> = segments
        .into_iter()
        .map(|bytes| String::from_utf8(bytes).map_err(|_| bad()))
        .collect::<Result<_, _>>()?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let tree = |text: &str| text.parse().map(TreeId).map_err(|_| bad());
    let (cluster, change) = match texts.as_slice() {
        [ROOT, cluster, "settings"] => (cluster, Change::Settings(decode::<Settings>(at, value)?)),
        [ROOT, cluster, "last"] => (cluster, Change::Last(decode::<TreeId>(at, value)?)),
        [ROOT, cluster, "program", id] => {
            (cluster, Change::Program(tree(id)?, decode::<Program>(at, value)?))
        }
        [ROOT, cluster, "queued", id] => {
            (cluster, Change::Queued(tree(id)?, Box::new(decode::<Waiting>(at, value)?)))
        }
        [ROOT, cluster, "tree", id] => {
            (cluster, Change::Tree(tree(id)?, decode::<Tree>(at, value)?))
        }
        [ROOT, cluster, "node", number] => {
            let number = number.parse::<u8>().ok().and_then(|n| NodeNumber::try_from(n).ok());
            (cluster, Change::Node(number.ok_or_else(bad)?, decode::<Member>(at, value)?))
        }
        [ROOT, cluster, "envelope", id] => {
            let id = envelope(id).ok_or_else(bad)?;
            (cluster, Change::Envelope(id, decode::<Envelope>(at, value)?))
        }
        [ROOT, cluster, "task", id, name] => {
            let (id, task) = (envelope(id).ok_or_else(bad)?, decode::<TaskSpec>(at, value)?);
            (cluster, Change::Task(id, (*name).to_owned(), Box::new(task)))
        }
        [ROOT, cluster, "unit", id, unit, attempt] => {
            let envelope = envelope(id).ok_or_else(bad)?;
            let unit = unit.parse().map_err(|_| bad())?;
            let attempt = attempt.parse().map_err(|_| bad())?;
            let id = TreeUnit { envelope, unit, attempt };
            (cluster, Change::Unit(id, decode::<Unit>(at, value)?))
        }
        _ => return Err(bad()),
    };
    Ok((cluster.parse().map_err(|_| bad())?, change))
}

#[async_trait]
impl Records for Registry {
    async fn load(&self) -> Result<BTreeMap<ClusterId, Kept>, Error> {
        let below = Prefix::of([ROOT]).map_err(key_error)?;
        let (mut all, mut after) = (BTreeMap::<ClusterId, Kept>::new(), None);
        loop {
            let page = self.store.scan(&below, after.as_ref(), PAGE_ENTRIES_MAX).await;
            let page = page.map_err(StoreError::told)?;
            for entry in page.entries {
                let (cluster, change) = read(&entry.key, &entry.value)?;
                all.entry(cluster).or_default().apply(change);
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }

    async fn keep(&self, cluster: &ClusterId, changes: &[Change]) -> Result<(), Error> {
        let mut waiting: Vec<Op> = Vec::new();
        for piece in pieces(changes) {
            let ops = piece.into_iter().map(|change| ops(cluster, change));
            let ops: Vec<Op> = ops.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
            if waiting.len() + ops.len() > OPS_MAX {
                let full = std::mem::take(&mut waiting);
                self.store.txn(Vec::new(), full).await.map_err(StoreError::told)?;
            }
            waiting.extend(ops);
        }
        if !waiting.is_empty() {
            self.store.txn(Vec::new(), waiting).await.map_err(StoreError::told)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_ssi::cluster::members::{MemberRecord, Members};
    use xos_store::MemoryStore;

    /// If it failed, a core would come back without nodes that it had, and their trees would live
    /// twice.
    #[tokio::test]
    async fn what_was_kept_comes_back() {
        let registry = Registry::new(Arc::new(MemoryStore::new()));
        let cluster: ClusterId = "c1.rennes".parse().unwrap();
        let mut members = Members::default();
        members.apply(&members.add(&"n1.rennes".parse().unwrap()).unwrap());
        let number = NodeNumber::try_from(1u8).unwrap();
        members.apply(&MemberRecord::Joined { number, term: 3, dead_ms: 8000 });
        let member = members.node(number).unwrap().clone();
        let mut changes = vec![Change::Settings(Settings::default()), Change::Last(TreeId(7))];
        // More than one transaction holds.
        changes.extend((0..100).map(|n| Change::Gone(TreeId(n))));
        changes.push(Change::Node(number, member.clone()));
        registry.keep(&cluster, &changes).await.unwrap();
        registry.keep(&cluster, &[]).await.unwrap();
        let all = registry.load().await.unwrap();
        let kept = all.get(&cluster).unwrap();
        assert_eq!((kept.last, kept.nodes.get(&number)), (7, Some(&member)));
        assert_eq!(all.len(), 1);
    }

    /// If it failed, a core that is killed while it writes would come back with a unit that left
    /// and a tree that did not, and run it beside the site where it goes on.
    #[test]
    fn a_unit_that_left_is_written_with_its_tree() {
        let unit: Unit = serde_json::from_value(serde_json::json!({
            "place": 0, "task": "a", "index": 7, "tree": 4, "spool": 1,
            "stop": null, "started": [1, 5], "over": null,
            "left": {
                "seq": 2, "at": 8, "usage": { "wall_ms": 3, "cpu_ms": 1, "memory_bytes": 0 },
                "carried": {
                    "cluster": "c1.rennes", "tree": 4, "version": 2, "nodes": ["n1.rennes"],
                    "key": "0".repeat(64), "bytes": 1, "pid": 65_432, "cpu_group": 1,
                    "base": 100_000, "stdout_bytes": 0, "stderr_bytes": 0,
                },
            },
        }))
        .unwrap();
        let envelope = EnvelopeId { job: "12.rennes".parse().unwrap(), serial: 3 };
        let run = |unit| TreeUnit { envelope: envelope.clone(), unit, attempt: 1 };
        let runs = Unit { left: None, tree: Some(TreeId(5)), ..unit.clone() };
        let mut changes = vec![Change::Unit(run(7), unit), Change::Unit(run(8), runs)];
        changes.extend((1..=OPS_MAX as u64).map(|n| Change::Gone(TreeId(n))));
        let pieces = pieces(&changes);
        assert_eq!(pieces.iter().map(Vec::len).sum::<usize>(), changes.len());
        let (with, alone): (Vec<_>, Vec<_>) = pieces.iter().partition(|piece| piece.len() > 1);
        assert_eq!(alone.len(), changes.len() - 2);
        let [with] = with.as_slice() else { panic!("{} pieces", with.len()) };
        assert!(matches!(with[0], Change::Unit(_, unit) if unit.left.is_some()));
        assert!(matches!(with[1], Change::Gone(TreeId(4))));
    }

    /// If it failed, units of jobs would be lost with a restart of the core, or run twice.
    #[tokio::test]
    async fn units_come_back_and_go() {
        let registry = Registry::new(Arc::new(MemoryStore::new()));
        let cluster: ClusterId = "c1.rennes".parse().unwrap();
        let id = EnvelopeId { job: "12.rennes".parse().unwrap(), serial: 3 };
        let envelope: Envelope = serde_json::from_value(serde_json::json!({
            "owner": { "vo": "demo.rennes", "member": 2, "uid": 100_002 },
            "person": "alice@rennes",
            "site": "rennes",
            "room": { "slots": 1, "cpu_milli": 1000, "memory_bytes": 1 },
            "ending": false,
        }))
        .unwrap();
        let run = TreeUnit { envelope: id.clone(), unit: 7, attempt: 1 };
        let unit: Unit = serde_json::from_value(serde_json::json!({
            "place": 0, "task": "a.b-c_d", "index": 7, "tree": 4, "spool": 1,
            "stop": { "why": "Asked", "kill_at": 9 }, "started": [1, 5],
            "over": {
                "seq": 2, "at": 8, "how": { "end": "signal", "signal": 9 },
                "usage": { "wall_ms": 3, "cpu_ms": 1, "memory_bytes": 0 },
            },
        }))
        .unwrap();
        let task = TaskSpec { name: "a.b-c_d".into(), ..TaskSpec::default() };
        let changes = [
            Change::Settings(Settings::default()),
            Change::Envelope(id.clone(), envelope.clone()),
            Change::Task(id.clone(), task.name.clone(), Box::new(task.clone())),
            Change::Unit(run.clone(), unit.clone()),
        ];
        registry.keep(&cluster, &changes).await.unwrap();
        let kept = registry.load().await.unwrap().remove(&cluster).unwrap();
        assert_eq!(kept.envelopes, BTreeMap::from([(id.clone(), envelope)]));
        assert_eq!(kept.tasks, BTreeMap::from([((id.clone(), task.name.clone()), task.clone())]));
        assert_eq!(kept.units, BTreeMap::from([(run.clone(), unit)]));
        let gone = [
            Change::UnitGone(run),
            Change::TaskGone(id.clone(), task.name),
            Change::EnvelopeGone(id),
        ];
        registry.keep(&cluster, &gone).await.unwrap();
        let kept = registry.load().await.unwrap().remove(&cluster).unwrap();
        assert!(kept.envelopes.is_empty() && kept.tasks.is_empty() && kept.units.is_empty());
    }
}
