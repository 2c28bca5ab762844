//! People's streams to nodes: to their sshd, and to nothing else.

use crate::world::{Core, Site, membership};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xos_base::Kind;
use xos_net::dial::Dialer;
use xos_net::tls::ALPN_SSH;
use xos_net::{Identity, IdentityCell};

async fn dial(core: &Core, who: Identity, alpn: &[u8]) -> Result<String, Kind> {
    let dialer = Dialer::new(core.trust.clone(), IdentityCell::new(who));
    let node = "n1.rennes".parse().unwrap();
    let mut stream = dialer.node(&node, alpn).await.map_err(|e| e.kind)?;
    let mut got = Vec::new();
    // Who is refused is hung up on, perhaps in the middle of this.
    let exchange = async {
        stream.write_all(b"hello").await?;
        stream.shutdown().await?;
        stream.read_to_end(&mut got).await
    };
    match exchange.await {
        Ok(_) | Err(_) => Ok(String::from_utf8(got).unwrap()),
    }
}

/// If it failed, people could not reach the sshd of a node without inbound ports, or a member's
/// certificate would reach the objects of other people's files there.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_reaches_the_sshd_of_a_node_and_nothing_else() {
    let (rennes, pisa) = (Site::new("rennes"), Site::new("pisa"));
    let core = Core::start(&rennes, &[], crate::router()).await;
    let _control = crate::node(&rennes, &core).await;
    let alice = |epoch| rennes.issue(&[], Some(&membership("demo.rennes", epoch)));
    let got = dial(&core, alice(2), ALPN_SSH).await;
    assert_eq!(got.as_deref(), Ok("alice@rennes of demo.rennes:hello"));
    assert_eq!(dial(&core, alice(2), b"echo/1").await.as_deref(), Ok(""));
    // The core lets nobody through who may not act: an old epoch, a site that it does not trust.
    assert!(dial(&core, alice(1), ALPN_SSH).await.is_err());
    let mallory = pisa.issue(&[], Some(&membership("demo.pisa", 2)));
    assert!(dial(&core, mallory, ALPN_SSH).await.is_err());
}
