//! Golden files of this crate's tests: what people depend on, compared as text.

use std::path::Path;

/// Compares `text` with `tests/golden/<name>`; with `XOS_BLESS=1` writes it.
pub(crate) fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("XOS_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    if want != text {
        let differs = want.lines().zip(text.lines()).position(|(a, b)| a != b);
        panic!(
            "{name} differs from its golden file (first at line {:?}); XOS_BLESS=1 writes it anew:\n{text}",
            differs.map(|l| l + 1)
        );
    }
}
