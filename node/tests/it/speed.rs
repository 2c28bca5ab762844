use crate::support::*;
use std::time::{Duration, Instant};
use xos_node::envelopes::Envelope;
use xos_node::event::Cursor;

/// Prints; asserts nothing about time.
#[tokio::test]
async fn how_fast_units_run_through_one_shim() {
    // wrong: units are lost under load
    let Some(node) = Node::new() else { return };
    let began = Instant::now();
    let e = node.start("1.rennes", |s| s.slots = 4).await;
    let ready = began.elapsed();
    let n: u32 = std::env::var("XOS_NODE_TEST_UNITS").map_or(1000, |n| n.parse().unwrap());
    let began = Instant::now();
    let ended = run(&e, (0..n).map(|n| unit(n, &["/bin/true"])).collect()).await;
    let took = began.elapsed();
    assert!(ended.values().all(|(o, _)| *o == exited(0)));
    let all = e.status().await.unwrap();
    let pid = all.shim_pid;
    let cpu = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let ticks: Vec<u64> =
            stat.split_whitespace().skip(13).take(2).map(|t| t.parse().unwrap()).collect();
        format!("{} + {} ms", ticks[0] * 10, ticks[1] * 10)
    };
    println!(
        "processor time (user + system): shim {}, init {}; all units and init {:?} us",
        cpu(pid),
        cpu(all.init_pid),
        all.usage.cpu_us
    );
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let rss = status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default();
    let rate = f64::from(n) / took.as_secs_f64();
    println!("envelope ready in {ready:?}; {n} x /bin/true in {took:?}: {rate:.0}/s; shim {rss}");
    node.finish(e).await;
}

/// From the request to the record of the first unit's end, in milliseconds.
async fn first_end(node: &Node, n: u32) -> (f64, f64, Envelope) {
    let began = Instant::now();
    let e = node.start(&format!("{n}.rennes"), |_| {}).await;
    let stood = began.elapsed().as_secs_f64() * 1000.0;
    let mut events = e.events(Cursor::default());
    e.start_units(vec![unit(0, &["/bin/true"])]).await.unwrap();
    ends(&mut events, 1).await;
    (stood, began.elapsed().as_secs_f64() * 1000.0, e)
}

/// Prints; asserts nothing about time.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn how_fast_an_envelope_runs_its_first_unit() {
    const ROUNDS: u32 = 20;
    // What the kernel waits for is not there again at once.
    const IDLE: Duration = Duration::from_millis(400);
    let Some(mut node) = Node::new() else { return };
    for (name, shells) in [("cold", 0), ("warm", 1)] {
        node.envelopes = node.envelopes.clone().warm(shells);
        let (mut stands, mut times) = (Vec::new(), Vec::new());
        for n in 0..ROUNDS {
            node.envelopes.fill_warm().await.unwrap();
            tokio::time::sleep(IDLE).await;
            let (stood, ended, e) = first_end(&node, n).await;
            stands.push(stood);
            times.push(ended);
            let mut events = e.events(Cursor::default());
            e.end(Duration::ZERO).await.unwrap();
            while patient(events.next()).await.unwrap().is_some() {}
            node.envelopes.forget(&e.spec().id).await.unwrap();
        }
        for (what, mut ms) in [("stands", stands), ("first unit ended", times)] {
            ms.sort_by(f64::total_cmp);
            let at = |p: usize| ms[ms.len() * p / 100];
            println!(
                "{name}, {what}: least {:.1}, median {:.1}, 90 % {:.1} ms",
                ms[0],
                at(50),
                at(90)
            );
        }
    }
    node.envelopes.end_warm().await.unwrap();
    node.nothing_left(&[]).await;
}
