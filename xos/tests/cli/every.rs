//! Every command of the tool: its help, and its JSON.

use crate::world::{Core, Person};
use clap::CommandFactory;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Command, Output};
use xos::cli::Cli;

/// Calls in an order in which they work: who makes them, their words, the exit status. Words in
/// capitals are filled in. Each command stands here at least once.
const CALLS: &[(&str, &str, i32)] = &[
    ("ada", "person add bob --password-file PASSWORD", 0),
    ("ada", "person list", 0),
    ("ada", "person disable bob", 0),
    ("ada", "person enable bob", 0),
    ("ada", "account list", 0),
    ("ada", "account link uni --device", 66),
    ("ada", "account unlink uni --yes", 66),
    ("ada", "account services", 0),
    ("ada", "account revoke 00000000000000000000000000000000", 66),
    ("bob", "site add ADDRESS --yes", 0),
    ("bob", "login bob@rennes --password-file PASSWORD", 0),
    ("bob", "id", 0),
    ("ada", "vo found demo --title Demonstration", 0),
    ("ada", "vo list", 0),
    ("bob", "vo show demo.rennes", 0),
    ("bob", "vo apply demo.rennes -m please", 0),
    ("bob", "vo withdraw demo.rennes", 0),
    ("bob", "vo apply demo.rennes", 0),
    ("ada", "vo applications demo.rennes", 0),
    ("ada", "vo reject demo.rennes bob@rennes -m no", 0),
    ("bob", "vo apply demo.rennes", 0),
    ("ada", "vo approve demo.rennes bob@rennes", 0),
    ("ada", "vo members demo.rennes", 0),
    ("ada", "vo expiry demo.rennes bob@rennes 90d", 0),
    ("ada", "vo group create demo.rennes physics", 0),
    ("ada", "vo group add demo.rennes physics bob@rennes", 0),
    ("ada", "vo group list demo.rennes", 0),
    ("ada", "vo group create demo.rennes students --in physics", 0),
    ("ada", "vo group members demo.rennes physics", 0),
    ("ada", "vo group manage demo.rennes physics bob@rennes", 0),
    ("bob", "vo group add demo.rennes students bob@rennes", 0),
    ("ada", "vo group unmanage demo.rennes physics bob@rennes", 0),
    ("ada", "vo group drop demo.rennes students bob@rennes", 0),
    ("ada", "vo group move demo.rennes students --top", 0),
    ("ada", "vo group delete demo.rennes students", 0),
    ("ada", "vo group drop demo.rennes physics bob@rennes", 0),
    ("ada", "vo group delete demo.rennes physics", 0),
    ("ada", "vo role grant demo.rennes bob@rennes admin", 0),
    ("ada", "vo role withdraw demo.rennes bob@rennes admin", 0),
    ("ada", "vo suspend demo.rennes bob@rennes -m why", 0),
    ("ada", "vo resume demo.rennes bob@rennes", 0),
    ("ada", "vo share offer demo.rennes --cpus 4 --memory 8G", 0),
    ("ada", "vo share list demo.rennes", 0),
    ("ada", "vo share refuse demo.rennes rennes -m less", 0),
    ("ada", "vo share offer demo.rennes --cpus 2 --memory 4G", 0),
    ("ada", "vo share accept demo.rennes rennes", 0),
    ("ada", "vo share served", 0),
    ("ada", "names give demo.rennes bob@rennes robert", 0),
    ("ada", "names list", 0),
    ("ada", "cluster create c1", 0),
    ("ada", "cluster add c1 n1", 0),
    ("ada", "cluster status", 0),
    ("ada", "cluster nodes c1", 0),
    ("ada", "cluster drain c1 n1 --plan", 0),
    // It never joined.
    ("ada", "cluster drain c1 n1", 73),
    ("ada", "cluster ps c1", 0),
    ("ada", "cluster top c1", 0),
    ("ada", "cluster run c1 --vo demo.rennes -- /bin/true", 69),
    ("ada", "cluster shell c1 --vo demo.rennes -- /bin/true", 69),
    ("ada", "cluster kill c1 40000", 66),
    ("ada", "cluster why c1 40000", 66),
    ("ada", "cluster migrate c1 40000 n1", 66),
    ("ada", "cluster checkpoint c1 40000", 66),
    ("ada", "cluster restart c1 1", 66),
    ("ada", "cluster cancel c1 1", 66),
    ("ada", "cluster attach c1 40000 --vo demo.rennes", 66),
    ("ada", "krg cluster status", 0),
    ("ada", "krg nodes status --cluster c1", 0),
    ("ada", "krg migrate 40000 n1", 66),
    ("ada", "krg checkpoint 40000", 66),
    ("ada", "krg restart 1 n1", 66),
    ("ada", "cluster del c1 n1 --yes", 0),
    ("ada", "krg nodes add -n n1", 0),
    ("ada", "krg nodes del -n n1 --yes", 0),
    ("bob", "file show /nowhere", 66),
    ("bob", "file close /nowhere", 66),
    ("bob", "file open /nowhere", 66),
    ("bob", "file pin /nowhere", 66),
    ("bob", "file unpin /nowhere", 66),
    ("ada", "names give demo.rennes bob@rennes --default", 0),
    ("bob", "names release robert --yes", 77),
    ("ada", "names release robert --yes", 0),
    ("ada", "names import MAP --vo demo.rennes --dry-run", 0),
    ("ada", "names import MAP --vo demo.rennes --yes", 64),
    ("ada", "names import MAP --vo demo.rennes --people PEOPLE --yes", 0),
    ("ada", "vo rules set demo.rennes RULES", 0),
    ("bob", "vo rules show demo.rennes", 0),
    ("bob", "vo rules test demo.rennes --what run --person bob@rennes", 0),
    // There is no terminal.
    ("ada", "vo rules edit demo.rennes", 64),
    ("ada", "site rules show", 0),
    ("ada", "site rules set RULES", 0),
    ("ada", "site rules edit", 64),
    ("ada", "site rules test demo.rennes --what login --group members --where node:n1.rennes", 0),
    ("ada", "token", 0),
    ("ada", "renew", 0),
    ("ada", "ssh n1.pisa", 66),
    ("ada", "scp data.txt n1.pisa:", 66),
    ("ada", "ssh-proxy n1.pisa", 66),
    ("ada", "job submit -d -- /bin/true", 0),
    ("ada", "job list", 0),
    ("ada", "vo running demo.rennes", 0),
    ("ada", "job show JOB", 0),
    ("ada", "job why JOB", 0),
    ("ada", "why job JOB", 0),
    // No node is connected.
    ("ada", "why login n1.rennes", 1),
    ("ada", "why file /nowhere", 64),
    ("ada", "job output JOB", 0),
    // Nothing of it runs.
    ("ada", "job checkpoint JOB", 73),
    ("ada", "job move JOB pisa", 73),
    ("ada", "job cancel JOB", 0),
    ("ada", "job wait JOB", 130),
    ("ada", "vo share end demo.rennes rennes", 0),
    ("ada", "vo share offer demo.rennes --cpus 1 --memory 2G", 0),
    ("ada", "vo share accept demo.rennes rennes", 0),
    ("ada", "vo share withdraw demo.rennes", 0),
    ("ada", "vo describe demo.rennes --title Phantoms", 0),
    ("ada", "vo lease demo.rennes 2h", 0),
    ("ada", "vo lease demo.rennes 3h --if-version 1", 73),
    ("ada", "vo grace demo.rennes 2h", 0),
    ("ada", "vo renewal demo.rennes 8h", 0),
    ("ada", "vo audit-files demo.rennes on", 0),
    ("ada", "vo suspend-vo demo.rennes -m why", 0),
    ("ada", "vo resume-vo demo.rennes", 0),
    ("ada", "vo terms set demo.rennes TERMS --grace-days 3", 0),
    ("bob", "vo terms show demo.rennes", 0),
    ("bob", "vo agree demo.rennes --yes", 0),
    ("ada", "vo questions set demo.rennes QUESTIONS", 0),
    ("bob", "vo questions show demo.rennes", 0),
    ("ada", "vo expiring demo.rennes --days 365", 0),
    ("ada", "vo extend demo.rennes 200d bob@rennes", 0),
    ("ada", "vo reminders demo.rennes 60 7", 0),
    ("bob", "vo history demo.rennes", 0),
    ("ada", "vo expiry demo.rennes bob@rennes never", 0),
    ("ada", "vo handover offer demo.rennes bob@rennes", 0),
    ("ada", "vo handover list demo.rennes", 0),
    ("bob", "vo handover end demo.rennes ada@rennes", 0),
    ("bob", "vo handover accept demo.rennes ada@rennes", 66),
    ("ada", "vo import LINES demo.rennes --dry-run", 0),
    ("ada", "vo import LINES demo.rennes --yes --skip-bad", 0),
    ("ada", "vo expected list demo.rennes", 0),
    ("ada", "vo expected drop demo.rennes carol@rennes", 0),
    ("ada", "vo export demo.rennes -o EXPORT --log", 0),
    ("ada", "vo dissolve demo.rennes -m over --confirm demo.rennes", 0),
    ("ada", "vo dissolve demo.rennes --undo", 0),
    ("ada", "vo remove demo.rennes bob@rennes", 0),
    ("ada", "vo invite demo.rennes --uses 2", 0),
    ("bob", "vo join LINK --agree --answer institute=Rennes", 0),
    ("ada", "vo enrolment demo.rennes bob@rennes", 0),
    ("ada", "vo invitations demo.rennes", 0),
    ("ada", "vo uninvite demo.rennes INVITATION", 0),
    ("ada", "audit --limit 5 --since 1d", 0),
    ("bob", "audit --vo demo.rennes --site rennes", 0),
    ("ada", "audit heads", 0),
    ("ada", "audit verify", 0),
    ("ada", "node token n1", 0),
    ("ada", "node list", 0),
    // This machine is no node.
    ("ada", "node accounts check", 64),
    ("ada", "node remove n9 --yes", 66),
    ("ada", "site list", 0),
    ("ada", "site list --local", 0),
    ("ada", "site offer pisa", 0),
    ("ada", "site accept OFFER --fingerprint PRINT --yes", 0),
    ("ada", "site forget pisa --yes", 0),
    ("ada", "site client add Wiki --redirect https://wiki.example/back --confidential", 0),
    ("ada", "site client list", 0),
    ("ada", "site client remove 00000000000000000000000000000000 --yes", 66),
    ("bob", "person passwd --present-file PASSWORD --password-file NEW", 0),
    ("bob", "login --password-file NEW", 0),
    ("bob", "logout", 0),
    ("ada", "person recover bob", 0),
];

