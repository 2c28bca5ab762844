//! Work that goes on while things break, and a list of all that was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use xos_testbed::Cmd;
use xos_testbed::grid::Person;

use crate::tool::{Json, state};
use crate::wire::{Proof, ask};
use crate::world::{VO, VOLUME, World, sh, soon};

/// Where units note on their node that they ran; survives a crash of the host.
pub const RAN: &str = "/srv/ran";
/// The cores that own jobs, in turn.
const OWNERS: [&str; 2] = ["rennes", "pisa"];
/// Units of each job.
const UNITS: usize = 4;
/// Jobs between one fault and the next: all that ended stay known, and are looked at each time.
const JOBS_AT_A_TIME: usize = 8;
/// Most jobs that wait or run at a time, so that the load does not run away.
const OPEN_MAX: usize = 12;
/// Bytes of each file.
const FILE_BYTES: usize = 200_000;
/// Most files; then the oldest are removed.
const FILES_MAX: usize = 40;
/// Most people who are made members; then their certificates are renewed, again and again.
const MEMBERS_MAX: usize = 30;
/// Pause between two renewals, which take turns with everything else.
const RENEWAL_PAUSE: Duration = Duration::from_millis(500);
/// How long what was submitted may take to come to its end after the last fault.
const END_MAX: Duration = Duration::from_secs(120);
/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// All that was acknowledged.
#[derive(Default)]
pub struct Ledger {
    /// Each job, with how often its units may run again.
    jobs: Mutex<BTreeMap<String, u32>>,
    /// Each file of the volume, with its checksum.
    files: Mutex<BTreeMap<String, String>>,
    /// Each member, with their number.
    members: Mutex<BTreeMap<String, u64>>,
    /// Each member's newest certificate, with its key.
    certificates: Mutex<BTreeMap<String, String>>,
    /// How many certificates were renewed by the one before.
    renewed: AtomicUsize,
    /// How many jobs there may be now.
    allowed: AtomicUsize,
    stop: AtomicBool,
    /// Requests that were not acknowledged.
    refused: Mutex<BTreeMap<String, usize>>,
}

impl Ledger {
    /// Prepares the nodes.
    pub fn new(w: &World) -> Ledger {
        for node in w.nodes() {
            sh(node, &format!("touch {RAN}; chmod 666 {RAN}"));
        }
        w.xsub(&w.petra, &["--", "mkdir", &format!("{VOLUME}/files")]).ok();
        Ledger::default()
    }

    /// Lets the workers finish what they are at.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Lets some more jobs come.
    pub fn allow_jobs(&self) {
        self.allowed.fetch_add(JOBS_AT_A_TIME, Ordering::SeqCst);
    }

