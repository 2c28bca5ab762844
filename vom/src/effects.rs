//! What vom needs of others: the cores of other sites, and this site's nodes.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use tokio::sync::broadcast;
use xos_api::audit::{AuditHeads, HeadsOf, RecordHead};
use xos_api::node::AccountsTold;
use xos_api::node::sessions::WhyNode;
use xos_api::vom::{LogItem, RecordOffer, RecordWithdrawal, VoAccounts, VoLog, WhyAnswer};
use xos_base::{Error, NodeId, SiteId};
use xos_net::{Grid, NodeChange, Nodes};

/// The log of a VO as it comes from its home.
pub type LogStream = BoxStream<'static, Result<LogItem, Error>>;

/// The cores of the VOs' homes, spoken to as this site's core.
#[async_trait]
pub trait Homes: Send + Sync {
    /// Brings an offer.
    async fn offer(&self, home: &SiteId, r: RecordOffer) -> Result<(), Error>;
    /// Tells that a share has ended.
    async fn withdraw(&self, home: &SiteId, r: RecordWithdrawal) -> Result<(), Error>;
    /// Opens a log.
    async fn log(&self, home: &SiteId, r: VoLog) -> Result<LogStream, Error>;
}

#[async_trait]
impl Homes for Grid {
    async fn offer(&self, home: &SiteId, r: RecordOffer) -> Result<(), Error> {
        self.call(home, r).await.map(|_| ())
    }

    async fn withdraw(&self, home: &SiteId, r: RecordWithdrawal) -> Result<(), Error> {
        self.call(home, r).await.map(|_| ())
    }

    async fn log(&self, home: &SiteId, r: VoLog) -> Result<LogStream, Error> {
        self.subscribe(home, r).await
    }
}

/// The cores of other sites, as witnesses of this site's audit.
#[async_trait]
pub trait Holders: Send + Sync {
    /// Brings a head.
    async fn record_head(&self, site: &SiteId, r: RecordHead) -> Result<(), Error>;
    /// Asks which heads a site holds.
    async fn heads_of(&self, site: &SiteId, r: HeadsOf) -> Result<AuditHeads, Error>;
}

#[async_trait]
impl Holders for Grid {
    async fn record_head(&self, site: &SiteId, r: RecordHead) -> Result<(), Error> {
        self.call(site, r).await.map(|_| ())
    }

    async fn heads_of(&self, site: &SiteId, r: HeadsOf) -> Result<AuditHeads, Error> {
        self.call(site, r).await
    }
}

/// This site's nodes.
#[async_trait]
pub trait NodeLink: Send + Sync {
    /// The connected ones.
    fn connected(&self) -> Vec<NodeId>;
    /// Those that come and go from now on.
    fn changes(&self) -> broadcast::Receiver<NodeChange>;
    /// Tells a node about accounts.
    async fn accounts(&self, node: &NodeId, accounts: VoAccounts) -> Result<(), Error>;
    /// Asks a node why a member can sign in to it, or cannot.
    async fn why(&self, node: &NodeId, r: WhyNode) -> Result<WhyAnswer, Error>;
    /// Tells a node that it was told about the accounts of all VOs.
    async fn accounts_told(&self, node: &NodeId) -> Result<(), Error>;
}

#[async_trait]
impl NodeLink for Nodes {
    fn connected(&self) -> Vec<NodeId> {
        Nodes::connected(self)
    }

    fn changes(&self) -> broadcast::Receiver<NodeChange> {
        Nodes::changes(self)
    }

    async fn accounts(&self, node: &NodeId, accounts: VoAccounts) -> Result<(), Error> {
        self.call(node, accounts).await.map(|_| ())
    }

    async fn why(&self, node: &NodeId, r: WhyNode) -> Result<WhyAnswer, Error> {
        self.call(node, r).await
    }

    async fn accounts_told(&self, node: &NodeId) -> Result<(), Error> {
        self.call(node, AccountsTold {}).await.map(|_| ())
    }
}
