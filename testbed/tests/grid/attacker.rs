//! What a program of an attacker with a node's key does: runs inside a host, with that host's
//! files, and speaks to cores and object stores as the node's own mount would.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xos_api::site::SiteDescriptor;
use xos_net::dial::Dialer;
use xos_net::tls::{ALPN_XTREEMFS, IdentityCell};
use xos_net::{Identity, Trust};
use xtreemfs_proto::mrc::{self, NameRequest, OpenRequest, SetattrRequest};
use xtreemfs_proto::rpc::{Authenticate, AuthenticateRequest, ConnectRequest, INSTANCE_BYTES};
use xtreemfs_proto::{Channel, Procedure, dir, osd};

use crate::world::VO;

/// The variable that says what to do, as JSON.
pub const ORDERS: &str = "XOS_GRID_ATTACK";
/// What stands before the report in the output.
pub const REPORT: &str = "report: ";
/// Inodes below this are tried by number.
const INODES_TRIED: u64 = 24;
const LIMIT: Duration = Duration::from_secs(20);

/// What the attacker has in hand.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Orders {
    /// A ticket to show to the MRC.
    pub ticket: Option<String>,
    /// The file that is wanted, from the volume's root.
    pub path: Vec<String>,
    /// A capability (base64) with the object store to show it to, instead of asking the MRC.
    pub capability: Option<(String, String)>,
    /// Try to appear as other machines and to make and delete volumes.
    pub usurp: bool,
}

/// What came of it: for each step `ok …`, or the refusal.
pub type Report = std::collections::BTreeMap<String, String>;

/// Does what the orders say.
pub fn run(orders: &str) -> Report {
    let orders: Orders = serde_json::from_str(orders).expect("orders");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let dialer = dialer(Path::new("/var/lib/xos/node"));
        let core = dialer.core(&"rennes".parse().unwrap(), ALPN_XTREEMFS).await.expect("the core");
        let mut attack = Attack { core: Channel::new(core), dialer, report: Report::new() };
        attack.call::<mrc::Connect>("connect", None, opening()).await;
        if orders.usurp {
            attack.usurp().await;
        }
        match orders.capability {
            Some((token, store)) => {
                let token = STANDARD.decode(token).unwrap().into();
                attack.objects(&token, &store).await;
            }
            None => attack.file(&orders).await,
        }
        attack.report
    })
}

fn opening() -> ConnectRequest {
    ConnectRequest { instance: Bytes::from_static(&[7; INSTANCE_BYTES]), number: 1 }
}

fn dialer(folder: &Path) -> Dialer {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect(name);
    let identity = Identity::from_pem(&read("chain.pem"), &read("key.pem")).unwrap();
    let trust = Trust::new();
    let sites: Vec<SiteDescriptor> = serde_json::from_str(&read("sites.json")).unwrap();
    for site in sites {
        trust.add(site).unwrap();
    }
    Dialer::new(trust, IdentityCell::new(identity))
}

struct Attack {
    core: Channel,
    dialer: Dialer,
    report: Report,
}

impl Attack {
    /// One call; what came of it is noted under `step`.
    async fn call<P: Procedure>(
        &mut self,
        step: &str,
        slot: Option<u32>,
        request: P::Request,
    ) -> Option<P::Reply> {
        let said = self.core.call::<P>(slot, &request, Bytes::new(), LIMIT).await;
        let (text, reply) = match said {
            Ok((reply, _)) => ("ok".to_owned(), Some(reply)),
            Err(e) => (e.to_string(), None),
        };
        self.report.insert(step.to_owned(), text);
        reply
    }

