//! The whole way of a job, as people go it: what they type, what they get.

use std::collections::BTreeSet;

use xos_testbed::grid::Person;

use crate::tool::{Json, count, job_of, node, state, units};
use crate::world::{VO, VOLUME, World, sh, soon};

/// Waits for a file of the volume, which lets a test say when a unit goes on.
pub fn until_there(path: &str) -> String {
    format!("until [ -e {path} ]; do sleep 0.05; done")
}

/// If it failed, people could not work: see each step.
#[test]
fn from_a_command_to_its_result_on_two_sites() {
    let Some(w) = World::new() else { return };
    w.step("people_are_themselves_on_every_node", people_are_themselves_on_every_node);
    w.step("status_and_output_come_back", status_and_output_come_back);
    w.step("an_array_runs_on_both_sites", an_array_runs_on_both_sites);
    w.step("what_follows_waits", what_follows_waits);
    w.step("what_is_cancelled_ends", what_is_cancelled_ends);
    w.step("a_terminal_shows_it_run_and_asks", a_terminal_shows_it_run_and_asks);
    w.step("only_what_may_run_again_does", only_what_may_run_again_does);
    w.step("limits_end_units", limits_end_units);
    w.step("jobs_come_from_files", jobs_come_from_files);
    w.step("members_see_their_own", members_see_their_own);
    w.step("json_has_the_fields_that_scripts_use", json_has_the_fields_that_scripts_use);
}

/// If it failed, programs would run as nobody, as somebody else, or without a home.
fn people_are_themselves_on_every_node(w: &World) {
    let script = "id -un; id -gn; id -u; echo $HOME; pwd; stat -c %U:%a .; echo $XOS_SITE; whoami";
    for person in [&w.milo, &w.petra] {
        let account = format!("{}.{VO}", person.name);
        let home = format!("/home/xos/{account}");
        for site in ["rennes", "pisa"] {
            let out = w.xsub(person, &["--on", site, "--", "sh", "-c", script]).ok();
            let said: Vec<&str> = out.lines().collect();
            let owner = format!("{account}:700");
            let uid: u32 = said[2].parse().unwrap();
            let want = [&account, &format!("members.{VO}"), said[2], &home, &home, &owner, site];
            assert_eq!(said, [want.as_slice(), &[&account]].concat());
            assert!((1_879_048_192..=2_147_352_575).contains(&uid), "uid {uid} is not the VO's");
        }
    }
    let account = format!("milo.{VO}");
    let uids: BTreeSet<String> = [&w.rennes, &w.pisa]
        .iter()
        .map(|site| {
            let of: BTreeSet<String> =
                site.nodes.iter().map(|n| sh(n, &format!("id -u {account}"))).collect();
            assert_eq!(of.len(), 1, "{}: a member has two uids at one site: {of:?}", site.name);
            of.into_iter().next().unwrap()
        })
        .collect();
    println!("milo's uids at the sites: {uids:?}");
}

/// If it failed, scripts could not tell success from failure, or would lose what a program wrote.
fn status_and_output_come_back(w: &World) {
    for site in ["rennes", "pisa"] {
        let xsub = |script: &str| w.xsub(&w.milo, &["--on", site, "--", "sh", "-c", script]);
        let said = xsub("echo out; echo aside >&2; exit 3");
        assert_eq!((said.code, said.out.as_str()), (3, "out\n"));
        assert!(said.err.starts_with("aside\n"), "{}", said.err);
        let job = job_of(&said.err);
        assert_eq!(w.run(&w.milo, "xwait", &[&job]).code, 3, "xwait tells another status");
        assert_eq!(w.run(&w.milo, "xout", &[&job]).ok(), "out\n");
        assert_eq!(w.run(&w.milo, "xout", &[&job, "--stderr"]).ok(), "aside\n");
        xsub("kill -TERM $$").refused(128 + 15, &["signal 15 (SIGTERM)"]);
        let said = w.xsub(&w.milo, &["--on", site, "--", "no-such-program"]);
        said.refused(126, &["no-such-program", "not found in PATH", "xos job why"]);
    }
    // More than goes inline, and not text.
    let script = "head -c 3000000 /dev/zero | tr '\\0' '\\377'; echo end";
    let bytes = w.laptop().run(&w.milo.command("sh").args([
        "-c",
        "xsub --on pisa -- sh -c \"$0\" | md5sum",
        script,
    ]));
    let want = sh(&w.laptop(), &format!("({script}) | md5sum"));
    assert_eq!(bytes.unwrap().ok().unwrap().trim(), want, "a large output changed on its way");
}

