//! Golden files: what people and their scripts depend on.

/// Compares `text` with `xos/tests/cli/golden/<name>`; XOS_BLESS=1 writes it.
pub fn check(name: &str, text: &str) {
    let dir = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/golden"));
    let path = dir.join(name);
    if std::env::var_os("XOS_BLESS").is_some() {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, want, "{name} changed; if meant so: XOS_BLESS=1 cargo nextest run");
}
