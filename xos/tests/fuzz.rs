//! What fuzzing keeps (`fuzz/corpus`): each decoder of what comes from outside is given it again.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

#[path = "../../fuzz/src/lib.rs"]
mod targets;

fn fuzz(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("fuzz").join(name)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    found.map(|entry| entry.unwrap().path()).collect()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

/// If it failed, a stranger could end a core, a node, or the process of whoever looks a name up or
/// signs in.
#[test]
fn what_is_kept_is_survived() {
    for (name, target) in targets::TARGETS {
        let kept = files(&fuzz("corpus").join(name));
        assert!(!kept.is_empty(), "{name}: nothing is kept");
        for path in kept {
            let data = std::fs::read(&path).unwrap();
            assert!(catch_unwind(|| target(&data)).is_ok(), "{} is not survived", path.display());
        }
    }
}

/// If it failed, a decoder would not be fuzzed, or what is kept for it not be tried.
#[test]
fn each_decoder_has_its_program_and_its_folder() {
    let wanted: BTreeSet<String> = targets::TARGETS.iter().map(|t| t.0.to_owned()).collect();
    for folder in ["corpus", "fuzz_targets"] {
        let found: BTreeSet<String> = files(&fuzz(folder)).iter().map(|p| stem(p)).collect();
        assert_eq!(found, wanted, "{folder}");
    }
    let manifest = std::fs::read_to_string(fuzz("Cargo.toml")).unwrap();
    for name in wanted {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} in fuzz/Cargo.toml");
        let path = fuzz("fuzz_targets").join(format!("{name}.rs"));
        let program = std::fs::read_to_string(path).unwrap();
        assert!(program.contains(&format!("xos_fuzz::{name}(data)")), "{program}");
    }
}
