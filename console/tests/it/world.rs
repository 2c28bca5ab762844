//! A console before a real router with stand-in operations, and a browser before the console.

use crate::fake::Fake;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::ServiceResponse;
use actix_web::test::{self, TestRequest};
use actix_web::{App, HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::LocalBoxFuture;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use xos_api::site::SiteDescriptor;
use xos_base::when::Clock;
use xos_base::{Millis, SiteId};
use xos_console::{Config, Console, Deps};
use xos_net::key::{KeyKind, LocalKey};
use xos_net::sign::{Signer, vouch};
use xos_net::trust::core_name;
use xos_net::{Grid, Identity, IdentityCell, Router, Trust, Verifier};

/// The host that browsers think they talk to.
pub const HOST: &str = "core.test:7443";

/// A clock that stands until it is moved.
pub struct At(AtomicU64);

impl At {
    pub fn step(&self, d: Duration) {
        self.0.fetch_add(d.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for At {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::SeqCst))
    }
}

pub struct World {
    pub clock: Arc<At>,
    pub console: Console,
    pub fake: Arc<Fake>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn identity(site: &SiteId) -> (Identity, Vec<u8>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = params.self_signed(&key).unwrap().der().to_vec();
    let root_key = key.serialize_der();
    let ca = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![core_name(site)]).unwrap();
    let cert = params.signed_by(&key, &ca).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    (Identity::new(vec![cert.der().clone()], &key).unwrap(), root, root_key)
}

impl World {
    /// A world in which people's texts read `text`.
    pub fn new(text: &str) -> World {
        World::with(text, true)
    }

    /// A world whose core has no section `[cluster]`.
    pub fn without_clusters() -> World {
        World::with("text", false)
    }

    fn with(text: &str, clusters: bool) -> World {
        let site: SiteId = "rennes".parse().unwrap();
        let clock = Arc::new(At(AtomicU64::new(1_795_000_000_000)));
        let signer = Arc::new(Signer::generate().unwrap());
        let (identity, root, root_key) = identity(&site);
        let trust = Trust::new();
        let descriptor = SiteDescriptor {
            site: site.clone(),
            addresses: vec![],
            root: STANDARD.encode(root),
            keys: vouch(
                &LocalKey::from_pkcs8(KeyKind::P256, &root_key).unwrap(),
                &xos_api::site::SiteKeys::signing(&site, vec![signer.public()], Millis(1)),
            )
            .unwrap(),
            withdrawn: None,
        };
        trust.add(descriptor).unwrap();
        let verifier = Verifier::new(site.clone(), trust.clone(), clock.clone());
        let grid = Grid::new(site.clone(), trust, IdentityCell::new(identity));
        let fake = Arc::new(Fake::new(site, text, clock.clone(), signer));
        verifier.set_standing(fake.clone());
        let mut router = Router::new();
        fake.register(&mut router);
        if clusters {
            fake.register_clusters(&mut router);
        }
        grid.set_router(Arc::new(router));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let count = AtomicU64::new(1);
        let deps = Deps {
            grid,
            verifier,
            runtime: runtime.handle().clone(),
            clock: clock.clone(),
            // Counted instead of random, so that pages can be compared with golden files.
            random: Arc::new(move |buffer| {
                let n = count.fetch_add(1, Ordering::SeqCst);
                buffer.fill(0);
                buffer[..8].copy_from_slice(&n.to_be_bytes());
                Ok(())
            }),
        };
        let console = Console::start(Config::default(), deps).unwrap();
        World { clock, console, fake, runtime: Some(runtime) }
    }

    pub async fn browser(&self) -> Browser {
        let pages = self.console.pages();
        let api = || async { HttpResponse::NotFound().body("the API") };
        let app = App::new().configure(|c| (pages.configure)(c)).default_service(web::to(api));
        let app = Rc::new(test::init_service(app).await);
        let call = move |request: TestRequest| -> LocalBoxFuture<'static, _> {
            let app = app.clone();
            Box::pin(async move {
                test::call_service(&*app, request.to_request()).await.map_into_boxed_body()
            })
        };
        Browser { call: Rc::new(call), cookies: RefCell::default(), token: RefCell::default() }
    }

    /// A browser in which somebody signed in.
    pub async fn signed_in(&self, user: &str) -> Browser {
        let browser = self.browser().await;
        browser.get("/sign-in").await;
        let page = browser.post("/sign-in", &[("user", user), ("password", "right horse")]).await;
        assert_eq!(page.status, 303, "{}", page.body);
        browser
    }
}

