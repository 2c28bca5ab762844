//! A benchmark that prints; run it with `--run-ignored all -E 'test(speed)' --no-capture`.

use crate::world::{World, certificate_request, keyed, member};
use std::sync::Arc;
use std::time::Instant;

const ROUNDS: u32 = 2000;
const TASKS: u32 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a benchmark: prints certificates issued per second"]
async fn certificates_per_second() {
    let w = Arc::new(World::new("rennes").await);
    let alice = w.person("alice").await;
    w.vos.set(member("demo.rennes", "alice@rennes"));
    let csr = keyed().csr_pem;
    let start = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (w, alice, csr) = (w.clone(), alice.clone(), csr.clone());
            tokio::spawn(async move {
                for _ in 0..ROUNDS / TASKS {
                    w.call(&alice, certificate_request("demo.rennes", &csr)).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    println!("{:.0} certificates/s", f64::from(ROUNDS) / start.elapsed().as_secs_f64());
}
