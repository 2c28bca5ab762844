//! A site that owns a job turns bad: what it can have another site run.

use crate::node::Node;
use crate::one_site::{spec, submit};
use crate::world::{Site, until};
use xos_api::aem::*;
use xos_api::audit::Outcome;
use xos_api::node::units::RenewTicket;
use xos_base::{Kind, Millis};

/// A job of two tasks of which alice signed every part.
fn signed() -> JobSpec {
    let mut s = spec("/bin/true", "0-3");
    let task = &mut s.tasks[0];
    task.argv.push("42".into());
    task.env.insert("SEED".into(), "1".into());
    (task.cwd, task.stdin) = (Some("work".into()), Some("in".into()));
    task.stdout = Some("out.%i".into());
    let stage = |name: &str, volume: &str| {
        vec![Stage { name: name.into(), volume: volume.into(), ..Stage::default() }]
    };
    (task.stage_in, task.stage_out) = (stage("in", "data/in"), stage("out", "results/out"));
    task.retry = 1;
    let mut merge = spec("/bin/false", "0").tasks.remove(0);
    (merge.name, merge.after) = ("merge".into(), vec!["main".into()]);
    s.tasks.push(merge);
    s
}

/// What the owner offers of `spec`, under a mandate for what alice signed.
fn offer(rennes: &Site, spec: &JobSpec, task: u16) -> HostUnits {
    let job = "1.rennes";
    let before = spec.tasks[..usize::from(task)].iter().map(|t| t.array.len()).sum();
    HostUnits {
        job: job.parse().unwrap(),
        vo: spec.vo.clone(),
        mandate: rennes.mandate(job, xos_aem::digest(&signed()).unwrap()),
        task,
        task_first: before,
        spec: spec.tasks[usize::from(task)].clone(),
        outline: xos_aem::outline(spec).unwrap(),
        units: vec![UnitRun { first: before, count: 1 }],
        attempt: 0,
        until: Millis(u64::MAX),
        want_output: false,
        moves: 0,
        carried: None,
    }
}

type Change = fn(&mut TaskSpec);

fn changes() -> Vec<(&'static str, Change)> {
    vec![
        ("program", |t| t.argv[0] = "/bin/sh".into()),
        ("argument", |t| t.argv[1] = "43".into()),
        ("one argument more", |t| t.argv.push("-x".into())),
        ("variable", |t| drop(t.env.insert("SEED".into(), "2".into()))),
        ("new variable", |t| drop(t.env.insert("LD_PRELOAD".into(), "x".into()))),
        ("working directory", |t| t.cwd = None),
        ("standard input", |t| t.stdin = Some("other".into())),
        ("output file", |t| t.stdout = Some(".bashrc".into())),
        ("array", |t| t.array = "0-4".parse().unwrap()),
        ("indices", |t| t.array = "1-4".parse().unwrap()),
        ("processors", |t| t.resources.cpu_milli = 2000),
        ("memory", |t| t.resources.memory_bytes *= 2),
        ("time", |t| t.resources.wall_time_s = Some(1)),
        ("process limits", |t| t.limits.open_files = Some(3)),
        ("staged input", |t| t.stage_in[0].volume = "private/key".into()),
        ("staged output", |t| t.stage_out[0].volume = "data/in".into()),
        ("staging", |t| t.stage_out.clear()),
        ("tries", |t| t.retry = 100),
        ("dependencies", |t| t.after = vec!["merge".into()]),
        ("name", |t| t.name = "other".into()),
    ]
}

