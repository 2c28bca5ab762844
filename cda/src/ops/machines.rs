//! Machines: joining, renewal, removal.

use crate::registry::{self, BanRecord, Found, JoinRecord, NodeKey, NodeRecord};
use crate::{Inner, csr, issue, ssh};
use std::sync::Weak;
use std::time::Duration;
use xos_api::Done;
use xos_api::cda::{
    CertifyHost, CreateJoinToken, HOST_KEYS_MAX, HostCertificates, JoinMachine, JoinToken,
    JoinTokenView, Joined, ListMachines, Machine, RemoveNode, RenewMachine,
};
use xos_base::{Error, Millis, NodeId};
use xos_net::identity::{hex, sha256};
use xos_net::trust::node_name;
use xos_net::{Caller, Peer};
use xos_store::{Guard, Op};

/// How long a join token holds.
pub(crate) const JOIN_LIFE: Duration = Duration::from_secs(3600);
/// Most keys with living certificates that one node may have.
const KEYS_MAX: usize = 8;

fn join_refused() -> Error {
    Error::unauthenticated("the join token is not valid, was used, or has expired")
        .hint("a site administrator makes a new one: `xos node token <name>`")
}

fn is_cluster(node: &NodeId) -> Error {
    Error::conflict(format!("a cluster of this site is called {node}"))
        .hint("give the node another name: `xos node token NAME`")
}

fn join_key(secret: &str) -> Result<xos_store::Key, Error> {
    registry::key("join", &hex(&sha256(secret.as_bytes())))
}

impl Inner {
    pub(crate) async fn create_join_token(
        &self,
        caller: Caller,
        r: CreateJoinToken,
    ) -> Result<JoinTokenView, Error> {
        let grant = self.administrator(&caller).await?;
        let node = self.site.node(&r.label)?;
        self.is_no_cluster(&node)?;
        let secret = hex(&issue::random::<32>()?);
        let expires = self.now().plus(JOIN_LIFE);
        let record = JoinRecord { node: node.clone(), expires, used_by: None };
        let op = self.registry.put_for(join_key(&secret)?, &record, JOIN_LIFE).await?;
        self.registry.apply(vec![grant.guard], vec![op], "your right as administrator").await?;
        let root = hex(&sha256(self.keys.root_der()));
        Ok(JoinTokenView { token: JoinToken { node: node.clone(), root, secret }, node, expires })
    }

    pub(crate) async fn join_machine(&self, _: Peer, r: JoinMachine) -> Result<Joined, Error> {
        let found = self.registry.read::<JoinRecord>(&join_key(&r.token.secret)?).await?;
        let join = found.ok_or_else(join_refused)?;
        let now = self.now();
        if join.value.expires <= now || join.value.node != r.token.node {
            return Err(join_refused());
        }
        let key = csr::read(&r.csr_pem)?;
        if join.value.used_by.as_ref().is_some_and(|k| *k != key.fingerprint) {
            return Err(join_refused());
        }
        let node = join.value.node.clone();
        // It may have been made since the token was, and is not made meanwhile.
        let _kept = self.keep_name(&node)?;
        let old = self.node(&node).await?;
        let until = self.machine_until(now);
        let mut others = old.as_ref().map(|o| o.value.keys.clone()).unwrap_or_default();
        others.retain(|k| k.fingerprint != key.fingerprint);
        let mut keys = vec![NodeKey { fingerprint: key.fingerprint.clone(), until }];
        // A machine that joins takes the place of the one before; one that asks again does not.
        let asks_again = join.value.used_by.is_some();
        let bans = if asks_again { Vec::new() } else { others.clone() };
        keys.extend(if asks_again { others } else { Vec::new() });
        let record = NodeRecord { joined: now, keys };
        let node_key = registry::key("node", node.label())?;
        let guard = old.as_ref().map_or(Guard::Absent(node_key.clone()), Found::guard);
        let used = JoinRecord { used_by: Some(key.fingerprint.clone()), ..join.value.clone() };
        let life = join.value.expires.since(now).max(Duration::from_secs(1));
        let mut ops = vec![
            self.registry.put_for(join.key.clone(), &used, life).await?,
            registry::put(node_key, &record)?,
        ];
        ops.extend(self.bans(&node, &bans)?);
        let joined = self.joined(&node, &key, (now, until))?;
        self.registry.apply(vec![join.guard(), guard], ops, node.as_str()).await?;
        self.ban(&bans)?;
        Ok(joined)
    }

    fn machine_until(&self, now: Millis) -> Millis {
        now.plus(Duration::from_secs(self.config.machine_s)).min(self.keys.machines().span.until)
    }

    /// Jobs are sent to a cluster as to a node.
    fn is_no_cluster(&self, node: &NodeId) -> Result<(), Error> {
        let clusters = self.clusters.get().and_then(Weak::upgrade);
        match clusters.is_some_and(|clusters| clusters.has(node)) {
            true => Err(is_cluster(node)),
            false => Ok(()),
        }
    }

    /// The same, also of one that is about to be made; none is until what is returned is dropped.
    fn keep_name(&self, node: &NodeId) -> Result<Option<Box<dyn Send>>, Error> {
        let Some(clusters) = self.clusters.get().and_then(Weak::upgrade) else { return Ok(None) };
        clusters.keep_for_node(node).map(Some).ok_or_else(|| is_cluster(node))
    }

    pub(crate) async fn node(&self, node: &NodeId) -> Result<Option<Found<NodeRecord>>, Error> {
        self.registry.read(&registry::key("node", node.label())?).await
    }

