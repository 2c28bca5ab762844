//! Every page, with every text hostile: escaped, well formed, with all headers.

use crate::html::{check, elements};
use crate::world::{Answer, Browser, World};
use std::path::Path;
use std::sync::atomic::Ordering;

/// Breaks out of texts and attributes wherever one is not escaped.
pub const HOSTILE: &str = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&amp;{{7*7}}";

const PAGES: &[(&str, &str)] = &[
    ("home", "/"),
    ("directory", "/vos"),
    ("account", "/account"),
    ("vo", "/vo/demo.rennes"),
    ("vo_other", "/vo/open.rennes"),
    ("members", "/vo/demo.rennes/members"),
    ("member", "/vo/demo.rennes/member/milo@rennes"),
    ("member_suspended", "/vo/demo.rennes/member/susi@rennes"),
    ("member_remove", "/vo/demo.rennes/member/milo@rennes/remove"),
    ("applications", "/vo/demo.rennes/applications"),
    ("groups", "/vo/demo.rennes/groups"),
    ("group_delete", "/vo/demo.rennes/group/physics/delete"),
    ("shares", "/vo/demo.rennes/shares"),
    ("jobs", "/jobs"),
    ("jobs_vo", "/jobs?vo=demo.rennes"),
    ("submit", "/submit?vo=demo.rennes"),
    ("job_running", "/vo/demo.rennes/job/1.rennes"),
    ("job_ended", "/vo/demo.rennes/job/2.rennes?show=failed"),
    ("job_cancel", "/vo/demo.rennes/job/1.rennes/cancel"),
    ("unit", "/vo/demo.rennes/unit/1.rennes:0"),
    ("rules", "/vo/demo.rennes/rules?what=run&site=rennes&person=milo@rennes"),
    ("rule_form", "/vo/demo.rennes/rules/change?rule=night"),
    ("rule_remove", "/vo/demo.rennes/rules/remove?rule=night"),
    ("running", "/vo/demo.rennes/running"),
    ("audit", "/vo/demo.rennes/audit"),
    ("audit_mine", "/audit"),
    ("trouble", "/vo/demo.rennes/job/8.rennes"),
    ("why", "/vo/demo.rennes/why?node=n1.rennes&person=milo@rennes"),
];

