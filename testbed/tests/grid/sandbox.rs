use crate::world::World;
#[test]
#[ignore]
fn sandbox() {
    let Some(w) = World::new() else { return };
    std::fs::write("/tmp/sandbox.dir", w.grid.testbed().dir().display().to_string()).unwrap();
    let _ = std::fs::remove_file("/tmp/sandbox.stop");
    while !std::path::Path::new("/tmp/sandbox.stop").exists() {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}