/// The commands that do something, and the groups of commands, as they are written after `xos`.
fn leaves_and_groups() -> (Vec<String>, Vec<String>) {
    fn walk(
        command: &clap::Command,
        path: &str,
        leaves: &mut Vec<String>,
        groups: &mut Vec<String>,
    ) {
        for sub in command.get_subcommands() {
            let path = format!("{path} {}", sub.get_name()).trim().to_owned();
            match sub.get_subcommands().next() {
                Some(_) => {
                    walk(sub, &path, leaves, groups);
                    groups.push(path);
                }
                None => leaves.push(path),
            }
        }
    }
    let (mut leaves, mut groups) = (Vec::new(), Vec::new());
    walk(&Cli::command(), "", &mut leaves, &mut groups);
    assert!(leaves.len() > 40, "commands are missing: {leaves:?}");
    assert!(groups.len() > 7, "groups are missing: {groups:?}");
    (leaves, groups)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn xos(args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xos"));
    command.args(args).env("XOS_HOME", dir.path().join("xos")).env_remove("XOS_LOG");
    command.output().unwrap()
}

/// If it failed, people would have to guess how a command is called, or programs which one takes
/// `--json`.
#[test]
fn every_command_shows_examples_and_takes_json() {
    let (leaves, groups) = leaves_and_groups();
    for command in leaves.iter().chain(&groups) {
        let mut words: Vec<&str> = command.split(' ').collect();
        words.extend(["--json", "--help"]);
        let out = xos(&words);
        let help = text(&out.stdout);
        assert_eq!(out.status.code(), Some(0), "xos {command}: {}", text(&out.stderr));
        let begins = format!("  xos {command}");
        assert!(help.contains("Example") && help.contains(&begins), "xos {command}: {help}");
    }
}

/// If it failed, a program that reads the tool's JSON would find something else for some command,
/// or a new command would have nobody who looks.
#[test]
fn every_command_prints_one_json_document() {
    let (core, pisa) = (Core::start(), Core::start_as("pisa"));
    let (ada, bob) = (core.signed_in("ada"), core.person());
    let file = |name: &str| core.dir().join(name).to_str().unwrap().to_owned();
    let invitation = invitation(&pisa);
    std::fs::write(file("offer"), invitation["offer"].as_str().unwrap()).unwrap();
    std::fs::write(file("new"), "quite another password").unwrap();
    let map = "\"/O=Grid/CN=bob\" bobby\n/O=Grid/CN=x .pool\n";
    std::fs::write(file("map"), map).unwrap();
    std::fs::write(file("people"), "/O=Grid/CN=bob,bob@rennes\n").unwrap();
    // None that keeps anybody off; for a site they are the same.
    let rules = ["login", "submit", "run", "see", "cancel"].map(|what| {
        format!(
            "[[rules]]\nname = \"{what}\"\nwho = \"*\"\nwhat = \"{what}\"\neffect = \"allow\"\n"
        )
    });
    std::fs::write(file("rules"), rules.concat()).unwrap();
    std::fs::write(file("terms"), "Be kind.\n").unwrap();
    let question = r#"{"id": "institute", "text": "Where?", "kind": "line", "required": true}"#;
    std::fs::write(file("questions"), format!("[{question}]")).unwrap();
    let lines = "{\"kind\":\"group\",\"name\":\"chem\"}\nbad\n\
                 {\"kind\":\"member\",\"person\":\"carol@rennes\",\"groups\":[\"chem\"]}\n";
    std::fs::write(file("lines"), lines).unwrap();
    let (mut job, mut link, mut invitation_id) = (String::new(), String::new(), String::new());
    let (leaves, groups) = leaves_and_groups();
    let mut called = BTreeSet::new();
    for (who, line, status) in CALLS {
        let begins = |leaf: &&String| line.strip_prefix(leaf.as_str()).is_some_and(ends_word);
        // A group may do something by itself.
        let leaf = leaves.iter().chain(&groups).find(begins);
        called.insert(leaf.unwrap_or_else(|| panic!("there is no command `{line}`")).clone());
        let words: Vec<String> = line
            .split(' ')
            .map(|word| match word {
                "ADDRESS" => core.address.clone(),
                "PASSWORD" => file("password"),
                "NEW" => file("new"),
                "MAP" => file("map"),
                "PEOPLE" => file("people"),
                "LINES" => file("lines"),
                "EXPORT" => file("export"),
                "OFFER" => file("offer"),
                "RULES" => file("rules"),
                "PRINT" => invitation["fingerprint"].as_str().unwrap().to_owned(),
                "JOB" => job.clone(),
                "TERMS" => file("terms"),
                "QUESTIONS" => file("questions"),
                "LINK" => link.clone(),
                "INVITATION" => invitation_id.clone(),
                word => word.to_owned(),
            })
            .collect();
        let person: &Person = if *who == "ada" { &ada } else { &bob };
        let words: Vec<&str> =
            ["--json"].into_iter().chain(words.iter().map(String::as_str)).collect();
        let said = document(line, *status, &person.xos(&words).output().unwrap());
        if line.starts_with("job submit") {
            said["job"].as_str().unwrap().clone_into(&mut job);
        }
        if line.starts_with("vo invite") {
            said["link"].as_str().unwrap().clone_into(&mut link);
            said["invitation"]["invitation"].as_str().unwrap().clone_into(&mut invitation_id);
        }
    }
    let missing: Vec<&String> = leaves.iter().filter(|leaf| !called.contains(*leaf)).collect();
    assert!(missing.is_empty(), "not called, so nobody knows what they print: {missing:?}");
}

fn ends_word(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(' ')
}

/// An invitation of pisa to rennes.
fn invitation(pisa: &Core) -> Value {
    let pia = pisa.person();
    pia.well(&["site", "add", &pisa.address, "--yes"]);
    let password = pisa.dir().join("password");
    pia.well(&["login", "ada@pisa", "--password-file", password.to_str().unwrap()]);
    pia.json(&["site", "offer", "rennes"])
}

/// The one JSON text that a call printed: on standard output, or on standard error why it failed.
fn document(line: &str, status: i32, out: &Output) -> Value {
    let (said, aside) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(status), "xos {line}: {said}{aside}");
    let parse = |text: &str| -> Value {
        serde_json::from_str(text).unwrap_or_else(|e| panic!("xos {line}: {e}: {text}"))
    };
    for line in aside.lines() {
        let told = parse(line);
        let key = if told["error"].is_null() { "warning" } else { "error" };
        assert!(told[key]["message"].is_string(), "{line}");
    }
    if said.is_empty() {
        assert!(status != 0 && aside.lines().count() == 1, "xos {line} printed nothing: {aside}");
        return parse(aside);
    }
    parse(said)
}

/// If it failed, a program would have to understand texts for people to learn what it did wrong.
#[test]
fn wrong_arguments_are_told_in_json_too() {
    for args in [
        &["--json", "job", "list", "--colour"] as &[&str],
        &["job", "lst", "--json"],
        &["--json"],
        &["vo", "--json"],
        &["vo", "show", "--json"],
        &["--json", "vo", "show", "x"],
        &["--json", "job", "submit", "-m", "2", "--", "x"],
    ] {
        let said = document(&args.join(" "), 64, &xos(args));
        let message = said["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(said["error"]["kind"], "invalid", "{args:?}: {said}");
        let fits = !message.is_empty() && !message.starts_with("error") && !message.contains('\n');
        assert!(fits, "{args:?}: {said}");
    }
    // What follows `--` is the program's.
    let out = xos(&["job", "submit", "-m", "2", "--", "x", "--json"]);
    assert_eq!(out.status.code(), Some(64));
    assert!(text(&out.stderr).starts_with("error: "), "{}", text(&out.stderr));
}
