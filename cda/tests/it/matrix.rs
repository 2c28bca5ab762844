//! Who may ask for what: the whole table, kept in `matrix.txt`. `XOS_BLESS=1` writes it anew.

use crate::world::{World, certificate_request, keyed, member};
use std::collections::BTreeSet;
use std::fmt::Write;
use xos_api::cda::{
    AcceptTrust, Authorization, BeginNodeLogin, BeginPasskey, CertifyHost, CheckNodePassword,
    CreateClient, CreateJoinToken, CreatePerson, CreateSignInCode, DecideAuthorization,
    DecideDevice, EndGrants, FinishPasskey, Flow, ForgetSite, IssueClusterMandate,
    IssueLoginMandate, IssueMandate, IssueTicket, IssueToken, IssueVouchedMandate, JoinMachine,
    KerberosToken, LinkIdentity, LinkKerberos, ListClients, ListGrants, ListIdentities,
    ListMachines, ListPasskeys, ListPeople, ListSites, MandateProof, NodeLogin, OfferTrust,
    Password, PollNodeLogin, ReadOffer, RecoverPerson, RemoveClient, RemoveNode, RemovePasskey,
    RenewMachine, RenewToken, Secret, SetPassword, SetPerson, SetSecondFactor, ShowAuthorization,
    ShowDevice, UnlinkIdentity, WebAuthn, WhoAmI,
};
use xos_api::site::SiteChanged;
use xos_api::{Method, Request};
use xos_base::Error;
use xos_base::when::Clock;
use xos_net::{Caller, Router};

/// `yes` when the caller was let in; what was wrong with the request afterwards is not the point.
fn word<T>(result: Result<T, Error>, refusals: &[&str]) -> &'static str {
    match result {
        Err(e) if refusals.iter().any(|r| e.message.contains(r)) => "-",
        _ => "yes",
    }
}

/// A request as the router knows it.
fn place(method: Method, path: &str) -> String {
    format!("{} {path}", method.as_str())
}

fn place_of<R: Request>(_: &R) -> String {
    place(R::METHOD, R::PATH)
}

/// A request under a name, where it is served, and whether the caller was let in.
struct Cell {
    name: &'static str,
    place: String,
    answer: &'static str,
}

const REFUSALS: [&str; 15] = [
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
    "does not ask for",
    "has no ways to sign in",
    "has no passkeys",
    "@pisa is not known at site",
];

async fn row(w: &World, c: &Caller) -> Vec<Cell> {
    macro_rules! cells {
        ($($name:ident $r:expr;)*) => {
            vec![$({
                let r = $r;
                let place = place_of(&r);
                let answer = word(w.call(c, r).await, &REFUSALS);
                Cell { name: stringify!($name), place, answer }
            }),*]
        };
    }
    let vo = || "demo.rennes".parse().unwrap();
    let node = || "n9.rennes".parse().unwrap();
    let password = || Password("my password".into());
    let nobody = || "nobody@rennes".parse().unwrap();
    let site = || "lyon".parse().unwrap();
    let csr_pem = keyed().csr_pem;
    let alice = || "alice@rennes".parse().unwrap();
    let flow = || Flow("x".into());
    let token = || KerberosToken("x".into());
    let request = Authorization::default;
    let login = |node: &str| NodeLogin {
        node: node.parse().unwrap(),
        user: "alice.demo.rennes".into(),
        service: "sudo".into(),
        person: alice(),
        vo: None,
    };
    let attempt = |node: &str| PollNodeLogin {
        node: node.parse().unwrap(),
        person: alice(),
        attempt: Secret("x".into()),
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
        IssueClusterMandate IssueClusterMandate { vo: vo(), cluster: "c1.pisa".parse().unwrap() };
        VouchedMandate IssueVouchedMandate { vo: vo(), node: "n1.pisa".parse().unwrap(),
            person: "petra@pisa".parse().unwrap(), signed_in: w.clock.now() };
        IssueTicket IssueTicket { mandate: "x".into(), node: "n1.pisa".parse().unwrap(),
            node_key: "00".repeat(32) };
        IssueTicketHere IssueTicket { mandate: "x".into(), node: "n1.rennes".parse().unwrap(),
            node_key: "00".repeat(32) };
        RenewMachine RenewMachine { csr_pem: csr_pem.clone() };
        CertifyHost CertifyHost { keys: vec![] };
        CheckNodePassword CheckNodePassword { login: login("n1.rennes"), password: password() };
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
        SetPassword SetPassword { person: nobody(), present: None, password: password() };
        SiteChanged SiteChanged {};
        ListIdentities ListIdentities {};
        LinkIdentity LinkIdentity { flow: flow(), answer: None };
        UnlinkIdentity UnlinkIdentity { provider: "uni".parse().unwrap(), key: "x".into() };
        LinkKerberos LinkKerberos { token: token() };
        ListPasskeys ListPasskeys {};
        BeginPasskey BeginPasskey {};
        FinishPasskey FinishPasskey { flow: flow(), name: "x".into(),
            credential: WebAuthn(serde_json::Value::Null) };
        RemovePasskey RemovePasskey { key: "x".into() };
        SetSecondFactor SetSecondFactor { on: true };
        CreateSignInCode CreateSignInCode {};
        ListClients ListClients {};
        CreateClient CreateClient { name: String::new(), redirects: vec![], confidential: false,
            device: false, scopes: vec![], audience: None, introspect: false };
        RemoveClient RemoveClient { id: "x".into() };
        ShowAuthorization ShowAuthorization { request: request() };
        DecideAuthorization DecideAuthorization { request: request(), allow: false, vo: None };
        ShowDevice ShowDevice { user_code: "x".into() };
        DecideDevice DecideDevice { user_code: "x".into(), allow: false, vo: None };
        ListGrants ListGrants {};
        EndGrants EndGrants { client: "x".into() };
        BeginNodeLogin BeginNodeLogin { login: login("n1.pisa") };
        BeginNodeLoginHere BeginNodeLogin { login: login("n1.rennes") };
        PollNodeLogin attempt("n1.pisa");
        PollNodeLoginHere attempt("n1.rennes");
    }
}

/// Every request is served to somebody here, or to anybody: one without a row would be open to
/// callers whom nobody thought of. What is for anybody.
fn check_all(w: &World, with_rows: &BTreeSet<String>) -> BTreeSet<String> {
    let mut router = Router::new();
    w.cda.register(&mut router);
    let of = |public: bool| -> BTreeSet<String> {
        let served = router.served().filter(|(_, _, p)| *p == public);
        served.map(|(method, path, _)| place(method, path)).collect()
    };
    assert_eq!(*with_rows, of(false), "a request has no row, or a row no request");
    of(true)
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
    let (mut table, mut with_rows) = (String::new(), BTreeSet::new());
    for (name, caller) in &callers {
        writeln!(table, "{name}").unwrap();
        for Cell { name, place, answer } in row(&w, caller).await {
            writeln!(table, "    {name:<17} {answer}").unwrap();
            with_rows.insert(place);
        }
    }
    writeln!(table, "anybody, without a proof").unwrap();
    for place in check_all(&w, &with_rows) {
        writeln!(table, "    {place}").unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/matrix.txt");
    if std::env::var_os("XOS_BLESS").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(table, golden, "who may do what has changed: read the table, then XOS_BLESS=1");
}
