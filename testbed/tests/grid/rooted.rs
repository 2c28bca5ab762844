//! Somebody is root on a node: what they get, and what not.

use xos_testbed::grid::Person;
use xos_testbed::{Cmd, Host};

use crate::attacker::{self, ORDERS, Orders, REPORT, Report};
use crate::flow::until_there;
use crate::tool::{Json, node, state, units};
use crate::world::{VO, VOLUME, World, sh, soon};

/// If it failed, one broken node would open the files of everybody in the VO.
#[test]
fn a_rooted_node_gets_only_what_people_do_there() {
    let Some(w) = World::new() else { return };
    let scene = Scene::set(&w);
    w.step("root_reads_nobodys_files", |_| scene.root_reads_nobodys_files());
    w.step("a_uid_is_no_proof", |_| scene.a_uid_is_no_proof());
    w.step("tickets_are_for_people_who_work_here", |_| {
        scene.tickets_are_for_people_who_work_here()
    });
    w.step("a_ticket_serves_one_node", |_| scene.a_ticket_serves_one_node());
    w.step("a_capability_serves_one_node", |_| scene.a_capability_serves_one_node());
    w.step("a_node_is_only_itself", |_| scene.a_node_is_only_itself());
    scene.end();
    w.serves();
}

/// The attacker's program. `rooted.rs` runs it inside a host.
#[test]
#[ignore = "runs inside a host, started by another test"]
fn the_attackers_program() {
    match std::env::var(ORDERS) {
        Ok(orders) => {
            let report = attacker::run(&orders);
            println!("\n{REPORT}{}", serde_json::to_string(&report).unwrap());
        }
        Err(_) => println!("nothing to do: another test starts this inside a host"),
    }
}

