//! Requests that cannot be meant, or are meant badly: a clear refusal, and nothing lost.

use std::sync::atomic::{AtomicUsize, Ordering};

use xos_testbed::Cmd;
use xos_testbed::grid::PORT;

use crate::flow::processes;
use crate::tool::{Said, state, units};
use crate::wire::{Proof, ask};
use crate::world::{VO, VOLUME, World, soon};

/// If it failed, bad input would be guessed at, refused without a reason, or break a core.
#[test]
fn bad_requests_are_refused_and_the_grid_goes_on() {
    let Some(w) = World::new() else { return };
    let kept = w.start(&w.milo, &["--", "echo", "kept"]);
    w.run(&w.milo, "xwait", &[&kept]).ok();
    w.step("job_files_with_mistakes", job_files_with_mistakes);
    w.step("impossible_requests_name_each_site", impossible_requests_name_each_site);
    w.step("names_that_are_none", names_that_are_none);
    w.step("paths_outside_the_volume", paths_outside_the_volume);
    w.step("what_is_not_there", what_is_not_there);
    w.step("requests_of_a_strangers_program", requests_of_a_strangers_program);
    w.step("wrong_passwords_are_slowed", wrong_passwords_are_slowed);
    w.step("a_fork_bomb_hurts_itself_only", a_fork_bomb_hurts_itself_only);
    w.step("processes_are_counted_for_each_unit", processes_are_counted_for_each_unit);
    assert_eq!(w.run(&w.milo, "xout", &[&kept]).ok(), "kept\n", "an older job was lost");
}

impl World {
    /// Both sites still take and run work.
    #[track_caller]
    pub fn serves(&self) {
        for (person, site) in [(&self.milo, "rennes"), (&self.petra, "pisa")] {
            let said = self.xsub(person, &["--on", site, "--", "echo", "served"]);
            assert_eq!(said.ok(), "served\n", "{site} does not serve");
        }
    }

