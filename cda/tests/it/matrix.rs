//! Who may ask for what: the whole table, kept in `matrix.txt`. `XOS_BLESS=1` writes it anew.

use crate::world::{World, certificate_request, keyed, member};
use std::fmt::Write;
use xos_api::cda::{
    AcceptTrust, CertifyHost, CheckNodePassword, CreateJoinToken, CreatePerson, ForgetSite,
    IssueLoginMandate, IssueMandate, IssueTicket, IssueToken, IssueVouchedMandate, JoinMachine,
    ListMachines, ListPeople, ListSites, MandateProof, NodeLogin, OfferTrust, Password, ReadOffer,
    RecoverPerson, RemoveNode, RenewMachine, RenewToken, SetPerson, WhoAmI,
};
use xos_base::Error;
use xos_net::Caller;

/// `yes` when the caller was let in; what was wrong with the request afterwards is not the point.
fn word<T>(result: Result<T, Error>, refusals: &[&str]) -> &'static str {
    match result {
        Err(e) if refusals.iter().any(|r| e.message.contains(r)) => "-",
        _ => "yes",
    }
}

const REFUSALS: [&str; 11] = [
    "does not administer",
    "is not a person",
    "is not a site's core",
    "is not a node",
    "nothing further is issued",
    "is not of site",
    "a certificate of",
    "is no machine of",
    "does not act in a VO",
    "is no proof for the mandate",
    "gets no ticket for",
];

async fn row(w: &World, c: &Caller) -> Vec<(&'static str, &'static str)> {
    macro_rules! cells {
        ($($name:ident $r:expr;)*) => {
            vec![$((stringify!($name), word(w.call(c, $r).await, &REFUSALS))),*]
        };
    }
    let vo = || "demo.rennes".parse().unwrap();
    let node = || "n9.rennes".parse().unwrap();
    let password = || Password("my password".into());
    let nobody = || "nobody@rennes".parse().unwrap();
    let site = || "lyon".parse().unwrap();
    let csr_pem = keyed().csr_pem;
    let login = || NodeLogin {
        node: "n1.rennes".parse().unwrap(),
        user: "nobody.demo.rennes".into(),
        service: "sudo".into(),
        person: nobody(),
        vo: None,
    };
    cells! {
        WhoAmI WhoAmI {};
        ListSites ListSites {};
        RenewToken RenewToken::default();
        IssueToken IssueToken { vo: vo(), audience: None, groups: None, roles: None };
        IssueCertificate certificate_request("demo.rennes", &csr_pem);
        IssueMandate IssueMandate { job: "1.pisa".parse().unwrap(), vo: vo(),
            digest: "00".repeat(32), proof: MandateProof::Token("x".into()) };
        IssueLoginMandate IssueLoginMandate { vo: vo(), node: "n1.pisa".parse().unwrap() };
        VouchedMandate IssueVouchedMandate { vo: vo(), node: "n1.pisa".parse().unwrap(),
            person: "petra@pisa".parse().unwrap() };
        IssueTicket IssueTicket { mandate: "x".into(), node: "n1.pisa".parse().unwrap(),
            node_key: "00".repeat(32) };
        IssueTicketHere IssueTicket { mandate: "x".into(), node: "n1.rennes".parse().unwrap(),
            node_key: "00".repeat(32) };
        RenewMachine RenewMachine { csr_pem: csr_pem.clone() };
        CertifyHost CertifyHost { keys: vec![] };
        CheckNodePassword CheckNodePassword { login: login(), password: password() };
        ListPeople ListPeople::default();
        CreatePerson CreatePerson { name: "zoe".into(), password: password(), site_admin: true };
        SetPerson SetPerson { person: nobody(), disabled: None, site_admin: None };
        CreateJoinToken CreateJoinToken { label: "n7".into() };
        ListMachines ListMachines {};
        RemoveNode RemoveNode { node: node() };
        OfferTrust OfferTrust { site: site(), fingerprint: None };
        ReadOffer ReadOffer { offer: "x".into() };
        AcceptTrust AcceptTrust { offer: "x".into(), fingerprint: "x".into() };
        ForgetSite ForgetSite { site: site() };
        RecoverPerson RecoverPerson { person: nobody() };
    }
}

#[tokio::test]
async fn who_may_ask_for_what() {
    let (w, pisa) = (World::new("rennes").await, World::new("pisa").await);
    w.trusts(&pisa);
    pisa.trusts(&w);
    let root = w.root().await;
    let alice = w.person("alice").await;
    w.vos.set(member("demo.rennes", "alice@rennes"));
    w.vos.set(member("demo.rennes", "bob@pisa"));
    let k = keyed();
    let cert = w.call(&alice, certificate_request("demo.rennes", &k.csr_pem)).await.unwrap();
    let vo = "demo.rennes".parse().unwrap();
    let token = IssueToken { vo, audience: None, groups: None, roles: None };
    let token = w.call(&alice, token).await.unwrap();
    let bob = pisa.person("bob").await;
    let bob = pisa.call(&bob, RenewToken { audience: Some(w.site.clone()) }).await.unwrap();
    let joins = w.call(&root, CreateJoinToken { label: "n1".into() }).await.unwrap();
    let join = JoinMachine { token: joins.token, csr_pem: k.csr_pem.clone() };
    let node = w.public(join).await.unwrap();
    let callers = [
        ("administrator (token)", root),
        ("person (token)", alice),
        ("person of another site (token)", w.by_token(&bob.token.token)),
        ("member (certificate)", w.by_certificate(&cert.chain_pem).unwrap()),
        ("member (token)", w.by_token(&token.token)),
        ("another site's core", w.core_of(&pisa)),
        ("node", w.by_certificate(&node.chain_pem).unwrap()),
    ];
    let mut table = String::new();
    for (name, caller) in &callers {
        writeln!(table, "{name}").unwrap();
        for (request, answer) in row(&w, caller).await {
            writeln!(table, "    {request:<18}{answer}").unwrap();
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/matrix.txt");
    if std::env::var_os("XOS_BLESS").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(table, golden, "who may do what has changed: read the table, then XOS_BLESS=1");
}