/// Milo works on one node of pisa, petra at rennes only; both have private files.
struct Scene<'a> {
    w: &'a World,
    /// Where milo works.
    works: &'a Host,
    /// The other node of pisa, where nobody works.
    idle: &'a Host,
    jobs: [(&'a Person, String); 2],
}

impl<'a> Scene<'a> {
    fn set(w: &'a World) -> Scene<'a> {
        let private = |person: &Person| {
            let dir = format!("{VOLUME}/{}", person.name);
            let hold = until_there(&format!("{VOLUME}/go-{}", person.name));
            format!(
                "mkdir -m 700 {dir}; umask 077; echo secret of {} > {dir}/private; {hold}",
                person.name
            )
        };
        // Two processors: a whole node.
        let start = |person: &'a Person, site| {
            let options = ["--on", site, "--cpus", "2", "--", "sh", "-ec", &private(person)];
            let job = w.start(person, &options);
            let at = soon("the work runs", || {
                let shown = w.json(person, &["job", "show", &job]);
                let unit = &units(&shown)[0];
                (state(unit) == "running").then(|| node(unit).to_owned())
            });
            ((person, job), at)
        };
        let (milo, at) = start(&w.milo, "pisa");
        let (petra, _) = start(&w.petra, "rennes");
        let [n1, n2] = w.pisa.nodes.as_slice() else { panic!("pisa has two nodes") };
        let (works, idle) = if at == "n1.pisa" { (n1, n2) } else { (n2, n1) };
        let scene = Scene { w, works, idle, jobs: [milo, petra] };
        // So that refusals below are refusals: as milo, where milo works, the file can be read.
        let uid = scene.uid(&w.milo);
        soon("milo's file is there", || {
            let cat = scene.as_uid(works, uid, &format!("cat {VOLUME}/milo/private"));
            (cat == "secret of milo\n").then_some(())
        });
        scene
    }

    fn uid(&self, person: &Person) -> u32 {
        sh(self.idle, &format!("id -u {}.{VO}", person.name)).parse().unwrap()
    }

    /// Both streams of a script that root runs with another uid.
    fn as_uid(&self, host: &Host, uid: u32, script: &str) -> String {
        let gid = sh(self.idle, &format!("id -g milo.{VO}"));
        let switch =
            format!("exec setpriv --reuid {uid} --regid {gid} --clear-groups sh -c \"$0\" 2>&1");
        let out = host.run(&Cmd::new("sh").args(["-c", &switch, script])).unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn end(self) {
        for (person, job) in &self.jobs {
            self.w.run(person, "xkill", &[job]).ok();
            self.w.run(person, "xwait", &[job]);
        }
    }

    /// If it failed, root on any node would read the whole volume.
    fn root_reads_nobodys_files(&self) {
        for host in [self.works, self.idle] {
            for script in [
                format!("cat {VOLUME}/petra/private"),
                format!("cat {VOLUME}/milo/private"),
                format!("ls {VOLUME}/petra"),
                format!("rm -rf {VOLUME}/petra/private"),
                format!("chmod -R 777 {VOLUME}/petra"),
                format!("chown -R root {VOLUME}/petra"),
                format!("touch {VOLUME}/by-root"),
            ] {
                let out = host.run(&Cmd::shell(script.as_str())).unwrap();
                let said = String::from_utf8_lossy(&out.stderr);
                assert!(out.stdout.is_empty(), "root may {script}: {out:?}");
                let told = said.contains("ermission denied") || said.contains("not permitted");
                assert!(told, "{script}: {said}");
            }
        }
    }

    /// If it failed, `su` to a member's account would be enough to have their files.
    fn a_uid_is_no_proof(&self) {
        let (milo, petra) = (self.uid(&self.w.milo), self.uid(&self.w.petra));
        // Members who do not work there, numbers of nobody, and the first ones of the block.
        for (host, uid) in [
            (self.idle, milo),
            (self.idle, petra),
            (self.works, petra),
            (self.works, petra + 1000),
            (self.works, petra + 65_536),
            (self.works, milo - 2),
            (self.works, 12_345),
        ] {
            for name in ["petra", "milo"] {
                let said = self.as_uid(host, uid, &format!("cat {VOLUME}/{name}/private"));
                assert!(!said.contains("secret"), "uid {uid} reads {name}'s file on {host:?}");
                assert!(said.contains("denied"), "uid {uid}: {said}");
            }
            let said = self.as_uid(host, uid, &format!("echo x > {VOLUME}/forged"));
            assert!(said.contains("denied"), "uid {uid} writes: {said}");
        }
        // Where milo works, root is milo, and no more than that.
        let said = self.as_uid(self.works, milo, &format!("cat {VOLUME}/petra/private"));
        assert!(said.contains("denied"), "{said}");
        let gone = "nobody may be shown from the cache what another looked up";
        assert!(
            !self.as_uid(self.works, petra, &format!("ls {VOLUME}/milo")).contains("private"),
            "{gone}"
        );
    }

    /// The answer of a node's daemon to a request for a member's ticket.
    fn ticket(&self, host: &Host, member: u32) -> Json {
        let script = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die $!; \
                      print $s $ARGV[1], \"\\n\"; $s->flush; print scalar <$s>;";
        let request = format!("{{\"vo\":\"{VO}\",\"member\":{member}}}");
        let socket = "/var/lib/xos/node/volumes/tickets.sock";
        let perl = Cmd::new("perl").args(["-e", script, socket, &request]);
        serde_json::from_str(&host.run(&perl).unwrap().ok().unwrap()).unwrap()
    }

    fn number(&self, person: &Person) -> u32 {
        self.w.credential(person, VO).membership().number.0
    }

    /// Milo's ticket, taken by root where milo works.
    fn stolen(&self) -> String {
        let got = self.ticket(self.works, self.number(&self.w.milo));
        got["ticket"]["jws"].as_str().unwrap_or_else(|| panic!("no ticket: {got}")).to_owned()
    }

    /// If it failed, a node would hold the right to act for everybody.
    fn tickets_are_for_people_who_work_here(&self) {
        self.stolen();
        let petra = self.number(&self.w.petra);
        for (host, member) in
            [(self.works, petra), (self.idle, petra), (self.idle, 2), (self.idle, 1)]
        {
            let got = self.ticket(host, member);
            assert!(got.get("ticket").is_none(), "member {member} does not work there: {got}");
        }
        // A mount of the attacker's own that takes milo's uid for petra.
        let script = format!(
            "cd /var/lib/xos/node/volumes; mkdir -p /tmp/evil; umask 077; \
             sed -E 's#\"at\": *\"[^\"]*\"#\"at\":\"/tmp/evil\"#; s#\"base\": *([0-9]+)#\"base\":{}#' \
             {VO}.json > /tmp/evil.json; grep -q /tmp/evil /tmp/evil.json; \
             setsid xosd mount /tmp/evil.json > /tmp/evil.log 2>&1 < /dev/null & \
             for i in $(seq 100); do grep -q /tmp/evil /proc/mounts && exit 0; sleep 0.05; done; \
             cat /tmp/evil.log; exit 1",
            self.uid(&self.w.milo) - petra,
        );
        sh(self.works, &script);
        let milo = self.uid(&self.w.milo);
        for name in ["milo", "petra"] {
            let said = self.as_uid(self.works, milo, &format!("cat /tmp/evil/{name}/private"));
            assert!(said.contains("denied"), "by a mount of one's own: {said}");
        }
        sh(self.works, "umount /tmp/evil");
    }

    /// What the attacker's program on `host` reports.
    fn attack(&self, host: &Host, orders: &Orders) -> Report {
        let program = std::env::current_exe().unwrap();
        let args = ["--ignored", "--exact", "rooted::the_attackers_program", "--nocapture"];
        let cmd = Cmd::new(program).args(args).env(ORDERS, serde_json::to_string(orders).unwrap());
        let out = host.run(&cmd).unwrap().ok().unwrap();
        let line = out.lines().find_map(|l| l.strip_prefix(REPORT));
        serde_json::from_str(line.unwrap_or_else(|| panic!("no report: {out}"))).unwrap()
    }

    fn wants(path: &str, ticket: Option<&String>) -> Orders {
        let path = path.split('/').map(str::to_owned).collect();
        Orders { ticket: ticket.cloned(), path, ..Orders::default() }
    }

    /// If it failed, a ticket taken from one node would serve any node.
    fn a_ticket_serves_one_node(&self) {
        let ticket = self.stolen();
        // With node and ticket together, root gets what milo could get.
        let report = self.attack(self.works, &Self::wants("milo/private", Some(&ticket)));
        assert_eq!(report["read"], "ok secret of milo\n", "{report:?}");
        assert_ne!(report["setattr"], "ok", "milo cannot give files away: {report:?}");
        let milo = format!("member {}", self.number(&self.w.milo));
        let refused = |host: &Host, path: &str, ticket: Option<&String>| {
            let report = self.attack(host, &Self::wants(path, ticket));
            assert!(!report.contains_key("read"), "{path} on {}: {report:?}", host.name());
            // By their numbers, files are opened that are milo's own, if he is believed to ask.
            let opened = report.values().filter(|said| said.starts_with("opened"));
            let others = |said: &&String| report["ticket"] != "ok" || !said.ends_with(&milo);
            assert_eq!(opened.filter(others).count(), 0, "{path} on {}: {report:?}", host.name());
            report
        };
        refused(self.works, "petra/private", Some(&ticket));
        for host in [self.idle, &self.w.rennes.nodes[0]] {
            let report = refused(host, "milo/private", Some(&ticket));
            assert!(report["ticket"].contains("another node"), "{report:?}");
        }
        for host in [self.works, self.idle] {
            let report = self.attack(host, &Self::wants("milo/private", None));
            assert!(!report.values().any(|said| said.starts_with("opened")), "{report:?}");
        }
        let (head, signature) = ticket.rsplit_once('.').unwrap();
        let flipped = if signature.starts_with('A') { 'B' } else { 'A' };
        let changed = format!("{head}.{flipped}{}", &signature[1..]);
        assert_ne!(refused(self.works, "milo/private", Some(&changed))["ticket"], "ok");
    }

    /// If it failed, a capability that was seen once would open a file from anywhere.
    fn a_capability_serves_one_node(&self) {
        let report = self.attack(self.works, &Self::wants("milo/private", Some(&self.stolen())));
        let orders = Orders {
            capability: Some((report["capability"].clone(), report["store"].clone())),
            ..Orders::default()
        };
        // For reading it was given, so it does not write.
        let here = self.attack(self.works, &orders);
        assert!(here["read"].starts_with("ok"), "{here:?}");
        assert!(here["write"] != "ok" && here["unlink"] != "ok", "{here:?}");
        // The store itself is left out: its root has the bytes on the own disk.
        let others = self.w.nodes().filter(|n| n.name() != self.works.name());
        let elsewhere = |n: &&Host| {
            let (site, label) = n.name().as_str().split_once('-').unwrap();
            format!("{label}.{site}") != report["store"]
        };
        for host in others.filter(elsewhere) {
            let there = self.attack(host, &orders);
            for step in ["read", "write", "unlink"] {
                assert!(!there[step].starts_with("ok"), "{step} from {}: {there:?}", host.name());
            }
        }
    }

    /// If it failed, one node could stand for others, or lead everybody to a false volume.
    fn a_node_is_only_itself(&self) {
        let orders = Orders { usurp: true, ..Self::wants("petra/private", None) };
        let report = self.attack(&self.w.pisa.nodes[0], &orders);
        for step in [
            "register a volume",
            "unregister a volume",
            "delete a volume",
            "make a volume",
            "register another's store",
        ] {
            assert_ne!(report[step], "ok", "{step}: {report:?}");
        }
    }
}