    /// Walks to the file, opens and reads it, and tries to change its rights.
    async fn file(&mut self, orders: &Orders) {
        let request = dir::VolumeLookupRequest { name: VO.to_owned() };
        let found = self.call::<dir::VolumeLookup>("volume", None, request).await;
        let Some(volume) = found.map(|v| v.id) else { return };
        // Without a ticket, a number that somebody else's ticket may have got.
        let mut slot = Some(0);
        if let Some(ticket) = &orders.ticket {
            let ticket = Bytes::from(ticket.clone());
            let request = AuthenticateRequest { ticket, replace: None };
            let shown = self.call::<Authenticate>("ticket", None, request).await;
            slot = shown.map(|reply| reply.slot).or(slot);
        }
        let mut inode = mrc::ROOT_INODE;
        for name in &orders.path {
            let name = Bytes::from(name.clone());
            let request = NameRequest { volume: volume.clone(), parent: inode, name };
            let found = self.call::<mrc::Lookup>("lookup", slot, request).await;
            // An inode's number alone opens nothing: then the numbers are tried one by one.
            let Some(attr) = found.and_then(|reply| reply.attr) else {
                return self.guess(&volume, slot).await;
            };
            inode = attr.inode;
        }
        let change = SetattrRequest {
            volume: volume.clone(),
            inode,
            mode: Some(0o777),
            owner: Some(1),
            ..SetattrRequest::default()
        };
        self.call::<mrc::Setattr>("setattr", slot, change).await;
        let request = OpenRequest { volume, inode, flags: mrc::open_flags::READ };
        if let Some(open) = self.call::<mrc::Open>("open", slot, request).await {
            let store = open.layout.expect("a layout").osds[0].clone();
            let token = STANDARD.encode(&open.capability);
            self.report.insert("capability".to_owned(), token);
            self.report.insert("store".to_owned(), store.clone());
            self.objects(&open.capability, &store).await;
        }
    }

    async fn guess(&mut self, volume: &str, slot: Option<u32>) {
        for inode in 1..INODES_TRIED {
            let step = format!("open {inode}");
            let request =
                OpenRequest { volume: volume.to_owned(), inode, flags: mrc::open_flags::READ };
            let opened = self.call::<mrc::Open>(&step, slot, request).await;
            if let Some(attr) = opened.and_then(|reply| reply.attr) {
                self.report.insert(step, format!("opened a file of member {}", attr.owner));
            }
        }
    }

    /// Reads the first object by a capability, then tries to write and delete by it.
    async fn objects(&mut self, capability: &Bytes, store: &str) {
        let node = store.parse().unwrap();
        let stream = self.dialer.node(&node, ALPN_XTREEMFS).await.expect("the object store");
        let channel = Channel::new(stream);
        let opened = channel.call::<osd::Connect>(None, &opening(), Bytes::new(), LIMIT).await;
        opened.expect("an open connection");
        let read =
            osd::ReadRequest { capability: capability.clone(), object: 0, offset: 0, length: 64 };
        let said = match channel.call::<osd::Read>(None, &read, Bytes::new(), LIMIT).await {
            Ok((_, data)) => format!("ok {}", String::from_utf8_lossy(&data)),
            Err(e) => e.to_string(),
        };
        self.report.insert("read".to_owned(), said);
        let write = osd::WriteRequest { capability: capability.clone(), object: 0, offset: 0 };
        let data = Bytes::from_static(b"changed");
        let said = channel.call::<osd::Write>(None, &write, data, LIMIT).await;
        self.report
            .insert("write".to_owned(), said.map_or_else(|e| e.to_string(), |_| "ok".into()));
        let unlink = osd::FileRequest { capability: capability.clone() };
        let said = channel.call::<osd::Unlink>(None, &unlink, Bytes::new(), LIMIT).await;
        self.report
            .insert("unlink".to_owned(), said.map_or_else(|e| e.to_string(), |_| "ok".into()));
    }

    /// Appears as the core or another node at the directory, and manages volumes.
    async fn usurp(&mut self) {
        let evil = dir::Volume {
            id: "evil".into(),
            name: VO.into(),
            vo: VO.into(),
            mrc_address: "core/rennes".into(),
            mrc_key: Bytes::from_static(&[7; 32]),
        };
        let request = dir::VolumeRegisterRequest { volume: Some(evil.clone()) };
        self.call::<dir::VolumeRegister>("register a volume", None, request).await;
        let found = dir::VolumeLookupRequest { name: VO.to_owned() };
        if let Some(real) = self.call::<dir::VolumeLookup>("volume", None, found).await {
            let request = dir::VolumeUnregisterRequest { id: real.id.clone() };
            self.call::<dir::VolumeUnregister>("unregister a volume", None, request).await;
            let request = mrc::VolumeRequest { volume: real.id };
            self.call::<mrc::VolumeDelete>("delete a volume", None, request).await;
        }
        let request =
            mrc::VolumeCreateRequest { name: "x".into(), vo: VO.into(), ..Default::default() };
        self.call::<mrc::VolumeCreate>("make a volume", None, request).await;
        let other = dir::Osd {
            id: "n1.rennes".into(),
            address: "n1.rennes".into(),
            free_bytes: 1 << 40,
            total_bytes: 1 << 40,
            vos: vec![VO.into()],
            seen_ms: 0,
        };
        let request = dir::OsdRegisterRequest { osd: Some(other) };
        self.call::<dir::OsdRegister>("register another's store", None, request).await;
    }
}
