//! A benchmark that prints; run it with `--run-ignored all -E 'test(speed)' --no-capture`.

use crate::world::{World, certificate_request, keyed, member, ssh_line};
use std::sync::Arc;
use std::time::Instant;
use xos_api::cda::IssueCertificate;

const ROUNDS: u32 = 2000;
const TASKS: u32 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a benchmark: prints certificates issued per second"]
async fn certificates_per_second() {
    let alone = certificate_request("demo.rennes", &keyed().csr_pem);
    println!("{:.0} certificates/s", per_second(alone.clone()).await);
    let (ssh_key, jwt_audience) = (Some(ssh_line()), Some("https://s3.example".into()));
    let all = IssueCertificate { ssh_key, jwt_audience, ..alone };
    println!("{:.0} sets of certificate, SSH certificate and JWT/s", per_second(all).await);
}

async fn per_second(ask: IssueCertificate) -> f64 {
    let w = Arc::new(World::new("rennes").await);
    let alice = w.person("alice").await;
    w.vos.set(member("demo.rennes", "alice@rennes"));
    let start = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (w, alice, ask) = (w.clone(), alice.clone(), ask.clone());
            tokio::spawn(async move {
                for _ in 0..ROUNDS / TASKS {
                    w.call(&alice, ask.clone()).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    f64::from(ROUNDS) / start.elapsed().as_secs_f64()
}
