use super::*;
use serde_json::json;
use xos_api::Request;
use xos_api::vom::{AcceptShare, FoundVo, OfferShare, ResumeVo, SuspendVo, WithdrawShare};
use xos_base::when::SystemClock;
use xos_cda::SiteKeys;
use xos_net::sign::Kind;
use xos_net::{Router, Verifier};
use xos_store::MemoryStore;

/// A core with its VOs and file services, without a port.
struct Core {
    files: Arc<Files>,
    grid: Grid,
    /// A person who founds VOs and administers the site.
    vera: Caller,
    _folder: tempfile::TempDir,
}

impl Core {
    async fn new() -> Core {
        let folder = tempfile::tempdir().unwrap();
        let site: SiteId = "rennes".parse().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let keys = SiteKeys::create_or_open(folder.path(), &site, &[], None, clock.now()).unwrap();
        let trust = Trust::new();
        trust.add(keys.descriptor(Vec::new())).unwrap();
        let grid = Grid::new(site.clone(), trust.clone(), keys.core_identity());
        let nodes = Nodes::new(site.clone());
        let options = xos_vom::audit::Options::default();
        let audit = folder.path().join("audit");
        let log = xos_vom::audit::AuditLog::open(&audit, site.clone(), options, clock.clone());
        let deps = xos_vom::Deps {
            site: site.clone(),
            store: Arc::new(MemoryStore::new()),
            signer: Arc::new(keys.signer().clone()),
            trust: trust.clone(),
            clock: clock.clone(),
            homes: Arc::new(grid.clone()),
            nodes: Arc::new(nodes.clone()),
            log: Arc::new(log.unwrap()),
            holders: Arc::new(grid.clone()),
            audit: Arc::new(xos_net::audit::Remembered::default()),
        };
        let vom = Vom::start(xos_vom::Config::default(), deps).await.unwrap();
        let mut router = Router::new();
        vom.register(&mut router);
        grid.set_router(Arc::new(router));
        let now = clock.now().secs();
        let claims = json!({
            "iss": site, "sub": "vera@rennes", "aud": site, "iat": now, "exp": now + 600,
            "jti": "1", "site_admin": true,
        });
        let token = keys.signer().sign(Kind::Token, &claims).unwrap();
        let verifier = Verifier::new(site.clone(), trust.clone(), clock.clone());
        let vera = verifier.token(&token, None).unwrap();
        let parts = Parts {
            site,
            state: folder.path().join("files"),
            grid: grid.clone(),
            nodes,
            trust,
            vom,
            clock,
            audit: Arc::new(xos_net::audit::Remembered::default()),
            stop: CancellationToken::new(),
        };
        let config =
            Config { stripe_bytes: super::default_stripe(), stripe_width: super::default_width() };
        let files = Files::start(config, parts).await.unwrap();
        Core { files, grid, vera, _folder: folder }
    }

    async fn ask<R: Request>(&self, r: R) -> R::Reply {
        self.grid.local(self.vera.clone(), r).await.unwrap()
    }

    /// Founds a VO that this site serves.
    async fn found(&self, label: &str) {
        let (title, description) = (label.to_owned(), String::new());
        self.ask(FoundVo { label: label.to_owned(), title, description }).await;
        let vo: VoId = format!("{label}.rennes").parse().unwrap();
        let offer = OfferShare {
            vo: vo.clone(),
            cpu_milli: 1000,
            memory_bytes: 1 << 30,
            storage_bytes: 1 << 30,
            until: None,
            base: None,
        };
        self.ask(offer).await;
        self.ask(AcceptShare { vo, site: "rennes".parse().unwrap(), version: 1 }).await;
    }

    async fn suspend(&self, vo: &str) {
        let reason = "under review".to_owned();
        self.ask(SuspendVo { vo: vo.parse().unwrap(), reason }).await;
    }

    /// What nodes are told to mount, as the services have it in order now.
    async fn mounted(&self) -> Vec<String> {
        self.files.settle().await;
        self.files.mounts().into_iter().map(|m| m.volume).collect()
    }
}

#[tokio::test]
async fn a_vo_that_is_suspended_before_it_has_a_volume_holds_up_no_other() {
    // wrong: its owner would keep every VO founded later from having a volume
    let core = Core::new().await;
    core.found("alpha").await;
    core.suspend("alpha.rennes").await;
    core.found("beta").await;
    assert_eq!(core.mounted().await, ["beta.rennes"]);
    let known: Vec<_> = core.files.mrc.volumes().unwrap().into_iter().map(|v| v.name).collect();
    assert_eq!(known, ["beta.rennes"]);
    core.ask(ResumeVo { vo: "alpha.rennes".parse().unwrap() }).await;
    assert_eq!(core.mounted().await, ["alpha.rennes", "beta.rennes"]);
}

#[tokio::test]
async fn a_suspended_vo_stays_mounted() {
    // wrong: its work, which is held, would find its open files gone when it goes on
    let core = Core::new().await;
    core.found("demo").await;
    assert_eq!(core.mounted().await, ["demo.rennes"]);
    core.suspend("demo.rennes").await;
    assert_eq!(core.mounted().await, ["demo.rennes"]);
    let (vo, own) = ("demo.rennes".parse().unwrap(), "rennes".parse().unwrap());
    assert!(core.files.knowledge.serves(&vo, &own), "its directory answers, so it can be mounted");
}