/// If it failed, the site that owns a job could run another program under the person's mandate, at
/// every site of the VO.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_owner_runs_nothing_that_the_person_did_not_sign() {
    let (rennes, pisa) = (Site::new("rennes", &["n1"]).await, Site::new("pisa", &["n1"]).await);
    pisa.trusts(&rennes);
    pisa.serving(&[&rennes, &pisa]);
    let aem = pisa.start(|_| {}).await;
    let core = pisa.core_of(&rennes);
    let true_offer = offer(&rennes, &signed(), 0);
    let mut lies: Vec<(String, HostUnits)> = Vec::new();
    let run = |first| vec![UnitRun { first, count: 1 }];
    for (what, change) in changes() {
        let mut s = signed();
        change(&mut s.tasks[0]);
        // With an outline that fits what it offers, and with the one that alice signed.
        let whole = HostUnits { units: run(1), ..offer(&rennes, &s, 0) };
        let part = HostUnits { outline: true_offer.outline.clone(), ..whole.clone() };
        lies.push((format!("{what}, all changed"), whole));
        lies.push((format!("{what}, in the task alone"), part));
    }
    let other = |what: &str, change: &dyn Fn(&mut HostUnits)| {
        let mut o = HostUnits { units: run(1), ..true_offer.clone() };
        change(&mut o);
        (what.to_owned(), o)
    };
    lies.push(other("the place of another task", &|o| o.task = 1));
    lies.push(other("a task that is none", &|o| o.task = 2));
    lies.push(other("shifted units", &|o| (o.task_first, o.units) = (4, run(4))));
    lies.push(other("an attempt too many", &|o| o.attempt = 2));
    lies.push(other("other sites", &|o| o.outline.sites = vec!["pisa".parse().unwrap()]));
    lies.push(other("a mandate for nothing", &|o| {
        o.mandate = rennes.mandate("1.rennes", "0".repeat(64));
    }));
    lies.push(other("a mandate of another job", &|o| {
        o.mandate = rennes.mandate("2.rennes", xos_aem::digest(&signed()).unwrap());
    }));
    // Alice named the sites of her job, and pisa is none of them.
    let mut elsewhere = signed();
    elsewhere.sites = vec!["rennes".parse().unwrap()];
    let mut o = offer(&rennes, &elsewhere, 0);
    o.mandate = rennes.mandate("1.rennes", xos_aem::digest(&elsewhere).unwrap());
    o.units = run(1);
    lies.push(("a site that was not named".into(), o));

    let refused = async |lies: &[(String, HostUnits)]| {
        for (what, lie) in lies {
            let reply = pisa.ask(&core, lie.clone()).await.unwrap();
            assert!(reply.accepted.is_empty(), "taken: {what}");
            assert_eq!(reply.refusal.unwrap().rule, "mandate", "{what}");
        }
    };
    refused(&lies).await;
    until("pisa has a node", async || {
        let reply = pisa.ask(&core, true_offer.clone()).await.unwrap();
        reply.refusal.is_none().then_some(())
    })
    .await;
    // The same, now that the job and its first task are known; the outline is not needed any more.
    lies.retain(|(what, _)| what != "other sites");
    refused(&lies).await;
    // The other task, as it was signed, and a second try that alice allows.
    for (task, attempt) in [(1, 0), (0, 1)] {
        let o = HostUnits { attempt, ..offer(&rennes, &signed(), task) };
        let reply = pisa.ask(&core, o).await.unwrap();
        assert_eq!(reply.refusal, None, "an honest offer of task {task} was refused");
    }
    // A third try, or one that is called a move more often than anything moves.
    for (attempt, moves) in [(2, 0), (MOVES_MAX + 1, MOVES_MAX + 1)] {
        let o = HostUnits { attempt, moves, ..offer(&rennes, &signed(), 0) };
        let reply = pisa.ask(&core, o).await.unwrap();
        assert_eq!(reply.refusal.unwrap().rule, "mandate", "attempt {attempt}, {moves} moves");
    }
    aem.stop().await;
}

/// If it failed, work that was held and goes on would have no files, or a rooted node would get
/// tickets of people who work elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_a_fresh_ticket_for_work_of_its_own() {
    let site = Site::new("rennes", &["n1", "n2"]).await;
    let aem = site.start(|_| {}).await;
    let alice = site.caller(&site, "alice@rennes", &[]);
    let job = site.ask(&alice, submit(spec("hold", "0"))).await.unwrap().job;
    let [here, there] = ["n1", "n2"].map(|label| site.node(label));
    let works = async || {
        let of = |n: &std::sync::Arc<Node>| n.envelopes.lock().unwrap().keys().next().cloned();
        let found = of(&here).map(|e| (&here, &there, e));
        found.or_else(|| of(&there).map(|e| (&there, &here, e)))
    };
    let (worker, other, envelope) = until("the unit is there", works).await;
    let ask = async |node: &Node| {
        let caller = site.verifier.certificate(&node.chain, None).unwrap();
        site.ask(&caller, RenewTicket { envelope: envelope.clone() }).await
    };
    let ticket = ask(worker).await.unwrap().ticket;
    assert_eq!(ticket, format!("ticket for {}", worker.id));
    assert_eq!(ask(other).await.unwrap_err().kind, Kind::NotFound);
    let person = site.ask(&alice, RenewTicket { envelope: envelope.clone() }).await;
    assert!(person.is_err(), "a person got a node's ticket");
    site.ask(&alice, CancelJob { job: job.clone() }).await.unwrap();
    site.end_of(&alice, &job).await;
    assert_eq!(ask(worker).await.unwrap_err().kind, Kind::NotFound, "its work is over");
    aem.stop().await;
}

/// If it failed, nobody at a site would see that another one tries to stop what is not its own.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_units_in_vain_is_in_the_audit() {
    let (rennes, pisa) = (Site::new("rennes", &["n1"]).await, Site::new("pisa", &["n1"]).await);
    pisa.trusts(&rennes);
    let aem = pisa.start(|_| {}).await;
    let core = pisa.core_of(&rennes);
    for (job, kind) in [("1.delft", Kind::Denied), ("1.rennes", Kind::Conflict)] {
        let job = job.parse().unwrap();
        let r = HostLeave { job, unit: 3, attempt: 0, at: Millis(1), over: false };
        assert_eq!(pisa.ask(&core, r).await.unwrap_err().kind, kind);
    }
    let told = until("both are told", async || {
        let events = pisa.audit.events();
        let of = events.into_iter().filter(|e| e.what == "leave_cluster");
        let told: Vec<_> = of.map(|e| (e.on, e.outcome)).collect();
        (told.len() == 2).then_some(told)
    })
    .await;
    let [first, second] = ["1.delft:3".to_owned(), "1.rennes:3".to_owned()];
    assert_eq!(told, [(first, Outcome::Refused), (second, Outcome::Refused)]);
    aem.stop().await;
}