    fn enough_jobs(&self) -> bool {
        self.jobs.lock().unwrap().len() >= self.allowed.load(Ordering::SeqCst)
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// How much there is, for people.
    pub fn summary(&self) -> String {
        let counts = self.counts().map(|(what, n)| format!("{n} {what}")).join(", ");
        let refused = self.refused.lock().unwrap().values().sum::<usize>();
        format!("{counts}; {refused} requests not acknowledged")
    }

    /// How much of each kind was acknowledged and is to be there.
    fn counts(&self) -> [(&'static str, usize); 6] {
        let jobs = self.jobs.lock().unwrap();
        let owned = |owner: &str| jobs.keys().filter(|job| owner_of(job) == owner).count();
        [
            ("jobs of rennes", owned("rennes")),
            ("jobs of pisa", owned("pisa")),
            ("files", self.files.lock().unwrap().len()),
            ("members", self.members.lock().unwrap().len()),
            ("certificates", self.certificates.lock().unwrap().len()),
            ("renewals", self.renewed.load(Ordering::SeqCst)),
        ]
    }

    /// Waits until there is something of each kind that the first kill could lose; the first
    /// comparison renews a certificate.
    pub fn begun(&self) {
        soon("something of each kind is acknowledged", || {
            let there = |&(what, n): &(&str, usize)| n > 0 || what == "renewals";
            self.counts().iter().all(there).then_some(())
        });
    }

    /// There is something of each kind: what was compared was not nothing.
    pub fn demand(&self) {
        for (what, n) in self.counts() {
            assert!(n > 0, "there are no {what}, so that nothing was shown of them");
        }
    }

    /// Submits jobs, to one core and the other, until told to stop.
    pub fn jobs(&self, w: &World) {
        for number in 0_u32.. {
            let (retry, owner) = (number % 2, OWNERS[usize::from(number / 2 % 2 == 1)]);
            let array = format!("0-{}", UNITS - 1);
            let script = format!("echo $XOS_JOB_ID:$XOS_UNIT_INDEX >> {RAN}; sleep 0.2");
            let options =
                ["--detach", "--site", owner, "--retry", &retry.to_string(), "--array", &array];
            let command = ["--cpus", "0.5", "--memory", "32M", "--", "sh", "-c", &script];
            let said = w.xsub(&w.milo, &[options.as_slice(), &command].concat());
            match said.code {
                0 => drop(self.jobs.lock().unwrap().insert(said.out.trim().to_owned(), retry)),
                _ => self.not_acknowledged("a job", &said.err),
            }
            while self.goes_on() && (self.enough_jobs() || open_jobs(w) > OPEN_MAX) {
                std::thread::sleep(LOOK_EVERY);
            }
            if !self.goes_on() {
                return;
            }
        }
    }

    /// Writes files until told to stop; acknowledged is what the job says it synced.
    pub fn files(&self, w: &World) {
        for number in 0_usize.. {
            let file = format!("{VOLUME}/files/{number}");
            // A job that was accepted unheard may run later: no two use the same names.
            let mut script = format!(
                "f=f.$XOS_JOB_ID; head -c {FILE_BYTES} /dev/urandom > $f; md5sum < $f; \
                 dd if=$f of={file} bs=64k conv=fsync status=none; rm $f"
            );
            if let Some(gone) = number.checked_sub(FILES_MAX) {
                let old = format!("{VOLUME}/files/{gone}");
                self.files.lock().unwrap().remove(&old);
                // What an earlier job did not get to remove, too.
                script += &format!(
                    "; for g in {VOLUME}/files/*; do [ ${{g##*/}} -gt {gone} ] || rm -f $g; done"
                );
            }
            let said = w.xsub(&w.petra, &["--cpus", "0.5", "--", "sh", "-ec", &script]);
            match said.code {
                0 => {
                    let sum = said.out.split(' ').next().unwrap().to_owned();
                    assert_eq!(sum.len(), 32, "its output is missing: {:?} {}", said.out, said.err);
                    self.files.lock().unwrap().insert(file, sum);
                }
                _ => self.not_acknowledged("a file", &said.err),
            }
            if !self.goes_on() {
                return;
            }
        }
    }

    /// Makes people members, who get certificates, and renews those, until told to stop.
    pub fn members(&self, w: &World) {
        for number in 0.. {
            if self.members.lock().unwrap().len() < MEMBERS_MAX {
                if let Err(why) = self.member(w, &format!("p{number}")) {
                    self.not_acknowledged("a member", &why);
                }
            } else {
                if let Err(why) = self.renew(w, number) {
                    self.not_acknowledged("a renewal", &why);
                }
                std::thread::sleep(RENEWAL_PAUSE);
            }
            if !self.goes_on() {
                return;
            }
        }
    }

    /// Gets a certificate for a new key by one of those that there are; `number` chooses.
    fn renew(&self, w: &World, number: usize) -> Result<(), String> {
        let all = self.certificates.lock().unwrap().clone();
        let Some((id, present)) = all.iter().nth(number % all.len().max(1)) else {
            return Err("there is none to renew".to_owned());
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        let body = serde_json::json!({ "vo": VO, "csr_pem": csr.pem().unwrap() }).to_string();
        let proof = Proof::Certificate(present);
        let said = ask(&w.laptop(), "rennes", proof, "POST /v1/certificates", body.as_bytes());
        let Some(chain) = said.body["chain_pem"].as_str() else {
            return Err(format!("{id}: status {}: {}", said.status, said.body));
        };
        let renewed = format!("{}{chain}", key.serialize_pem());
        self.certificates.lock().unwrap().insert(id.clone(), renewed);
        self.renewed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn member(&self, w: &World, name: &str) -> Result<(), String> {
        let person = w.grid.purse().person(name, "rennes").unwrap();
        let password = |cmd: Cmd| cmd.stdin(person.password.as_bytes());
        let add =
            w.rennes.admin.command("xos").args(["person", "add", name, "--password-file", "-"]);
        match w.rennes.core.run(&password(add)) {
            Ok(out) if out.exit.is_success() => {}
            Ok(out) => return Err(String::from_utf8_lossy(&out.stderr).into_owned()),
            Err(e) => return Err(e.to_string()),
        }
        let core = format!("rennes-core:{}", xos_testbed::grid::PORT);
        let known = ["site", "add", &core, "--fingerprint", &w.rennes.fingerprint];
        attempt(w, &person, &known)?;
        let login = |vo: &[&str]| {
            let login = ["login", &person.id(), "--password-file", "-"];
            password(person.command("xos").args(login).args(vo))
        };
        w.laptop().run(&login(&[])).unwrap().ok().map_err(|e| e.to_string())?;
        attempt(w, &person, &["vo", "apply", VO])?;
        let made = attempt(w, &w.vera, &["vo", "approve", VO, &person.id(), "--json"])?;
        let made: Json = serde_json::from_str(&made).expect("a member");
        let member = made["number"].as_u64().expect("a member's number");
        self.members.lock().unwrap().insert(person.id(), member);
        w.laptop().run(&login(&["--vo", VO])).unwrap().ok().map_err(|e| e.to_string())?;
        let pem = w.credential(&person, VO).pem();
        self.certificates.lock().unwrap().insert(person.id(), pem);
        Ok(())
    }

    /// Notes a request that was not acknowledged; why, is shown once for each reason.
    fn not_acknowledged(&self, what: &str, why: &str) {
        let why = why.lines().next().unwrap_or_default();
        let plain: String = why.chars().filter(|c| !c.is_ascii_digit()).collect();
        let count = &mut *self.refused.lock().unwrap();
        let times = count.entry(format!("{what}: {plain}")).or_default();
        *times += 1;
        if *times == 1 {
            println!("     not acknowledged: {what}: {why}");
        }
    }

    /// Compares what was acknowledged until now with what is there.
    pub fn compare(&self, w: &World) {
        let jobs: Vec<String> = self.jobs.lock().unwrap().keys().cloned().collect();
        let mut there = BTreeSet::new();
        for owner in OWNERS {
            let list = soon(&format!("{owner} lists its jobs"), || listed(w, owner, &[]));
            there.extend(list.iter().map(|j| j["job"].as_str().expect("a job's id").to_owned()));
        }
        for job in jobs {
            assert!(there.contains(&job), "job {job} was acknowledged and is lost: {there:?}");
        }
        let members = self.members.lock().unwrap().clone();
        let there = w.json(&w.vera, &["vo", "members", VO]);
        let there = there.as_array().unwrap();
        for (id, number) in members {
            let found = there.iter().find(|m| m["person"] == *id);
            let found = found.unwrap_or_else(|| panic!("member {id} was acknowledged and is lost"));
            assert_eq!(found["number"], number, "{id} has another number now");
        }
        let certificates = self.certificates.lock().unwrap().clone();
        for (id, pem) in &certificates {
            let said = ask(&w.laptop(), "rennes", Proof::Certificate(pem), "GET /v1/me", b"");
            assert_eq!(said.body["person"], **id, "a certificate counts no more: {}", said.text);
        }
        let turn = self.renewed.load(Ordering::SeqCst);
        self.renew(w, turn).unwrap_or_else(|e| panic!("a certificate cannot be renewed: {e}"));
        self.compare_files(w);
    }

    /// Reads every file at a site chosen by the scheduler.
    fn compare_files(&self, w: &World) {
        let files = self.files.lock().unwrap().clone();
        assert!(!files.is_empty(), "there is no file to compare");
        // What cannot be read says why in place of its sum.
        let script =
            format!("cd {VOLUME}/files; for f in *; do echo $f $( (md5sum < $f) 2>&1 ); done");
        let out = w.xsub(&w.petra, &["--cpus", "0.5", "--retry", "3", "--", "sh", "-c", &script]);
        let out = out.ok();
        // What left the list meanwhile may have been removed before it was read.
        let still = self.files.lock().unwrap().clone();
        for (file, sum) in files.into_iter().filter(|(file, _)| still.contains_key(file)) {
            let name = file.rsplit('/').next().unwrap();
            let want = format!("{name} {sum}");
            let line = out.lines().find(|l| l.split(' ').next() == Some(name));
            let same = line.is_some_and(|l| l.starts_with(&want));
            assert!(
                same,
                "{file} was acknowledged; it differs: want {want}, found {line:?}: {out}"
            );
        }
    }

    /// Waits until every job has come to its end, and compares what ran with what was promised.
    pub fn settle(&self, w: &World) {
        let start = Instant::now();
        while open_jobs(w) > 0 {
            let open = || OWNERS.map(|owner| listed(w, owner, &["--open"]));
            assert!(start.elapsed() < END_MAX, "jobs do not come to their end: {:?}", open());
            std::thread::sleep(LOOK_EVERY);
        }
        let mut runs: BTreeMap<String, usize> = BTreeMap::new();
        for node in w.nodes() {
            for line in sh(node, &format!("cat {RAN}")).lines() {
                *runs.entry(line.to_owned()).or_default() += 1;
            }
        }
        let mut ends: BTreeMap<String, usize> = BTreeMap::new();
        for (job, retry) in self.jobs.lock().unwrap().iter() {
            let shown = w.json(&w.milo, &["job", "show", job, "--units"]);
            let units = shown["units"].as_array().unwrap();
            assert_eq!(units.len(), UNITS, "{shown}");
            for unit in units {
                let ran = runs.get(unit["unit"].as_str().unwrap()).copied().unwrap_or(0);
                judge(unit, *retry, ran);
                *ends.entry(state(unit).to_owned()).or_default() += 1;
            }
        }
        println!("units: {ends:?}");
        assert!(ends.get("done").is_some_and(|n| *n > 0), "nothing was done at all");
    }
}

/// Whether a unit's end and the number of its runs go together.
fn judge(unit: &Json, retry: u32, ran: usize) {
    let may = usize::try_from(retry).unwrap() + 1;
    assert!(ran <= may, "it ran {ran} times, {may} were allowed: {unit}");
    match state(unit) {
        "done" => assert!(ran >= 1, "it is done and never ran: {unit}"),
        "lost" => {
            let reason = unit["state"]["reason"].as_str().unwrap_or_default();
            assert!(!reason.is_empty(), "it is lost without a reason: {unit}");
        }
        "failed" => assert!(unit["state"]["end"].is_object(), "nobody says how it failed: {unit}"),
        other => panic!("a unit ended as {other}: {unit}"),
    }
}

fn attempt(w: &World, person: &Person, args: &[&str]) -> Result<String, String> {
    let said = w.xos(person, args);
    if said.code == 0 { Ok(said.out) } else { Err(said.err) }
}

/// The site whose core owns a job.
fn owner_of(job: &str) -> &str {
    job.rsplit('.').next().unwrap_or_default()
}

/// Milo's jobs at the core that owns them; `None` when it cannot be asked.
fn listed(w: &World, owner: &str, more: &[&str]) -> Option<Vec<Json>> {
    let ask = ["job", "list", "--all", "--json", "--site", owner];
    let said = w.xos(&w.milo, &[ask.as_slice(), more].concat());
    serde_json::from_str(&said.out).ok()
}

/// How many of milo's jobs have not ended; many when a core cannot be asked.
fn open_jobs(w: &World) -> usize {
    let open = OWNERS.map(|owner| listed(w, owner, &["--open"]).map_or(usize::MAX, |l| l.len()));
    open.into_iter().fold(0, usize::saturating_add)
}
