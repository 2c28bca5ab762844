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
    let n = 1000;
    let began = Instant::now();
    let ended = run(&e, (0..n).map(|n| unit(n, &["/bin/true"])).collect()).await;
    let took = began.elapsed();
    assert!(ended.values().all(|(o, _)| *o == exited(0)));
    let pid = e.status().await.unwrap().shim_pid;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let rss = status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default();
    let rate = f64::from(n) / took.as_secs_f64();
    println!("envelope ready in {ready:?}; {n} x /bin/true in {took:?}: {rate:.0}/s; shim {rss}");
    node.finish(e).await;
}