/// If it failed, a job would not use both sites, or units would not know which part is theirs.
fn an_array_runs_on_both_sites(w: &World) {
    // Sixteen units of one processor do not fit on one site of four.
    let script = "echo $XOS_UNIT_INDEX of $XOS_UNIT_COUNT; sleep 0.3";
    let job = w.start(&w.milo, &["--array", "0-14,20", "--", "sh", "-c", script]);
    w.run(&w.milo, "xwait", &[&job]).ok();
    let shown = w.json(&w.milo, &["job", "show", &job, "--units"]);
    let nodes: BTreeSet<&str> = units(&shown).iter().map(node).collect();
    assert_eq!(nodes, BTreeSet::from(["n1.pisa", "n1.rennes", "n2.pisa", "n2.rennes"]));
    assert!(units(&shown).iter().all(|u| state(u) == "done"), "{shown}");
    assert_eq!(w.run(&w.milo, "xout", &[&format!("{job}:15")]).ok(), "20 of 16\n");
    assert_eq!(w.run(&w.milo, "xout", &[&format!("{job}:3")]).ok(), "3 of 16\n");
}

/// If it failed, a step would start without what it needs, or after what never came.
fn what_follows_waits(w: &World) {
    let go = format!("{VOLUME}/go-first");
    let first = format!("{}; date +%s%N", until_there(&go));
    let first = w.start(&w.milo, &["--on", "pisa", "--", "sh", "-c", &first]);
    let second = w.start(&w.milo, &["--after", &first, "--on", "rennes", "--", "date", "+%s%N"]);
    soon("the first job runs", || {
        let shown = w.json(&w.milo, &["job", "show", &first]);
        (state(&units(&shown)[0]) == "running").then_some(())
    });
    let shown = w.json(&w.milo, &["job", "show", &second]);
    assert_eq!(state(&units(&shown)[0]), "waiting", "a job did not wait: {shown}");
    w.xsub(&w.milo, &["--", "touch", &go]).ok();
    w.run(&w.milo, "xwait", &[&first, &second]).ok();
    let at = |job: &str| w.run(&w.milo, "xout", &[job]).ok().trim().parse::<u128>().unwrap();
    assert!(at(&first) < at(&second), "the second job ran before the first");
    let bad = w.start(&w.milo, &["--", "false"]);
    let after = w.start(&w.milo, &["--after", &bad, "--", "touch", "never"]);
    let why = format!("job {bad}, which this one waited for, failed");
    w.run(&w.milo, "xwait", &[&after]).refused(130, &[&after, "is cancelled", &why]);
    let again = w.run(&w.milo, "xkill", &[&after]).ok();
    assert!(again.contains(&why), "{again}");
    let said = w.xos(&w.milo, &["job", "why", &after]).ok();
    assert!(said.contains(&bad), "it does not say which job failed: {said}");
}

