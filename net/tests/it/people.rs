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
    assert_eq!(dial(&core, alice(1), ALPN_SSH).await, Err(Kind::Unauthenticated));
    let mallory = pisa.issue(&[], Some(&membership("demo.pisa", 2)));
    assert!(dial(&core, mallory, ALPN_SSH).await.is_err());
}

/// If it failed, a member who is suspended, or whose certificate is of before a change, would read
/// "the core closed the connection" for ever: neither would they learn why, nor their program that
/// a new certificate helps.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_who_may_not_act_is_told_why() {
    let rennes = Site::new("rennes");
    let core = Core::start(&rennes, &[], crate::router()).await;
    let _control = crate::node(&rennes, &core).await;
    let old = rennes.issue(&[], Some(&membership("demo.rennes", 1)));
    let dialer = Dialer::new(core.trust.clone(), IdentityCell::new(old));
    // Again and again: a reason that gets lost on the way does so now and then only.
    for _ in 0..20 {
        let told = dialer.node(&"n1.rennes".parse().unwrap(), ALPN_SSH).await;
        let told = told.err().expect("an old certificate opened a stream");
        assert_eq!(told.kind, Kind::Unauthenticated, "{told}");
        assert!(told.to_string().contains("your membership changed"), "{told}");
    }
}