fn headers(page: &Answer) {
    let policy = page.header("content-security-policy");
    for part in [
        "default-src 'none'",
        "style-src 'self'",
        "img-src 'self'",
        "script-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    assert_eq!(page.header("x-frame-options"), "DENY");
    assert_eq!(page.header("cache-control"), "no-store");
    assert!(page.header("strict-transport-security").starts_with("max-age="));
}

/// Compares with `tests/golden/<name>.html`; `XOS_BLESS=1` writes it.
pub fn golden(name: &str, html: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.html"));
    // The files' version changes with each of their changes, and says nothing here.
    let mut text = String::new();
    for (i, part) in html.split("?v=").enumerate() {
        let part = if i == 0 { part } else { part.trim_start_matches(|c| c != '"') };
        text.push_str(part);
    }
    if std::env::var_os("XOS_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    if want != text {
        let line = want.lines().zip(text.lines()).position(|(a, b)| a != b);
        panic!("{name} differs from {path:?} at line {line:?}; XOS_BLESS=1 writes it anew\n{text}");
    }
}

/// Hostile texts came out as text, with all headers.
pub fn escaped(name: &str, page: &Answer) {
    headers(page);
    check(&page.body);
    assert!(!page.body.contains("<script>") && !page.body.contains("<img"), "{name}");
    assert!(!page.body.contains("alert(1)</"), "{name}");
}

#[actix_web::test]
async fn hostile_texts_come_out_as_text_on_every_page() {
    let world = World::new(HOSTILE);
    let vera = world.signed_in("vera").await;
    for (name, path) in PAGES {
        let page = vera.get(path).await;
        let want = if *name == "trouble" { 404 } else { 200 };
        assert_eq!(page.status, want, "{name}: {}", page.body);
        escaped(name, &page);
        golden(name, &page.body);
    }
    let shown = |name: &str| {
        let path = format!("{}/tests/golden/{name}.html", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    for name in ["home", "vo", "applications", "shares", "job_ended", "job_running", "trouble"] {
        assert!(shown(name).contains("&#60;script&#62;alert(1)"), "{name} does not show the text");
    }
}

#[actix_web::test]
async fn what_is_typed_comes_back_escaped() {
    let world = World::new("text");
    let browser = world.browser().await;
    let page = browser.get(&format!("/sign-in?next={}", encoded(HOSTILE))).await;
    escaped("sign-in", &page);
    golden("sign_in", &page.body);
    let page = browser.post("/sign-in", &[("user", HOSTILE), ("password", HOSTILE)]).await;
    escaped("sign-in again", &page);
    let vera = world.signed_in("vera").await;
    vera.get("/").await;
    for field in ["vo", "name", "command", "array", "cpus", "memory", "minutes"] {
        let fields = [(field, HOSTILE), ("vo", "demo.rennes"), ("command", "a")];
        let page = vera.post("/submit", &fields).await;
        if page.status != 303 {
            assert_eq!(page.status, 400, "{field}: {}", page.body);
            escaped(field, &page);
        }
    }
    for (path, field) in [
        ("/vo/demo.rennes/groups", "name"),
        ("/vo/demo.rennes/member/milo@rennes/grant", "role"),
        ("/vo/demo.rennes/share/pisa/accept", "version"),
        ("/vo/demo.rennes/rules/change", "name"),
    ] {
        let page = vera.post(path, &[(field, HOSTILE)]).await;
        assert_eq!(page.status, 400, "{path}");
        escaped(path, &page);
    }
    let page = vera.get(&format!("/jobs?vo={}", encoded(HOSTILE))).await;
    escaped("query", &page);
}

fn encoded(text: &str) -> String {
    serde_urlencoded::to_string([("x", text)]).unwrap()[2..].to_owned()
}

#[actix_web::test]
async fn who_does_not_administer_sees_no_forms_and_is_refused_by_the_api() {
    let world = World::new("text");
    let milo = world.signed_in("milo").await;
    for path in [
        "/vo/demo.rennes",
        "/vo/demo.rennes/members",
        "/vo/demo.rennes/member/susi@rennes",
        "/vo/demo.rennes/groups",
        "/vo/demo.rennes/shares",
    ] {
        let page = milo.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        let forms: Vec<_> = elements(&page.body)
            .into_iter()
            .filter(|e| e.name == "form" && e.get("id") != Some("sign-out-form"))
            .collect();
        assert!(forms.is_empty(), "{path}: {forms:?}");
        assert!(!page.body.contains("/applications"), "{path}");
    }
    assert_eq!(milo.get("/vo/demo.rennes/applications").await.status, 403);
    for (path, fields) in ADMIN_FORMS {
        let page = milo.post(path, fields).await;
        assert_eq!(page.status, 403, "{path}");
        assert!(page.body.contains("You may not do this"), "{path}");
        assert!(
            page.body.contains("That takes an administrator of the VO or an owner of the VO."),
            "{path}"
        );
    }
    assert!(world.fake.done.lock().unwrap().is_empty());
}

const ADMIN_FORMS: &[(&str, &[(&str, &str)])] = &[
    (
        "/vo/demo.rennes/application/nina@rennes/approve",
        &[("groups", "physics"), ("roles", "admin")],
    ),
    ("/vo/demo.rennes/application/nina@rennes/reject", &[("reason", "no")]),
    ("/vo/demo.rennes/member/milo@rennes/suspend", &[("reason", "no")]),
    ("/vo/demo.rennes/member/susi@rennes/resume", &[]),
    ("/vo/demo.rennes/member/susi@rennes/remove", &[("reason", "no")]),
    ("/vo/demo.rennes/member/susi@rennes/grant", &[("role", "admin")]),
    ("/vo/demo.rennes/member/susi@rennes/withdraw", &[("role", "admin")]),
    ("/vo/demo.rennes/member/susi@rennes/add", &[("group", "press")]),
    ("/vo/demo.rennes/member/susi@rennes/drop", &[("group", "physics")]),
    ("/vo/demo.rennes/groups", &[("name", "chess")]),
    ("/vo/demo.rennes/group/physics/delete", &[]),
    ("/vo/demo.rennes/share/pisa/accept", &[("version", "2")]),
    ("/vo/demo.rennes/share/pisa/refuse", &[("version", "2"), ("reason", "no")]),
];

#[actix_web::test]
async fn an_administrators_forms_do_what_they_say() {
    let world = World::new("text");
    let vera = world.signed_in("vera").await;
    vera.get("/").await;
    for (path, fields) in ADMIN_FORMS {
        let page = vera.post(path, fields).await;
        assert_eq!(page.status, 303, "{path}: {}", page.body);
        let page = vera.get(page.header("location")).await;
        assert!(page.body.contains("id=\"notice\""), "{path} says nothing");
    }
    let done = world.fake.done.lock().unwrap().join("\n");
    let mut want = vec![];
    for (what, part) in [
        ("Approve", "nina@rennes"),
        ("Reject", "reason: \"no\""),
        ("SuspendMember", "milo"),
        ("ResumeMember", "susi"),
        ("RemoveMember", "susi"),
        ("GrantRole", "admin"),
        ("WithdrawRole", "admin"),
        ("AddToGroup", "press"),
        ("RemoveFromGroup", "physics"),
        ("CreateGroup", "chess"),
        ("DeleteGroup", "physics"),
        ("AcceptShare", "version: 2"),
        ("RefuseShare", "version: 2"),
    ] {
        let start = format!("vera@rennes {what} ");
        let found = done.lines().any(|l| l.starts_with(&start) && l.contains(part));
        if !found {
            want.push(what);
        }
    }
    assert!(want.is_empty(), "missing {want:?} in\n{done}");
}

#[actix_web::test]
async fn a_newcomer_applies_and_is_told_what_comes_next() {
    let world = World::new("text");
    let nina = world.signed_in("nina").await;
    let page = nina.get("/").await;
    assert!(page.body.contains("You are not a member of a virtual organization"));
    assert!(page.body.contains("/vo/open.rennes#apply"));
    assert!(nina.get("/jobs").await.body.contains("Choose one and apply."));
    assert!(nina.get("/submit").await.body.contains("Choose one and apply."));
    nina.get("/vo/open.rennes").await;
    let page = nina.post("/vo/open.rennes/apply", &[("message", "I make\r\npictures")]).await;
    assert_eq!(page.header("location"), "/vo/open.rennes");
    let done = world.fake.done.lock().unwrap()[0].clone();
    assert!(done.starts_with("nina@rennes Apply") && done.contains("I make\\npictures"), "{done}");
    let milo = world.signed_in("milo").await;
    assert!(milo.get("/").await.body.contains("Waits for its administrators"));
    let page = milo.get("/vo/open.rennes").await;
    assert!(page.body.contains("withdraw-form"), "{}", page.body);
    assert_eq!(milo.post("/vo/open.rennes/withdraw", &[]).await.status, 303);
}

#[actix_web::test]
async fn a_job_is_submitted_followed_and_cancelled() {
    let world = World::new("text");
    let milo = world.signed_in("milo").await;
    milo.get("/submit").await;
    let fields = [("vo", "demo.rennes"), ("command", "/bin/echo 'a b'"), ("array", "0-3")];
    let page = milo.post("/submit", &fields).await;
    assert_eq!(page.header("location"), "/vo/demo.rennes/job/7.rennes");
    let done = world.fake.done.lock().unwrap()[0].clone();
    assert!(done.contains("argv: [\"/bin/echo\", \"a b\"]"), "{done}");
    let events = milo.get_live("/vo/demo.rennes/job/1.rennes/events?after=4").await;
    assert_eq!(events.header("content-type"), "application/x-ndjson");
    let last = events.body.lines().last().unwrap();
    let want = r#"{"seq":6,"state":"done","counts":"1 done","ended":1,"total":1,"over":true}"#;
    assert_eq!(last, want);
    milo.get("/vo/demo.rennes/job/1.rennes/cancel").await;
    let page = milo.post("/vo/demo.rennes/job/1.rennes/cancel", &[]).await;
    assert_eq!(page.status, 303);
    assert!(milo.get(page.header("location")).await.body.contains("2 units are being ended"));
}

#[actix_web::test]
async fn nothing_is_streamed_after_signing_out() {
    let world = World::new("text");
    let milo = world.signed_in("milo").await;
    milo.get("/").await;
    // Job 3 never says anything: only its session's end ends the stream.
    let (events, _) = futures_util::future::join(
        milo.get_live("/vo/demo.rennes/job/3.rennes/events"),
        milo.post("/sign-out", &[]),
    )
    .await;
    assert!(events.body.trim().is_empty());
}

#[actix_web::test]
async fn output_is_shown_from_its_end_and_kept_as_plain_text() {
    let world = World::new("text");
    let milo = world.signed_in("milo").await;
    let lines: String = (0..100_000).map(|i| format!("line {i}\n")).collect();
    *world.fake.output.lock().unwrap() = lines.clone().into_bytes();
    let page = milo.get("/vo/demo.rennes/unit/1.rennes:0").await;
    check(&page.body);
    assert!(page.body.contains("line 99999\n</pre>"), "the end is missing");
    assert!(!page.body.contains("line 50000\n"), "more than the end is shown");
    assert!(page.body.contains("stand before it"));
    let file = milo.get("/vo/demo.rennes/unit/1.rennes:0/stdout.txt").await;
    assert_eq!(file.header("content-type"), "text/plain; charset=utf-8");
    let name = "attachment; filename=\"1.rennes-0.stdout.txt\"";
    assert_eq!(file.header("content-disposition"), name);
    assert_eq!(file.header("x-content-type-options"), "nosniff");
    assert_eq!(file.body, lines);
    let none = milo.get("/vo/demo.rennes/unit/1.rennes:0/stderr.txt").await;
    assert_eq!(none.status, 404, "what cannot be read is a page that says so");
    check(&none.body);
}

/// If it failed, what somebody may no longer see would still come to their browser, or a file that
/// was cut off would be kept as if it were whole.
#[actix_web::test]
async fn a_download_breaks_off_with_the_session_or_the_membership() {
    const ALL: usize = 8 << 20;
    const PATH: &str = "/vo/demo.rennes/unit/1.rennes:0/stdout.txt";
    let world = World::new("text");
    *world.fake.output.lock().unwrap() = vec![b'x'; ALL];
    let milo = world.signed_in("milo").await;
    let mut file = milo.download(PATH).await;
    let first = file.part().await.unwrap().unwrap();
    // A membership that changed is looked up anew, and goes on.
    world.fake.epoch.store(2, Ordering::SeqCst);
    let issued = world.fake.issued.load(Ordering::SeqCst);
    assert_eq!(file.rest().await, (ALL - first, true));
    assert!(world.fake.issued.load(Ordering::SeqCst) > issued, "an old token went on");

    let mut file = milo.download(PATH).await;
    let first = file.part().await.unwrap().unwrap();
    world.fake.suspended.store(true, Ordering::SeqCst);
    world.fake.epoch.store(3, Ordering::SeqCst);
    let (more, complete) = file.rest().await;
    assert!(!complete && first + more < ALL, "{more} bytes more for a suspended member");
    world.fake.suspended.store(false, Ordering::SeqCst);

    let mut file = milo.download(PATH).await;
    let first = file.part().await.unwrap().unwrap();
    milo.get("/").await;
    assert_eq!(milo.post("/sign-out", &[]).await.status, 303);
    let (more, complete) = file.rest().await;
    assert!(!complete && first + more < ALL, "{more} bytes more after signing out");
}

#[actix_web::test]
async fn the_consoles_own_files_are_there_and_name_no_other_host() {
    let world = World::new("text");
    let browser: Browser = world.browser().await;
    for name in ["console.css", "console.js", "logo.svg"] {
        let file = browser.get(&format!("/static/{name}")).await;
        assert_eq!(file.status, 200, "{name}");
        assert_eq!(file.header("x-content-type-options"), "nosniff");
        let text = file.body.replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("://") && !text.contains("url(") && !text.contains("@import"));
    }
    assert_eq!(browser.get("/static/../Cargo.toml").await.status, 404);
    assert_eq!(browser.get("/static/none").await.status, 404);
}
