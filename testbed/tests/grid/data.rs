//! The volume, staging, and the example that does real work on them.

use std::collections::BTreeSet;

use crate::tool::{Json, count, node, state, units};
use crate::world::{VO, VOLUME, World, sh};

/// Photons of each unit of the example: few, and the slice is still recognised.
const PHOTONS: &str = "100000";
/// How well the slice must look like the true one.
const CORRELATION_MIN: f64 = 0.9;

/// If it failed, results would be lost or wrong on their way between sites: see each step.
#[test]
fn files_and_the_example_over_two_sites() {
    let Some(w) = World::new() else { return };
    w.step("what_one_site_writes_the_other_reads", what_one_site_writes_the_other_reads);
    w.step("the_volume_is_a_file_system", the_volume_is_a_file_system);
    w.step("rights_hold_between_members", rights_hold_between_members);
    w.step("files_are_staged", files_are_staged);
    w.step("the_example_finds_the_slice", the_example_finds_the_slice);
}

impl World {
    /// Runs a script as milo at a site; its output.
    #[track_caller]
    fn at(&self, site: &str, script: &str) -> String {
        let said =
            self.xsub(&self.milo, &["--on", site, "-m", "512M", "--", "bash", "-ec", script]);
        said.ok().trim().to_owned()
    }
}

/// If it failed, a file written at one site would be missing, short or changed at the other.
fn what_one_site_writes_the_other_reads(w: &World) {
    for (from, to) in [("rennes", "pisa"), ("pisa", "rennes")] {
        let file = format!("{VOLUME}/from-{from}");
        // Not a whole number of objects, and over all stores.
        let make = format!("head -c 7340123 /dev/urandom > {file}; md5sum < {file}");
        let sum = w.at(from, &make);
        assert_eq!(w.at(to, &format!("md5sum < {file}")), sum, "{from} to {to}");
        assert_eq!(w.at(to, &format!("stat -c %s {file}")), "7340123");
        // The other site changes it: in the middle, at the end, and shorter.
        let change = format!(
            "printf middle | dd of={file} bs=1 seek=3000000 conv=notrunc status=none; \
             printf end >> {file}; md5sum < {file}"
        );
        let sum = w.at(to, &change);
        assert_eq!(w.at(from, &format!("md5sum < {file}")), sum, "{to} changed {from}'s file");
        w.at(to, &format!("truncate -s 3000003 {file}"));
        let script = format!("stat -c %s {file}; tail -c 3 {file}; truncate -s 3000009 {file}; ");
        let script = format!("{script} tail -c 6 {file} | od -An -tx1");
        let got = w.at(from, &script);
        assert_eq!(got, "3000003\nmid 00 00 00 00 00 00", "after truncate");
    }
    // Objects lie at both sites: each file is striped over the stores.
    for site in [&w.rennes, &w.pisa] {
        let all: u64 = site
            .nodes
            .iter()
            .map(|n| sh(n, "du -s -k /var/lib/xos/objects | cut -f1").parse::<u64>().unwrap())
            .sum();
        assert!(all > 1000, "{} stores only {all} KiB of 10 MiB", site.name);
    }
}

/// If it failed, ordinary programs would not work in the shared folder.
fn the_volume_is_a_file_system(w: &World) {
    let dir = format!("{VOLUME}/milo");
    w.at(
        "rennes",
        &format!("mkdir {dir} {dir}/a {dir}/b; echo one > {dir}/a/1; ln -s a/1 {dir}/s"),
    );
    let script = "cd DIR; cat s; readlink s; mv a/1 b/2; mv a c; ls -F; cat b/2; chmod 640 b/2; \
                  stat -c %a:%U:%G b/2; rm b/2; rmdir b c; ls -F; test -L s; ! cat s 2>/dev/null"
        .replace("DIR", &dir);
    let user = format!("milo.{VO}:members.{VO}");
    let want = format!("one\na/1\nb/\nc/\ns@\none\n640:{user}\ns@");
    assert_eq!(w.at("pisa", &script), want);
    // An open file that was removed can be read on; one of the old name is another.
    let script =
        "cd DIR; echo old > f; exec 3< f; rm f; echo new > f; cat <&3; cat f; rm f s; ls -A";
    assert_eq!(w.at("rennes", &script.replace("DIR", &dir)), "old\nnew");
    let size = w.at("pisa", &format!("df --output=size -k {VOLUME} | tail -1; rmdir {dir}"));
    assert!(size.trim().parse::<u64>().unwrap() > 0, "the volume has no size: {size}");
    // What is not there yet says so, and does not pretend.
    let link = format!("cd {VOLUME}; echo x > hl; ln hl hl2 2>&1 && echo linked; rm -f hl hl2");
    let said = w.at("rennes", &format!("{link}; true"));
    assert!(said.contains("not supported"), "a hard link: {said}");
}