type Call = Rc<dyn Fn(TestRequest) -> LocalBoxFuture<'static, ServiceResponse<BoxBody>>>;

/// Keeps cookies and the last page's form token, as a browser does.
pub struct Browser {
    call: Call,
    pub cookies: RefCell<BTreeMap<String, String>>,
    pub token: RefCell<String>,
}

/// What came back.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v)
    }
}

/// A file on its way.
pub struct Download {
    body: BoxBody,
}

impl Download {
    /// The length of the next part; `None` after the last, an error when it broke off.
    pub async fn part(&mut self) -> Option<Result<usize, String>> {
        let next = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_next(cx)).await;
        next.map(|part| part.map(|bytes| bytes.len()).map_err(|e| e.to_string()))
    }

    /// How many bytes still come, and whether the browser takes the file for complete.
    pub async fn rest(mut self) -> (usize, bool) {
        let mut sum = 0;
        while let Some(part) = self.part().await {
            match part {
                Ok(length) => sum += length,
                Err(_) => return (sum, false),
            }
        }
        (sum, true)
    }
}

impl Browser {
    /// Opens a page.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(TestRequest::get().uri(path)).await
    }

    /// As the page's own script does.
    pub async fn get_live(&self, path: &str) -> Answer {
        self.send(TestRequest::get().uri(path).insert_header(("x-xos-live", "1"))).await
    }

    /// Sends a form of the last page.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let token = self.token.borrow().clone();
        let mut all = vec![("csrf", token.as_str())];
        all.extend_from_slice(fields);
        self.post_exactly(path, &all).await
    }

    /// Sends a form without adding anything.
    pub async fn post_exactly(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body = serde_urlencoded::to_string(fields).unwrap();
        let request = TestRequest::post()
            .uri(path)
            .insert_header(("origin", "null"))
            .insert_header(("sec-fetch-site", "same-origin"))
            .insert_header(("content-type", "application/x-www-form-urlencoded"))
            .set_payload(body);
        self.send(request).await
    }

    /// Begins to download a file.
    pub async fn download(&self, path: &str) -> Download {
        let response = self.answer(TestRequest::get().uri(path)).await;
        assert_eq!(response.status().as_u16(), 200);
        Download { body: response.into_body() }
    }

    async fn answer(&self, request: TestRequest) -> ServiceResponse<BoxBody> {
        let cookies: Vec<String> =
            self.cookies.borrow().iter().map(|(k, v)| format!("{k}={v}")).collect();
        let request = request
            .insert_header(("host", HOST))
            .insert_header(("accept", "text/html"))
            .insert_header(("cookie", cookies.join("; ")))
            .peer_addr("192.0.2.7:50000".parse().unwrap());
        (self.call)(request).await
    }

    /// Status and headers of what comes back; the body, which may have no end, is left.
    pub async fn head(&self, request: TestRequest) -> (u16, Vec<(String, String)>) {
        let response = self.answer(request).await;
        let text = |v: &actix_web::http::header::HeaderValue| v.to_str().unwrap().to_owned();
        let headers = response.headers().iter().map(|(k, v)| (k.to_string(), text(v))).collect();
        (response.status().as_u16(), headers)
    }

    /// Sends a request with this browser's cookies, and keeps those that come back.
    pub async fn send(&self, request: TestRequest) -> Answer {
        let response = self.answer(request).await;
        let status = response.status().as_u16();
        let text = |v: &actix_web::http::header::HeaderValue| v.to_str().unwrap().to_owned();
        let headers: Vec<(String, String)> =
            response.headers().iter().map(|(k, v)| (k.to_string(), text(v))).collect();
        for (_, line) in headers.iter().filter(|(k, _)| k == "set-cookie") {
            let (name, rest) = line.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            let mut cookies = self.cookies.borrow_mut();
            match line.contains("Max-Age=0") {
                true => cookies.remove(name),
                false => cookies.insert(name.into(), value.into()),
            };
        }
        let body = test::read_body(response).await;
        let body = String::from_utf8(body.to_vec()).unwrap();
        if let Some((_, rest)) = body.split_once("name=\"csrf\" value=\"") {
            *self.token.borrow_mut() = rest.split('"').next().unwrap().to_owned();
        }
        Answer { status, headers, body }
    }
}