/// If it failed, a wrong job could not be stopped, or would be shown as stopped while it runs.
fn what_is_cancelled_ends(w: &World) {
    let script = "trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done # tell-tale";
    let job = w.start(&w.milo, &["--array", "0-5", "--", "sh", "-c", script]);
    let running = |n: u64| {
        soon("units run", || {
            let shown = w.json(&w.milo, &["job", "show", &job]);
            (count(&shown, "running") == n).then_some(())
        });
    };
    running(6);
    w.run(&w.milo, "xkill", &[&format!("{job}:1-2")]).ok();
    running(4);
    assert_eq!(processes(w, "tell-tale"), 4, "the wrong units were ended");
    let said = w.run(&w.petra, "xkill", &[&job]);
    assert!([66, 77].contains(&said.code), "a stranger cancels a job: {said:?}");
    w.run(&w.milo, "xkill", &[&job]).ok();
    w.run(&w.milo, "xwait", &[&job]).refused(130, &[&job, "cancelled"]);
    assert_eq!(processes(w, "tell-tale"), 0, "processes outlived the cancelling");
    let shown = w.json(&w.milo, &["job", "show", &job]);
    assert_eq!(count(&shown, "cancelled"), 6, "{shown}");
    let again = w.run(&w.milo, "xkill", &[&job]).ok();
    assert!(again.contains("nothing was left to cancel"), "{again}");
}

