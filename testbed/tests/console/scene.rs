//! VOs whose every text is hostile, with somebody of each sort in them.

use crate::texts::{hostile, long};
use crate::{VO, World, person, tool};
use serde_json::{Value, json};
use xos_testbed::Output;
use xos_testbed::grid::Person;

/// The VO of the hostile texts; the first one in lists, so that it is looked at before others.
pub const ACID: &str = "acid.rennes";

/// Who is in [`ACID`], beside its owner vera and its member milo.
pub struct Cast {
    /// Administers it.
    pub anna: Person,
    /// Manages the group `physics`.
    pub greta: Person,
    /// Is suspended.
    pub susi: Person,
    /// Applied, and waits.
    pub nina: Person,
    /// Is in no VO.
    pub noor: Person,
    /// Where whoever is invited opens the console.
    pub join: String,
}

/// Makes all of it, by the tool.
pub fn set(world: &World) -> Cast {
    let comes = |name: &str| {
        let person = person(&world.grid, &world.rennes, name);
        tool(&world.grid, &world.rennes, &person);
        person
    };
    tool(&world.grid, &world.rennes, &world.milo);
    let [anna, greta, susi, nina] = ["anna", "greta", "susi", "nina"].map(comes);
    let [noor, otto, paul] = ["noor", "otto", "paul"].map(comes);
    found(world);
    let members: [(&Person, &[&str]); 5] = [
        (&world.milo, &[]),
        (&anna, &["--role", "admin"]),
        (&greta, &["--group", "physics"]),
        (&susi, &[]),
        (&otto, &[]),
    ];
    for (person, more) in members {
        by(world, person, &["apply", ACID, "-m", "me too"]);
        vera(world, &[&["approve", ACID, &person.id()], more].concat());
    }
    vera(world, &["group", "manage", ACID, "physics", &greta.id()]);
    let reason = long("SuspendMember", "reason");
    vera(world, &["suspend", ACID, &susi.id(), "-m", &reason]);
    vera(world, &["remove", ACID, &otto.id(), "-m", &long("RemoveMember", "reason")]);
    let join = asks(world, &nina, &paul);
    rules(world);
    clients(world);
    cluster(world);
    ends(world);
    Cast { anna, greta, susi, nina, noor, join }
}

/// `xos vo …` as somebody.
fn by(world: &World, person: &Person, args: &[&str]) -> String {
    world.grid.xos(person, &[&["vo"], args].concat()).unwrap_or_else(|e| panic!("{args:?}: {e}"))
}

fn vera(world: &World, args: &[&str]) -> String {
    by(world, &world.vera, args)
}

/// As vera, with something to read.
fn vera_says(world: &World, args: &[&str], said: &str) {
    let cmd = world.vera.command("xos").args([&["vo"], args].concat()).stdin(said.as_bytes());
    let laptop = world.grid.laptop().expect("the laptop");
    laptop.run(&cmd).and_then(Output::ok).unwrap_or_else(|e| panic!("{args:?}: {e}"));
}

/// The site's administrator.
fn ada(world: &World, args: &[&str]) -> String {
    world.rennes.admin(args).unwrap_or_else(|e| panic!("{args:?}: {e}"))
}

fn offers(world: &World, vo: &str) {
    ada(world, &["vo", "share", "offer", vo, "--cpus", "1", "--memory", "1G"]);
}

fn found(world: &World) {
    let (title, text) = (long("FoundVo", "title"), long("FoundVo", "description"));
    vera(world, &["found", "acid", "--title", &title, "--description", &text]);
    offers(world, ACID);
    vera(world, &["share", "accept", ACID, "rennes"]);
    vera(world, &["group", "create", ACID, "physics"]);
    vera(world, &["group", "create", ACID, "optics", "--in", "physics"]);
}

