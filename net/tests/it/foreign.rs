//! What another site's page makes a browser send, with the certificate that the browser holds.

use crate::router;
use crate::world::{Core, Site, membership};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use xos_api::{Done, request};
use xos_net::tls::{ALPN_HTTP, client_config};
use xos_net::trust::core_name;
use xos_net::{Identity, IdentityCell};

/// A change that needs no body.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Act {}
request!(Act => Done, Post "/v1/act");

/// The status of `POST /v1/act` with these header fields, by the certificate of `identity`.
async fn acts(core: &Core, identity: &Identity, fields: &str, body: &str) -> u16 {
    let cell = IdentityCell::new(identity.clone());
    let tls = client_config(Some(&cell), &core.descriptor_trust(), &[ALPN_HTTP]).unwrap();
    let name = core_name(&core.descriptor.site).try_into().unwrap();
    let tcp = TcpStream::connect(core.address).await.unwrap();
    let mut stream = TlsConnector::from(tls).connect(name, tcp).await.unwrap();
    let length = body.len();
    let request = format!(
        "POST /v1/act HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{fields}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    std::str::from_utf8(&head[9..]).unwrap().parse().unwrap()
}

/// If it failed, an empty form on any page in the web would approve, hand over or cancel what the
/// person who looks at it may.
#[tokio::test(flavor = "multi_thread")]
async fn a_form_on_another_page_does_nothing_by_a_certificate() {
    let (site, done) = (Site::new("rennes"), Arc::new(AtomicUsize::new(0)));
    let (mut router, count) = (router(), done.clone());
    router.on::<Act, _, _>(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Ok(Done {}) }
    });
    let core = Core::start(&site, &[], router).await;
    let alice = site.issue(&[], Some(&membership("demo.rennes", 2)));
    let json = "content-type: application/json\r\n";
    let from = |site: &str| format!("{json}sec-fetch-site: {site}\r\n");
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    for (fields, body, status) in [
        (String::new(), "", 415),
        (form.to_owned(), "", 415),
        (form.to_owned(), "a=b", 415),
        ("content-type: text/plain\r\n".to_owned(), "{}", 415),
        (from("cross-site"), "", 403),
        (from("same-site"), "{}", 403),
    ] {
        assert_eq!(acts(&core, &alice, &fields, body).await, status, "{fields}{body}");
    }
    assert_eq!(done.load(Ordering::SeqCst), 0);
    for fields in [json.to_owned(), from("same-origin"), from("none")] {
        assert_eq!(acts(&core, &alice, &fields, "").await, 200, "{fields}");
    }
    assert_eq!(done.load(Ordering::SeqCst), 3);
}
