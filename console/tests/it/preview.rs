use crate::fake::Fake;
use crate::world::identity;
use base64::Engine;
use std::sync::Arc;
use xos_api::site::SiteDescriptor;
use xos_base::SiteId;
use xos_base::when::SystemClock;
use xos_console::{Config, Console, Deps, system_random};
use xos_net::http::Shared;
use xos_net::port::Services;
use xos_net::sign::Signer;
use xos_net::{Grid, IdentityCell, Nodes, Router, Trust, Verifier};

#[test]
#[ignore]
fn preview() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let site: SiteId = "rennes".parse().unwrap();
        let clock = Arc::new(SystemClock);
        let signer = Arc::new(Signer::generate().unwrap());
        let (identity, root) = identity(&site);
        let trust = Trust::new();
        trust.add(SiteDescriptor { site: site.clone(), addresses: vec![],
            root: base64::engine::general_purpose::STANDARD.encode(root), keys: vec![signer.public()] }).unwrap();
        let verifier = Verifier::new(site.clone(), trust.clone(), clock.clone());
        let cell = IdentityCell::new(identity);
        let grid = Grid::new(site.clone(), trust, cell.clone());
        let fake = Arc::new(Fake::new(site.clone(), "Tomography of the heart", clock.clone(), signer));
        verifier.set_standing(fake.clone());
        let mut router = Router::new();
        fake.register(&mut router);
        let router = Arc::new(router);
        grid.set_router(router.clone());
        let deps = Deps { grid, verifier: verifier.clone(), runtime: tokio::runtime::Handle::current(), clock, random: system_random() };
        let console = Console::start(Config { title: Some("Université de Rennes".into()) }, deps).unwrap();
        let http = Shared { router, verifier: verifier.clone(), runtime: tokio::runtime::Handle::current(), pages: Some(console.pages()) };
        let services = Services { http, verifier, nodes: Nodes::new(site), files: None };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        std::fs::write("/tmp/pw/port", listener.local_addr().unwrap().port().to_string()).unwrap(); let stop = tokio_util_stop();
        let grow = fake.clone();
        tokio::spawn(async move { loop { tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            grow.output.lock().unwrap().extend_from_slice(b"\nmore output"); } });
        let config = xos_net::port::Config { listen: String::new(), http_workers: 2 };
        tokio::time::timeout(std::time::Duration::from_secs(240), xos_net::port::serve(listener, &config, &cell, services, stop)).await.ok();
    });
}
fn tokio_util_stop() -> tokio_util::sync::CancellationToken { tokio_util::sync::CancellationToken::new() }