    fn joined(
        &self,
        node: &NodeId,
        key: &csr::PublicKey,
        span: (Millis, Millis),
    ) -> Result<Joined, Error> {
        if self.trust.is_banned(&self.site, &key.fingerprint) {
            return Err(
                Error::denied("this key was withdrawn").hint("make a new key and try again")
            );
        }
        let issued = issue::machine(&self.keys.machines(), &node_name(node), &[], key, span)?;
        let trusted = self.trust.descriptors().into_iter().filter(|d| d.site != self.site);
        Ok(Joined {
            node: node.clone(),
            chain_pem: issued.chain_pem,
            expires: issued.until,
            site: self.descriptor(),
            trusted: trusted.collect(),
        })
    }

    /// The calling node, with its record: it is one of this site's, and its key is still its own.
    pub(crate) async fn present_node(
        &self,
        caller: &Caller,
    ) -> Result<(NodeId, Found<NodeRecord>), Error> {
        let node = caller.node()?.clone();
        // A control stream may be older than the removal of its node: only the key counts.
        let present = caller
            .key()
            .ok_or_else(|| Error::denied(format!("{node} did not prove to hold a key")))?;
        let removed = || {
            Error::denied(format!("{node} is no machine of site {}", self.site))
                .hint("a site administrator lets it join again")
        };
        if node.site() != self.site {
            return Err(removed());
        }
        let found = self.node(&node).await?.ok_or_else(removed)?;
        if !found.value.keys.iter().any(|k| k.fingerprint == present) {
            return Err(removed());
        }
        Ok((node, found))
    }

    pub(crate) async fn certify_host(
        &self,
        caller: Caller,
        r: CertifyHost,
    ) -> Result<HostCertificates, Error> {
        let (node, _) = self.present_node(&caller).await?;
        self.host_certificates(&[node.to_string(), node_name(&node)], &r.keys)
    }

    /// Certifies the keys of a machine's sshd for these names.
    pub(crate) fn host_certificates(
        &self,
        principals: &[String],
        keys: &[String],
    ) -> Result<HostCertificates, Error> {
        if keys.is_empty() || keys.len() > HOST_KEYS_MAX {
            return Err(Error::invalid(format!("keys: 1 to {HOST_KEYS_MAX} host keys")));
        }
        let keys = keys.iter().map(|k| ssh::host_key(k)).collect::<Result<Vec<_>, _>>()?;
        let now = self.now();
        let until = Millis::from_secs(self.machine_until(now).secs());
        let certify = |k| ssh::machine(&self.keys.ssh_machines(), principals, k, (now, until));
        let certificates = keys.into_iter().map(certify).collect::<Result<Vec<_>, _>>()?;
        Ok(HostCertificates { certificates, expires: until })
    }

    pub(crate) async fn renew_machine(
        &self,
        caller: Caller,
        r: RenewMachine,
    ) -> Result<Joined, Error> {
        let (node, mut found) = self.present_node(&caller).await?;
        let key = csr::read(&r.csr_pem)?;
        let now = self.now();
        let until = self.machine_until(now);
        let keys = &mut found.value.keys;
        keys.retain(|k| k.until > now && k.fingerprint != key.fingerprint);
        if keys.len() >= KEYS_MAX {
            return Err(Error::limited(format!("{node} has {KEYS_MAX} keys already"))
                .hint("renew for the present key"));
        }
        keys.insert(0, NodeKey { fingerprint: key.fingerprint.clone(), until });
        let joined = self.joined(&node, &key, (now, until))?;
        let op = registry::put(found.key.clone(), &found.value)?;
        self.registry.apply(vec![found.guard()], vec![op], node.as_str()).await?;
        Ok(joined)
    }

    pub(crate) async fn list_machines(
        &self,
        caller: Caller,
        _: ListMachines,
    ) -> Result<Vec<Machine>, Error> {
        self.administrator(&caller).await?;
        let records = self.registry.all::<NodeRecord>("node").await?;
        let view = |(label, r): &(String, NodeRecord)| {
            let newest = r.keys.first();
            Ok(Machine {
                node: self.site.node(label)?,
                joined: r.joined,
                certificate_until: newest.map_or(Millis(0), |k| k.until),
                key: newest.map(|k| k.fingerprint.clone()).unwrap_or_default(),
            })
        };
        records.iter().map(view).collect()
    }

    pub(crate) async fn remove_node(&self, caller: Caller, r: RemoveNode) -> Result<Done, Error> {
        let grant = self.administrator(&caller).await?;
        let unknown = || Error::not_found(format!("no machine {} at this site", r.node));
        if r.node.site() != self.site {
            return Err(unknown());
        }
        let found = self.node(&r.node).await?.ok_or_else(unknown)?;
        let mut ops = vec![Op::Del(found.key.clone())];
        ops.extend(self.bans(&r.node, &found.value.keys)?);
        let guards = vec![grant.guard, found.guard()];
        self.registry.apply(guards, ops, r.node.as_str()).await?;
        self.ban(&found.value.keys)?;
        Ok(Done {})
    }

    fn bans(&self, node: &NodeId, keys: &[NodeKey]) -> Result<Vec<Op>, Error> {
        let op = |k: &NodeKey| {
            let record = BanRecord { node: node.clone(), until: k.until };
            registry::put(registry::key("banned", &k.fingerprint)?, &record)
        };
        keys.iter().map(op).collect()
    }

    /// The registry holds the bans already, so that a restart makes up for what fails here.
    fn ban(&self, keys: &[NodeKey]) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        self.withdraw(keys.iter().map(|k| (k.fingerprint.clone(), k.until)))?;
        self.tell_others();
        Ok(())
    }
}
