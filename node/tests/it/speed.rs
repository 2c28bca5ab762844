use crate::support::*;
use std::time::Instant;

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