/// Terms, questions, who answers them, and an invitation; the path that it leads to.
fn asks(world: &World, nina: &Person, paul: &Person) -> String {
    let terms = long("SetTermsOfUse", "text");
    vera_says(world, &["terms", "set", ACID, "-", "--grace-days", "30"], &terms);
    let questions = json!([
        {
            "id": "about", "kind": "text", "required": true,
            "text": long("SetQuestions", "questions.text"),
        },
        {
            "id": "sort", "kind": "choice", "text": "Which?",
            "choices": [hostile("SetQuestions", "questions.choices"), "other"],
        },
    ]);
    vera_says(world, &["questions", "set", ACID, "-"], &questions.to_string());
    let about = format!("about={}", long("Apply", "answers.value"));
    let saying = ["--agree", "--answer", &about];
    for (person, message) in [(nina, long("Apply", "message")), (paul, "me too".to_owned())] {
        by(world, person, &[&["apply", ACID, "-m", &message], &saying[..]].concat());
    }
    vera(world, &["reject", ACID, &paul.id(), "-m", &long("Reject", "reason")]);
    let hint = long("Invite", "hint");
    let invited = vera(world, &["invite", ACID, "--uses", "9", "--ask", "--note", &hint, "--json"]);
    let invited: Value = serde_json::from_str(&invited).expect("JSON");
    let path = format!("/join/{ACID}/{}", invited["secret"].as_str().expect("a secret"));
    let link = format!("https://rennes-core{path}");
    let message = long("Join", "message");
    by(world, paul, &[&["join", &link, "-m", &message], &saying[..]].concat());
    path
}

/// Rules that allow everything, so that nobody is in the way of the others.
fn rules(world: &World) {
    let all = |request: &str| {
        let note = long(request, "rules.note");
        let rule = json!({
            "name": "everything", "who": "*", "what": "*", "effect": "allow", "note": note,
        });
        json!({ "rules": [rule] }).to_string()
    };
    vera_says(world, &["rules", "set", ACID, "-"], &all("SetVoRules"));
    let admin = &world.rennes.admin;
    let set = admin.command("xos").args(["site", "rules", "set", "-"]);
    let set = set.stdin(all("SetSiteRules").into_bytes());
    world.rennes.core.run(&set).and_then(Output::ok).expect("the site's rules");
}

fn clients(world: &World) {
    let name = hostile("CreateClient", "name");
    let redirect = "http://127.0.0.1/back";
    ada(world, &["site", "client", "add", &name, "--redirect", redirect]);
}

/// A cluster with a node that has not joined it.
fn cluster(world: &World) {
    ada(world, &["cluster", "create", "c1"]);
    ada(world, &["cluster", "add", "c1", "n1"]);
}

/// VOs that are suspended or dissolved, and shares that ended.
fn ends(world: &World) {
    offers(world, VO);
    vera(world, &["share", "refuse", VO, "rennes", "-m", &long("RefuseShare", "reason")]);
    for label in ["halted", "ended"] {
        vera(world, &["found", label, "--title", label]);
        let vo = format!("{label}.rennes");
        offers(world, &vo);
        vera(world, &["share", "accept", &vo, "rennes"]);
    }
    let reason = long("WithdrawShare", "reason");
    ada(world, &["vo", "share", "withdraw", "halted.rennes", "-m", &reason]);
    let reason = long("EndShare", "reason");
    vera(world, &["share", "end", "ended.rennes", "rennes", "-m", &reason]);
    vera(world, &["suspend-vo", "halted.rennes", "-m", &long("SuspendVo", "reason")]);
    let reason = long("DissolveVo", "reason");
    vera(world, &["dissolve", "ended.rennes", "-m", &reason, "--confirm", "ended.rennes"]);
}

/// A command that says, to whoever looks at the job, what it was told.
pub fn command() -> String {
    let text = long("SubmitJob", "spec.tasks.argv").replace('"', "\\\"");
    format!("/bin/echo \"{text}\"")
}

/// A name for a job.
pub fn job() -> String {
    long("SubmitJob", "spec.name")
}