/// If it failed, a member, or the VO's founder, could read, change or remove what is not theirs.
fn rights_hold_between_members(w: &World) {
    let dir = format!("{VOLUME}/petra");
    let prepare = format!(
        "mkdir -m 711 {dir}; echo secret > {dir}/private; chmod 600 {dir}/private; \
         echo open > {dir}/open; mkdir -m 700 {dir}/closed; echo x > {dir}/closed/x; \
         mkdir {dir}-empty; echo x > {dir}-file"
    );
    w.xsub(&w.petra, &["--on", "pisa", "--", "sh", "-ec", &prepare]).ok();
    let people = [("milo", &w.milo), ("vera, the founder,", &w.vera)];
    for (site, (name, person)) in
        ["pisa", "rennes"].into_iter().flat_map(|s| people.map(|p| (s, p)))
    {
        assert_eq!(w.at(site, &format!("cat {dir}/open; stat -c %U {VOLUME}")), "open\nnobody");
        for attempt in [
            format!("cat {dir}/private"),
            format!("cat {dir}/closed/x"),
            format!("ls {dir}"),
            format!("echo y >> {dir}/open"),
            format!("rm -f {dir}/open"),
            format!("chmod 777 {dir}/private"),
            format!("chown $(id -u) {dir}/open"),
            format!("mv {dir} {VOLUME}/mine"),
            format!("ln -s /etc/passwd {dir}/link"),
            format!("rmdir {dir}-empty"),
            format!("rm -f {dir}-file"),
            format!("mv {dir}-file {VOLUME}/mine"),
            format!("chmod 777 {VOLUME}"),
        ] {
            let said = w.xsub(person, &["--on", site, "--", "sh", "-c", &attempt]);
            assert_ne!(said.code, 0, "{name} may {attempt} at {site}: {}", said.out);
            let told = said.err.contains("ermission denied") || said.err.contains("not permitted");
            assert!(told, "{attempt}: {}", said.err);
        }
        let all = format!("cat {dir}/private {dir}/open {dir}/closed/x; stat -c %a {dir}/private");
        let said = w.xsub(&w.petra, &["--on", site, "--", "sh", "-c", &all]).ok();
        assert_eq!(said, "secret\nopen\nx\n600\n");
    }
}

/// If it failed, a program would start without its input, or its result stay on the node.
fn files_are_staged(w: &World) {
    w.at("rennes", &format!("mkdir {VOLUME}/st; echo 20 22 > {VOLUME}/st/numbers"));
    let program = ["--", "sh", "-c", "read a b < in; echo $((a+b)) > sum; echo kept > other"];
    let stage = ["--stage-in", "st/numbers=in", "--stage-out", "sum=st/sum"];
    for site in ["pisa", "rennes"] {
        let on = ["--on", site];
        w.xsub(&w.milo, &[on.as_slice(), &stage, &program].concat()).ok();
        let other = if site == "pisa" { "rennes" } else { "pisa" };
        let script = format!("cat {VOLUME}/st/sum; rm {VOLUME}/st/sum");
        assert_eq!(w.at(other, &script), "42", "staged out at {site}");
        // Results are copied out also when the program failed.
        let fail = ["--", "sh", "-c", "echo half > sum; exit 9"];
        let said = w.xsub(&w.milo, &[on.as_slice(), &stage, &fail].concat());
        assert_eq!(said.code, 9, "{said:?}");
        assert_eq!(w.at(other, &script), "half");
        let missing = ["--stage-in", "st/none", "--", "echo", "ran"];
        let said = w.xsub(&w.milo, &[on.as_slice(), &missing].concat());
        assert!(!said.out.contains("ran"), "it ran without its input");
        said.refused(74, &["st/none"]);
        let said =
            w.xsub(&w.milo, &[on.as_slice(), &["--stage-out", "none", "--", "true"]].concat());
        said.refused(74, &["none"]);
    }
}

/// If it failed, real work would not come out right: units at one site only, a histogram lost or
/// mixed up, a picture that is not the slice.
fn the_example_finds_the_slice(w: &World) {
    let dir = format!("{VOLUME}/spect");
    let phantom = format!("spect phantom {dir}/body.spect --png {dir}/body.png");
    w.at("rennes", &format!("mkdir {dir}; {phantom}"));
    let job = include_str!("../../../examples/spect/job.toml");
    let few = format!("\"simulate\", \"--photons\", \"{PHOTONS}\", ");
    let job = job.replacen("\"simulate\", ", &few, 1);
    assert!(job.contains(PHOTONS), "the example has another form now");
    let file = w.write(&w.milo, "job.toml", &job);
    let said = w.xsub(&w.milo, &["--file", &file, "--json"]).json();
    let shown = w.json(&w.milo, &["job", "show", said["job"].as_str().unwrap(), "--units"]);
    assert_eq!(count(&shown, "done"), 17, "{shown}");
    let nodes: BTreeSet<&str> = units(&shown).iter().map(node).collect();
    for site in [".rennes", ".pisa"] {
        assert!(nodes.iter().any(|n| n.ends_with(site)), "no unit ran at {site}: {nodes:?}");
    }
    assert!(units(&shown).iter().all(|u| state(u) == "done"));
    let result = w.at("pisa", &format!("head -c 8 {dir}/slice.png | od -An -tx1; {}", merge(&dir)));
    let (png, json) = result.split_once('\n').unwrap();
    assert_eq!(png.trim(), "89 50 4e 47 0d 0a 1a 0a", "slice.png is no picture");
    let json: Json = serde_json::from_str(json).unwrap();
    let correlation = json["correlation"].as_f64().unwrap();
    println!("correlation {correlation} of {} counts", json["counts"]);
    assert!(correlation >= CORRELATION_MIN, "the slice is not recognised: {json}");
    assert_eq!(json["units"], 16);
    // The test can fail: histograms whose bins were mixed up give no slice.
    let shuffle = format!(
        "cd {dir}/hist; for h in *.hist; do spect shuffle $h tmp --seed 5; mv tmp $h; done"
    );
    w.at("rennes", &shuffle);
    let script = format!("{} --min-correlation {CORRELATION_MIN}", merge(&dir));
    let said = w.xsub(&w.milo, &["--on", "pisa", "--", "sh", "-c", &script]);
    assert_eq!(said.code, 3, "a mixed-up run passes for a slice: {}", said.out);
}

fn merge(dir: &str) -> String {
    format!(
        "spect merge --phantom {dir}/body.spect --out slice.png --expect 16 --json - {dir}/hist/"
    )
}