/// If it failed, people would stare at an empty line while they wait, or lose a job, or keep one,
/// against their word when they press Ctrl-C.
fn a_terminal_shows_it_run_and_asks(w: &World) {
    // script(1) is the terminal; what it shows and what the person types go through files.
    let session = |types: &str| {
        let text = format!(
            "cd $HOME; rm -f keys shown; mkfifo keys; : > shown
            TERM=xterm script -qefc 'xsub -- sleep 600' shown < keys > /dev/null & exec 3> keys
            seen() {{ until grep -q \"$1\" shown; do sleep 0.05; done; }}
            seen '0/1 1 running'; printf '\\003' >&3; seen 'Ctrl-C again'; {types}
            wait $!; echo status $?; cat shown"
        );
        let out = w.laptop().run(&w.milo.command("bash").args(["-c", &text])).unwrap();
        let shown = out.ok().unwrap();
        let job = shown.split_once("Cancel ").expect("no question").1;
        (job.split('?').next().unwrap().to_owned(), shown)
    };
    let (job, shown) = session("printf 'y\\n' >&3");
    assert!(shown.contains(&format!("Cancelling {job}")), "{shown}");
    assert!(!shown.starts_with("status 0"), "a cancelled job counts as done: {shown}");
    let ended = w.json(&w.milo, &["job", "show", &job]);
    assert_eq!(count(&ended, "cancelled"), 1, "{ended}");
    let (job, shown) = session("printf '\\003' >&3");
    assert!(shown.starts_with("status 130"), "{shown}");
    assert!(shown.contains(&format!("{job} goes on")), "{shown}");
    assert!(!w.xos(&w.milo, &["job", "cancel", &job]).err.contains("xos:"), "it did not go on");
    w.run(&w.milo, "xwait", &[&job]);
}

/// How many processes of all nodes have `mark` in their command line.
pub fn processes(w: &World, mark: &str) -> usize {
    let script = format!("grep -slz -- '{mark}$' /proc/[0-9]*/cmdline | wc -l");
    w.nodes().map(|node| sh(node, &script).parse::<usize>().unwrap()).sum()
}

/// If it failed, units would run twice although nobody allowed it, or not again when allowed.
fn only_what_may_run_again_does(w: &World) {
    let tries = |retry: &str| {
        let file = format!("{VOLUME}/tries-{retry}");
        let script = format!("echo x >> {file}; [ $(wc -l < {file}) -ge 3 ]");
        let job = w.start(&w.milo, &["--retry", retry, "--", "sh", "-c", &script]);
        let status = w.run(&w.milo, "xwait", &[&job]).code;
        let shown = w.json(&w.milo, &["job", "show", &job]);
        let retries = units(&shown)[0]["retries"].as_u64().unwrap();
        let lines = w.xsub(&w.milo, &["--", "wc", "-l", &file]).ok();
        let lines: u64 = lines.split(' ').next().unwrap().parse().unwrap();
        (status, retries, lines)
    };
    assert_eq!(tries("0"), (1, 0, 1), "status, retries, runs without leave to run again");
    assert_eq!(tries("1"), (1, 1, 2), "status, retries, runs with one more allowed");
    assert_eq!(tries("9"), (0, 2, 3), "status, retries, runs with nine more allowed");
}

/// If it failed, a unit could take what it did not ask for, or nobody would learn why it ended.
fn limits_end_units(w: &World) {
    for site in ["rennes", "pisa"] {
        let said = w.xsub(&w.milo, &["--on", site, "-t", "1s", "--", "sleep", "60"]);
        said.refused(124, &["ran longer than its time", "--time"]);
        let hog = "x=$(head -c 400M /dev/zero | tr '\\0' x); echo ${#x}";
        let said = w.xsub(&w.milo, &["--on", site, "-m", "64M", "--", "bash", "-c", hog]);
        said.refused(137, &["used more memory than it asked for", "--memory"]);
    }
}

/// If it failed, jobs of several steps could not be described, or JSDL of other grids not be used.
fn jobs_come_from_files(w: &World) {
    let toml = format!(
        "vo = \"{VO}\"\n[[tasks]]\nname = \"part\"\nargv = [\"sh\", \"-c\", \"echo \
         $XOS_UNIT_INDEX > {VOLUME}/part.$XOS_UNIT_INDEX\"]\narray = \"0-3\"\n[[tasks]]\nname = \
         \"whole\"\nafter = [\"part\"]\nargv = [\"sh\", \"-c\", \"cat {VOLUME}/part.*\"]\n"
    );
    let file = w.write(&w.milo, "steps.toml", &toml);
    let said = w.xsub(&w.milo, &["--file", &file, "--json"]).json();
    let job = said["job"].as_str().unwrap();
    assert_eq!(w.run(&w.milo, "xout", &[&format!("{job}:4")]).ok(), "0\n1\n2\n3\n");
    let json = r#"{"name": "j", "tasks": [{"name": "t", "argv": ["/bin/echo", "from JSON"]}]}"#;
    let file = w.write(&w.petra, "one.json", json);
    assert_eq!(w.xsub(&w.petra, &["-f", &file, "--on", "pisa"]).ok(), "from JSON\n");
    jsdl(w);
}

/// A JSDL document with an array, a dependency, staging and a candidate host.
fn jsdl(w: &World) {
    let document = format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<JobDefinition xmlns="http://schemas.ggf.org/jsdl/2005/11/jsdl"
    xmlns:posix="http://schemas.ggf.org/jsdl/2005/11/jsdl-posix" xmlns:xos="urn:xos:jsdl:1">
  <JobDescription>
    <JobIdentification><JobName>lines</JobName></JobIdentification>
    <Application>
      <posix:POSIXApplication>
        <posix:Executable>/usr/bin/sort</posix:Executable>
        <posix:Argument>-o</posix:Argument>
        <posix:Argument>sorted</posix:Argument>
        <posix:Argument>words</posix:Argument>
        <posix:Environment name="LC_ALL">C</posix:Environment>
      </posix:POSIXApplication>
    </Application>
    <Resources>
      <CandidateHosts><HostName>pisa</HostName></CandidateHosts>
      <IndividualCPUCount><Exact>1.0</Exact></IndividualCPUCount>
    </Resources>
    <DataStaging>
      <FileName>words</FileName>
      <CreationFlag>overwrite</CreationFlag>
      <Source><URI>xtreemfs://{VO}/jsdl/words</URI></Source>
    </DataStaging>
    <DataStaging>
      <FileName>sorted</FileName>
      <CreationFlag>overwrite</CreationFlag>
      <Target><URI>xtreemfs://{VO}/jsdl/sorted</URI></Target>
    </DataStaging>
    <xos:VO>{VO}</xos:VO>
  </JobDescription>
</JobDefinition>
"#
    );
    let prepare =
        format!("mkdir -p {VOLUME}/jsdl && printf 'pear\\nfig\\nplum\\n' > {VOLUME}/jsdl/words");
    w.xsub(&w.milo, &["--on", "rennes", "--", "sh", "-c", &prepare]).ok();
    let file = w.write(&w.milo, "lines.jsdl", &document);
    w.xsub(&w.milo, &["--file", &file]).ok();
    let out = w.xsub(&w.milo, &["--on", "rennes", "--", "cat", &format!("{VOLUME}/jsdl/sorted")]);
    assert_eq!(out.ok(), "fig\npear\nplum\n");
}

/// If it failed, members would see or stop one another's work, or an administrator could not.
fn members_see_their_own(w: &World) {
    let job = w.start(&w.petra, &["--on", "pisa", "--", "echo", "private"]);
    w.run(&w.petra, "xwait", &[&job]).ok();
    let listed = |person: &Person, args: &[&str]| -> BTreeSet<String> {
        let list = w.json(person, &[&["job", "list", "--all"], args].concat());
        let jobs = list.as_array().unwrap().iter();
        jobs.map(|j| j["person"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(listed(&w.petra, &[]), BTreeSet::from([w.petra.id()]));
    assert_eq!(listed(&w.milo, &[]), BTreeSet::from([w.milo.id()]));
    assert!(listed(&w.vera, &["--everyone"]).is_superset(&[w.milo.id(), w.petra.id()].into()));
    for command in [["job", "show"], ["job", "output"], ["job", "why"]] {
        let said = w.xos(&w.milo, &[command.as_slice(), &[&job]].concat());
        assert!([66, 77].contains(&said.code), "milo reads petra's job: {said:?}");
    }
    let said = w.xos(&w.milo, &["job", "list", "--everyone"]);
    assert!(said.code == 77 || !said.out.contains("petra"), "milo lists petra's job: {said:?}");
}

/// If it failed, scripts that people wrote would break.
fn json_has_the_fields_that_scripts_use(w: &World) {
    let has = |what: &str, value: &Json, names: &[&str]| {
        for name in names {
            assert!(value.pointer(name).is_some(), "{what} has no {name}: {value}");
        }
    };
    let id = w.json(&w.milo, &["id"]);
    has("id", &id, &["/person", "/session_until", "/vos/0/vo", "/vos/0/groups", "/vos/0/until"]);
    let end = w.xsub(&w.milo, &["--json", "--", "false"]);
    assert_eq!(end.code, 1, "with --json the job's status is lost");
    let end: Json = serde_json::from_str(&end.out).unwrap();
    has(
        "xsub",
        &end,
        &["/job", "/state/state", "/counts/failed", "/end/exit_status", "/end/how/end"],
    );
    let job = end["job"].as_str().unwrap();
    let shown = w.json(&w.milo, &["job", "show", job]);
    let summary = ["job", "name", "vo", "person", "submitted", "state", "counts", "usage"];
    has(
        "job show",
        &shown["job"]["summary"],
        &summary.map(|n| ["/", n].concat()).each_ref().map(|s| s.as_str()),
    );
    let unit =
        ["/unit", "/task", "/index", "/state/state", "/state/site", "/state/node", "/retries"];
    has("a unit", &units(&shown)[0], &unit);
    has("job why", &w.json(&w.milo, &["job", "why", job]), &["/reasons", "/units/0/state/end"]);
    has("job list", &w.json(&w.milo, &["job", "list"]), &["/0/job", "/0/state/state"]);
    let waited = w.xos(&w.milo, &["job", "wait", job, "--json"]);
    assert_eq!(waited.code, 1);
    has("job wait", &serde_json::from_str(&waited.out).unwrap(), &["/0/job", "/0/end/exit_status"]);
    has("vo show", &w.json(&w.milo, &["vo", "show", VO]), &["/summary/vo", "/state/state"]);
    has("vo members", &w.json(&w.vera, &["vo", "members", VO]), &["/0/person", "/0/number"]);
    has("vo share list", &w.json(&w.vera, &["vo", "share", "list", VO]), &["/0/site"]);
    let nodes: Json =
        serde_json::from_str(&w.rennes.admin(&["node", "list", "--json"]).unwrap()).unwrap();
    has("node list", &nodes, &["/0/node", "/1/node"]);
    let said = w.xos(&w.milo, &["job", "show", "999.rennes", "--json"]);
    assert_eq!(said.code, 66);
    let error: Json = serde_json::from_str(&said.err).unwrap_or_default();
    has("an error", &error, &["/error/kind", "/error/message", "/error/hint"]);
}
