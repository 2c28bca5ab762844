use crate::world::World;

#[test]
fn probe() {
    let Some(w) = World::new() else { return };
    let t = std::time::Instant::now();
    println!("{:?}", w.xos(&w.milo, &["id", "--json"]));
    println!("{:?}", w.xsub(&w.milo, &["--", "sh", "-c", "id; echo err >&2; pwd; env; exit 3"]));
    println!("{:?}", w.xsub(&w.petra, &["--on", "pisa", "--", "sh", "-c", "id -un; exit 0"]));
    println!("{:?}", w.xsub(&w.milo, &["-a", "0-7", "--", "sh", "-c", "id -un; exit 0"]));
    println!("{:?}", w.xos(&w.milo, &["job", "show", "3.rennes", "--json"]));
    println!("{:?}", w.xos(&w.milo, &["job", "list", "--json"]));
    println!("{:?}", w.xos(&w.milo, &["job", "why", "1.rennes", "--json"]));
    println!("{:?}", w.xos(&w.milo, &["vo", "members", "demo.rennes", "--json"]));
    println!("{:?}", t.elapsed());
}