#[tokio::test]
async fn the_volume_of_a_vo_that_is_erased_goes_and_is_not_made_again() {
    // wrong: what a VO's members leave would lie at its home for ever, or a VO that works lose it
    let core = Core::new().await;
    core.found("old").await;
    core.found("demo").await;
    assert_eq!(core.mounted().await, ["demo.rennes", "old.rennes"]);
    let old: VoId = "old.rennes".parse().unwrap();
    assert_eq!(core.files.erase(&old).await.unwrap_err().kind, xos_base::Kind::Conflict);
    core.ask(WithdrawShare { vo: old.clone(), reason: "over".to_owned() }).await;
    core.files.erase(&old).await.unwrap();
    core.files.erase(&old).await.unwrap();
    core.files.settle().await;
    let left: Vec<_> = core.files.mrc.volumes().unwrap().into_iter().map(|v| v.name).collect();
    assert_eq!(left, ["demo.rennes"]);
}

#[tokio::test]
async fn a_sites_room_is_what_it_gives() {
    // wrong: by what its nodes say of themselves, a site would draw all new files to itself
    use xtreemfs_proto::dir::{Osd, OsdRegister, OsdRegisterRequest};
    use xtreemfs_server::mrc::OsdChoice;
    let core = Core::new().await;
    core.found("demo").await;
    core.mounted().await;
    let dir = core.files.dir.clone();
    for id in ["n1.rennes", "n2.rennes"] {
        let osd = Osd {
            id: id.to_owned(),
            address: id.to_owned(),
            free_bytes: u64::MAX,
            total_bytes: u64::MAX,
            vos: vec!["demo.rennes".to_owned()],
            seen_ms: 0,
        };
        let node = Peer { id: id.to_owned(), key: String::new(), role: Role::Service };
        let register = Incoming {
            interface: interface::DIR,
            proc: OsdRegister::PROC,
            slot: None,
            until_ms: None,
            message: OsdRegisterRequest { osd: Some(osd) }.encode_to_vec().into(),
            data: bytes::Bytes::new(),
            room: Room::default(),
        };
        dir.connection(node).handle(register).await.unwrap();
    }
    let known = KnownOsds { dir, knowledge: core.files.knowledge.clone() };
    let osds = known.osds("", "demo.rennes");
    assert_eq!(osds.iter().map(|osd| osd.free_bytes).sum::<u64>(), 1 << 30);
    assert_eq!(osds.len(), 2);
    assert!(known.osds("", "other.rennes").is_empty());
}

#[tokio::test]
async fn a_vo_that_is_not_served_any_more_is_left_out_and_the_others_go_on() {
    // wrong: when a site's share of one VO ends, its object servers would be told of no closed
    // folder of any other, and get no new files
    use xtreemfs_proto::dir::{Barriers, BarriersReply, BarriersRequest};
    use xtreemfs_proto::dir::{Osd, OsdRegister, OsdRegisterRequest};
    let core = Core::new().await;
    core.found("demo").await;
    core.found("gone").await;
    core.mounted().await;
    let gone: VoId = "gone.rennes".parse().unwrap();
    core.ask(WithdrawShare { vo: gone, reason: "over".to_owned() }).await;
    // The VO's home takes it in a moment.
    let vom = &core.files.parts.vom;
    let mut changes = vom.changes();
    let serves =
        || vom.homed().iter().any(|h| h.vo.as_str() == "gone.rennes" && !h.sites.is_empty());
    while serves() {
        changes.changed().await.unwrap();
    }
    core.files.settle().await;
    let both = core.files.both(&"n1.rennes".parse().unwrap(), "");
    let asked = |proc: u32, message: Vec<u8>| Incoming {
        interface: interface::DIR,
        proc,
        slot: None,
        until_ms: None,
        message: message.into(),
        data: bytes::Bytes::new(),
        room: Room::default(),
    };
    let vos = vec!["gone.rennes".to_owned(), "demo.rennes".to_owned()];
    let (id, address) = ("n1.rennes".to_owned(), "n1.rennes".to_owned());
    let osd = Osd { id, address, vos: vos.clone(), ..Osd::default() };
    let register = OsdRegisterRequest { osd: Some(osd) }.encode_to_vec();
    both.handle(asked(OsdRegister::PROC, register)).await.unwrap();
    let listed = |vo: &str| core.files.dir.osds(vo).len();
    assert_eq!((listed("demo.rennes"), listed("gone.rennes")), (1, 0));
    for vo in &vos {
        let (vo, volume) = (vo.clone(), format!("{vo}-main"));
        let barrier = xtreemfs_proto::dir::Barrier { vo, volume, number: 9 };
        core.files.dir.raise_barrier(&barrier, None);
    }
    let request = BarriersRequest { vos, known: Vec::new(), wait_ms: 0, osd: true };
    let told = both.handle(asked(Barriers::PROC, request.encode_to_vec())).await.unwrap();
    let told = BarriersReply::decode(told.message).unwrap().barriers;
    assert!(told.iter().any(|barrier| barrier.vo == "demo.rennes" && barrier.number == 9));
    assert!(told.iter().all(|barrier| barrier.vo == "demo.rennes"), "not its site's to hear");
}
