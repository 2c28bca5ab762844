//! SSH certificates of machines: no "unknown host", and no machine that passes for another.

use crate::machines::{invite, join};
use crate::world::{World, keyed, ssh_certificate, ssh_line};
use ssh_key::certificate::CertType;
use xos_api::cda::{CertifyHost, HOST_KEYS_MAX, HostCertificates, RemoveNode};
use xos_base::when::Clock;
use xos_base::{Kind, Millis};
use xos_net::{Client, Identity};

fn lines(n: usize) -> CertifyHost {
    CertifyHost { keys: (0..n).map(|_| ssh_line()).collect() }
}

fn check(w: &World, got: &HostCertificates, asked: &CertifyHost, principals: &[&str]) {
    let keys = w.trust.ssh_keys(&w.site).unwrap();
    assert_eq!(got.certificates.len(), asked.keys.len());
    for (line, key) in got.certificates.iter().zip(&asked.keys) {
        let c = ssh_certificate(line, &keys.machines[0], w.clock.now());
        assert_eq!(c.cert_type(), CertType::Host);
        assert_eq!(c.valid_principals(), principals);
        assert!(c.extensions().is_empty());
        assert_eq!(Millis::from_secs(c.valid_before()), got.expires);
        let asked = ssh_key::PublicKey::from_openssh(key).unwrap();
        assert_eq!(c.public_key(), asked.key_data());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_certificates_for_its_own_names() {
    let w = World::new("rennes").await;
    let k = keyed();
    let joined = join(&w, &invite(&w, "n1").await, &k).await.unwrap();
    let identity = Identity::from_pem(&joined.chain_pem, &k.key.serialize_pem()).unwrap();
    let client = Client::with_identity(w.site.clone(), &w.trust, identity).unwrap();
    let ask = lines(3);
    let got = client.call(ask.clone()).await.unwrap();
    check(&w, &got, &ask, &["n1.rennes", "n1.node.rennes.xos.internal"]);
    assert_eq!(got.expires.secs(), joined.expires.secs());
}

/// If it failed, administrators would be asked whether they know the core, or it could pass for
/// another.
#[tokio::test]
async fn the_cores_own_machine_is_certified_by_its_names() {
    let w = World::with("rennes", |c| {
        c.names = vec!["grid.example".into()];
        // Beside the IP address at which it listens.
        c.addresses.push("grid.example:443".into());
        c.addresses.push("core.rennes.example:7443".into());
    })
    .await;
    let ask = lines(1);
    let got = w.cda.certify_own_host(&ask.keys).unwrap();
    let names = ["core.rennes.xos.internal", "grid.example", "core.rennes.example"];
    check(&w, &got, &ask, &names);
}

/// If it failed, who took a machine away could still pass for it, or a site for another's machine.
#[tokio::test]
async fn only_a_present_node_of_this_site_is_certified() {
    let (rennes, pisa) = (World::new("rennes").await, World::new("pisa").await);
    rennes.trusts(&pisa);
    let joined = join(&rennes, &invite(&rennes, "n1").await, &keyed()).await.unwrap();
    let node = rennes.by_certificate(&joined.chain_pem).unwrap();
    rennes.call(&node, lines(1)).await.unwrap();
    let other = join(&pisa, &invite(&pisa, "n1").await, &keyed()).await.unwrap();
    let other = rennes.by_certificate(&other.chain_pem).unwrap();
    let root = rennes.root().await;
    for stranger in [&other, &root, &rennes.core_of(&pisa)] {
        let e = rennes.call(stranger, lines(1)).await.unwrap_err();
        assert_eq!(e.kind, Kind::Denied, "{e}");
    }
    rennes.call(&root, RemoveNode { node: joined.node }).await.unwrap();
    let e = rennes.call(&node, lines(1)).await.unwrap_err();
    assert!(e.kind == Kind::Denied && e.message.contains("no machine of"), "{e}");
}

#[tokio::test]
async fn bad_host_keys_are_refused_whole() {
    let w = World::new("rennes").await;
    let joined = join(&w, &invite(&w, "n1").await, &keyed()).await.unwrap();
    let node = w.by_certificate(&joined.chain_pem).unwrap();
    w.call(&node, lines(HOST_KEYS_MAX)).await.unwrap();
    let mut mixed = lines(2);
    mixed.keys.push("ssh-dss AAAA".into());
    for bad in [lines(0), lines(HOST_KEYS_MAX + 1), mixed, CertifyHost { keys: vec!["".into()] }] {
        assert_eq!(w.call(&node, bad).await.unwrap_err().kind, Kind::Invalid);
    }
}