    /// Submits a job file of this kind and content.
    fn file(&self, kind: &str, content: &str) -> Said {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("bad{}.{kind}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = self.write(&self.milo, &name, content);
        self.xsub(&self.milo, &["--file", &path])
    }
}

/// If it failed, people would search a long file for one wrong letter.
fn job_files_with_mistakes(w: &World) {
    let task = "[[tasks]]\nname = \"a\"\nargv = [\"true\"]\n";
    w.file("toml", &format!("{task}colour = 3\n"))
        .refused(64, &[":4:1:", "colour", "docs/user.md"]);
    w.file("toml", "[[tasks]]\nname = \n").refused(64, &[".toml:2:"]);
    w.file("toml", &format!("{task}array = \"5-1\"\n")).refused(64, &[".toml:4:", "5-1"]);
    w.file("toml", &format!("{task}retry = 70000\n")).refused(64, &[".toml:4:"]);
    w.file("json", "{\n \"tasks\": [}\n").refused(64, &[".json:2:12", "docs/user.md"]);
    w.file("json", "{\"tasks\": [{\"name\": 3}]}").refused(64, &[".json:1:21"]);
    w.file("jsdl", "<a>\n<b></a>").refused(64, &[".jsdl:2:", "docs/user.md"]);
    let jsdl = |inside: &str| {
        format!(
            "<JobDefinition xmlns=\"http://schemas.ggf.org/jsdl/2005/11/jsdl\" xmlns:p=\
             \"http://schemas.ggf.org/jsdl/2005/11/jsdl-posix\">\n<JobDescription><Application>\n\
             <p:POSIXApplication><p:Executable>true</p:Executable>{inside}</p:POSIXApplication>\n\
             </Application></JobDescription></JobDefinition>"
        )
    };
    w.file("jsdl", &jsdl("<p:Colour/>")).refused(76, &[".jsdl:3:", "Colour"]);
    w.file("jsdl", &jsdl("<p:UserName>root</p:UserName>")).refused(76, &["UserName"]);
    let entity = "<!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]>\n<a>&b;</a>";
    let said = w.file("jsdl", entity);
    assert!([64, 76].contains(&said.code) && !said.err.contains("root:"), "{said:?}");
    w.file("odt", "x").refused(64, &["no job file", ".toml, .json, or .jsdl"]);
    w.file("toml", &format!("name = \"{}\"\n", "x".repeat(10 << 20)))
        .refused(65, &["is over 8388608 bytes", "volume", "in parts"]);
    w.xsub(&w.milo, &["--file", "/no/such.toml"]).refused(64, &["/no/such.toml", "No such file"]);
    let twice = format!("{task}{task}");
    w.file("toml", &twice).refused(64, &["a"]);
    let circle = "[[tasks]]\nname = \"a\"\nargv = [\"x\"]\nafter = [\"b\"]\n[[tasks]]\nname = \
                  \"b\"\nargv = [\"x\"]\nafter = [\"a\"]\n";
    w.file("toml", circle).refused(64, &[":4:10: task a waits for itself: a after b after a"]);
    w.file("toml", &format!("vo = \"{VO}\"\n[[tasks]]\nname = \"a\"\nargv = []\n"))
        .refused(64, &[]);
    w.serves();
}

/// If it failed, a job that can never run would wait for ever, or nobody would know why.
fn impossible_requests_name_each_site(w: &World) {
    let impossible = [
        ("--cpus", "100", "100 processors are asked for, its largest node has 2"),
        ("--memory", "100G", "100 GiB of memory is asked for, its largest node has 2 GiB"),
        ("--arch", "sparc", "sparc is asked for"),
    ];
    let start = |(option, value, why)| {
        (w.start(&w.milo, &[option, value, "--", "true"]), format!("{option} {value}"), why)
    };
    for (job, asked, why) in impossible.map(start) {
        let said = w.run(&w.milo, "xwait", &[&job]);
        assert_eq!(said.code, 69, "{said:?}");
        let said = said.err;
        assert!(said.contains("no site can run it") && said.contains("xos job why"), "{said}");
        for site in ["rennes", "pisa"] {
            assert!(said.contains(&format!("{site}: {why}")), "{site} gives no reason: {said}");
        }
        let told = w.xos(&w.milo, &["job", "why", &job]).ok();
        for site in ["rennes", "pisa"] {
            let line = told.lines().find(|l| l.contains(site) && l.contains(why));
            assert!(line.is_some(), "{site} does not say why {asked} is refused: {told}");
        }
        let shown = w.json(&w.milo, &["job", "show", &job]);
        assert_eq!(state(&units(&shown)[0]), "refused");
    }
    // What no node that connects could change is told at once.
    w.xsub(&w.milo, &["--on", "mars", "--", "true"])
        .refused(69, &["none of the sites asked for (mars) serves", "sites that serve it: "]);
    // What one site can never do, the others are still asked.
    let job = w.start(&w.milo, &["--on", "rennes,mars", "--", "true"]);
    w.run(&w.milo, "xwait", &[&job]).ok();
    w.serves();
}

/// If it failed, a name could break a list, a terminal, a log or a path.
fn names_that_are_none(w: &World) {
    let long = "x".repeat(300);
    let submit = |name: &str| w.xsub(&w.milo, &["--name", name, "--", "true"]);
    submit("two\nlines").refused(64, &["two\\nlines", "control character"]);
    submit("\u{1b}[2J").refused(64, &["control character"]);
    submit(&long).refused(65, &["300 bytes", "the most is 128"]);
    let said = submit("").refused(64, &["name"]);
    assert!(!said.contains('\u{1b}'));
    for bad in ["two\nlines", &long, "../up", "Upper", "-x", "a.b.c"] {
        w.xos(&w.vera, &["vo", "found", "--title", "t", "--", bad]).refused(64, &[]);
        let add = w.rennes.admin.command("xos").args(["person", "add", "--password-file", "-"]);
        let add = add.args(["--", bad]).stdin("long enough");
        Said::of(&w.rennes.core, &add, "xos person add").refused(64, &[]);
        w.xos(&w.vera, &["vo", "group", "create", VO, "--", bad]).refused(64, &[]);
        let token = w.rennes.admin.command("xos").args(["node", "token", "--", bad]);
        Said::of(&w.rennes.core, &token, "xos node token").refused(64, &[]);
    }
    w.xos(&w.vera, &["vo", "found", "okay", "--title", "two\nlines"]).refused(64, &["title"]);
    w.xos(&w.vera, &["vo", "found", "okay", "--title", &long]).refused(64, &["200 characters"]);
    let file = w.write(&w.milo, "\n", "x");
    let said = w.xsub(&w.milo, &["--file", &file]).refused(64, &["/home/milo/? is no job file"]);
    assert_eq!(said.lines().count(), 2, "a file's name broke the message: {said}");
    // A program may have any name that a file can have.
    w.xsub(&w.milo, &["--", "two\nlines"]).refused(126, &["two\\nlines", "not found in PATH"]);
    w.serves();
}

/// If it failed, a job could read or write files of the node through staging.
fn paths_outside_the_volume(w: &World) {
    for bad in ["../../etc/passwd", "a/../../b", "..", "a/./b"] {
        let place = format!("{bad}=x");
        let said = w.xsub(&w.milo, &["--stage-in", &place, "--", "true"]);
        said.refused(64, &["on the volume", bad, "without '.' and '..'"]);
        let place = format!("x={bad}");
        let said = w.xsub(&w.milo, &["--stage-out", &place, "--", "true"]);
        said.refused(64, &["on the volume", bad]);
        let place = format!("x={bad}");
        let said = w.xsub(&w.milo, &["--stage-in", &place, "--", "true"]);
        said.refused(64, &["name", bad]);
    }
    // A path of the volume begins at its root, and links lead nowhere else.
    let said = w.xsub(&w.milo, &["--stage-in", "/etc/passwd", "--", "cat", "passwd"]);
    assert!(!said.out.contains("root:"), "a file of the node was staged in: {}", said.out);
    said.refused(74, &[&format!("{VOLUME}/etc/passwd")]);
    // Everybody may read what these lead to: only the stager can refuse it.
    let links = format!(
        "mkdir {VOLUME}/out; cd {VOLUME}/out; echo within > file; ln -s /etc/passwd link; \
         ln -s ../../../etc/passwd up; ln -s /etc dir; ln -s file near; ln -s {VOLUME}/out/file far"
    );
    w.xsub(&w.milo, &["--", "sh", "-c", &links]).ok();
    let why = "a link leads out of the volume";
    for path in ["out/link", "out/up", "out/dir/passwd"] {
        let place = format!("{path}=x");
        let said = w.xsub(&w.milo, &["--stage-in", &place, "--", "cat", "x"]);
        assert!(!said.out.contains("root:"), "a link led out of the volume: {}", said.out);
        said.refused(74, &[why, &format!("{VOLUME}/{path}")]);
    }
    for path in ["out/near=x", "out/far=x"] {
        assert_eq!(w.xsub(&w.milo, &["--stage-in", path, "--", "cat", "x"]).ok(), "within\n");
    }
    let said = w.xsub(&w.milo, &["--stage-out", "x=out/dir/made", "--", "touch", "x"]);
    said.refused(74, &[why]);
    // Nor may a link turn a person's own stager against the person's files.
    let script = format!(
        "echo kept > kept; ln -s \"$PWD/kept\" {VOLUME}/out/home; echo new > x; echo \"$PWD\""
    );
    let said = w.xsub(&w.milo, &["--stage-out", "x=out/home", "--", "sh", "-c", &script]);
    let kept = format!("{}/kept", said.out.trim());
    said.refused(74, &[why]);
    let kept: Vec<_> = w.nodes().filter_map(|node| node.read_file(&kept).ok()).collect();
    assert_eq!(kept, [b"kept\n"], "a file in the home was overwritten");
    for node in w.nodes() {
        assert!(node.read_file("/etc/made").is_err(), "a file was made outside the volume");
    }
    w.serves();
}

/// If it failed, a slip of the pen would have an answer that helps nobody.
fn what_is_not_there(w: &World) {
    let hint = ["`xos vo list`"];
    w.xsub(&w.milo, &["--vo", "none.rennes", "--", "true"]).refused(66, &hint);
    w.xsub(&w.milo, &["--vo", "none.mars", "--", "true"]).refused(66, &["mars", "site"]);
    w.xsub(&w.milo, &["--vo", "none", "--", "true"]).refused(64, &["none", "<vo>.<site>"]);
    w.xos(&w.milo, &["job", "show", "99.rennes"]).refused(66, &["99.rennes", "xps"]);
    w.xos(&w.milo, &["job", "show", "99.mars"]).refused(66, &["mars"]);
    w.run(&w.milo, "xout", &["1.rennes:77"]).refused(66, &["77"]);
    w.xsub(&w.milo, &["--after", "99.rennes", "--", "true"]).refused(64, &["99.rennes"]);
    w.xsub(&w.milo, &[]).refused(64, &["xsub -- /bin/echo hello"]);
    w.xos(&w.milo, &["--site", "mars", "site", "list"]).refused(66, &["mars", "xos site"]);
    let nobody = w.grid.purse().person("nobody", "rennes").unwrap();
    w.xos(&nobody, &["job", "list"]).refused(78, &["xos login"]);
}

/// If it failed, anybody's own program could stop a core or confuse it.
fn requests_of_a_strangers_program(w: &World) {
    let (laptop, pem) = (w.laptop(), w.credential(&w.milo, VO).pem());
    let milo = Proof::Certificate(&pem);
    let post = |body: &[u8]| ask(&laptop, "rennes", milo, "POST /v1/jobs", body);
    ask(&laptop, "rennes", Proof::Nothing, "POST /v1/jobs", b"{}").refused(401, &["xos login"]);
    post(&vec![b'x'; 10 << 20]).refused(413, &["too_large", "2097152 bytes", "volume"]);
    post(b"{").refused(400, &["line 1 column 1"]);
    post(b"\xff\xfe").refused(400, &["line 1 column"]);
    let unknown = format!("{{\"spec\": {{\"vo\": \"{VO}\", \"colour\": 3}}}}");
    post(unknown.as_bytes()).refused(400, &["unknown field `colour`", "line 1 column 39"]);
    post(&[b'['; 1_000_000]).refused(400, &["line 1 column"]);
    post(b"null").refused(400, &["invalid"]);
    let ask = |line: &str| ask(&laptop, "rennes", milo, line, b"");
    ask("GET /v1/jobs/99999999999999999999999.rennes").refused(400, &["invalid"]);
    ask("GET /v1/jobs/%00").refused(400, &["invalid"]);
    ask("GET /v1/jobs/..%2f..%2fetc").refused(400, &["invalid"]);
    ask("GET /v1/jobs?limit=-1").refused(400, &["invalid"]);
    ask("GET /v1/jobs?colour=red").refused(400, &["colour"]);
    ask("DELETE /v1/jobs").refused(405, &["is not served by that method"]);
    ask("GET /v1/none").refused(404, &[]);
    ask(&format!("GET /v1/jobs/{}", "x".repeat(20_000)));
    w.serves();
}

/// If it failed, passwords could be guessed, or guessing would lock people out.
fn wrong_passwords_are_slowed(w: &World) {
    let login = |password: &str| {
        let login = w.milo.command("xos").args(["login", &w.milo.id(), "--password-file", "-"]);
        login.stdin(password.as_bytes())
    };
    let here = |password: &str| Said::of(&w.laptop(), &login(password), "xos login");
    let mut limited = 0;
    for guess in 0..12 {
        let said = here(&format!("a wrong guess {guess}"));
        match said.code {
            78 => drop(said.refused(78, &["wrong name or password", "administrator"])),
            _ => {
                limited += 1;
                said.refused(75, &["too many attempts", "wait", "seconds"]);
            }
        }
    }
    assert!(limited >= 5, "of 12 guesses only {limited} were slowed");
    // The right one has to wait too: else guessing would only look slowed.
    here(&w.milo.password).refused(75, &["too many attempts"]);
    // Elsewhere milo signs in, and who is signed in works on.
    let there = &w.pisa.core;
    let add =
        ["site", "add", &format!("rennes-core:{PORT}"), "--fingerprint", &w.rennes.fingerprint];
    Said::of(there, &w.milo.command("xos").args(add), "xos site add").ok();
    Said::of(there, &login(&w.milo.password), "xos login elsewhere").ok();
    w.xsub(&w.milo, &["--", "true"]).ok();
    // Who there is, is not told.
    let nobody = Cmd::shell(
        "mkdir -p /tmp/n; echo no such person | xos --home /tmp/n login nobody@rennes \
         --password-file -",
    );
    let copy = Cmd::shell("mkdir -m 700 -p /tmp/n; cp -p /home/milo/.xos/sites.json /tmp/n/");
    Said::of(there, &copy, "cp").ok();
    Said::of(there, &nobody, "xos login").refused(78, &["wrong name or password"]);
    w.serves();
}

/// If it failed, one member could stop a node for everybody.
fn a_fork_bomb_hurts_itself_only(w: &World) {
    let bomb = "while :; do sh -c \"$0\" \"$0\" & done # fork-bomb";
    let options = ["--on", "pisa", "--array", "0-1", "--cpus", "0.5", "--time", "20s"];
    let job = w.start(&w.milo, &[options.as_slice(), &["--", "sh", "-c", bomb, bomb]].concat());
    soon("the bomb goes off", || (processes(w, "fork-bomb") > 50).then_some(()));
    let said = w.xsub(&w.petra, &["--on", "pisa", "--cpus", "0.5", "--", "echo", "alive"]);
    assert_eq!(said.ok(), "alive\n");
    w.run(&w.milo, "xkill", &[&job]).ok();
    w.run(&w.milo, "xwait", &[&job]).refused(130, &["cancelled"]);
    assert_eq!(processes(w, "fork-bomb"), 0, "processes outlived their unit");
    // One that ends before anybody ends it.
    let job = crowd(w, 100, "limits = { processes = 10 }");
    assert_ne!(w.run(&w.milo, "xwait", &[&job]).code, 0, "100 processes were had where 10 may be");
    let told = w.xos(&w.milo, &["job", "why", &job]).ok();
    assert!(told.contains("reached its limit of processes"), "nobody is told why: {told}");
    w.serves();
}

/// If it failed, units beside one another would share what each of them asked for; or a wish that
/// cannot be met be cut in silence.
fn processes_are_counted_for_each_unit(w: &World) {
    let four = "array = \"0-3\"\nlimits = { processes = 10 }";
    let job = crowd(w, 8, four);
    w.run(&w.milo, "xwait", &[&job]).ok();
    let job = crowd(w, 8, "limits = { processes = 4000000000 }");
    let said = w.run(&w.milo, "xwait", &[&job]);
    said.refused(126, &["could not be started", "4000000000 processes are asked for"]);
    w.serves();
}

/// Starts a job at pisa of which each unit has so many processes at a time beside its first one.
fn crowd(w: &World, processes: u32, more: &str) -> String {
    let script = format!("i=0; while [ $i -lt {processes} ]; do sleep 3 & i=$((i+1)); done; wait");
    let job = format!(
        "vo = \"{VO}\"\nsites = [\"pisa\"]\n[[tasks]]\nname = \"crowd\"\n\
         argv = [\"sh\", \"-c\", \"{script}\"]\n\
         resources = {{ cpu_milli = 500, memory_bytes = 134217728 }}\n{more}\n"
    );
    let file = w.write(&w.milo, "crowd.toml", &job);
    w.start(&w.milo, &["--file", &file])
}
