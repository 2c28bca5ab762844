//! A module as cargo built it. The tests of pam-xos use this file too.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where cargo built it.
pub(crate) fn built(name: &str) -> PathBuf {
    let deps = env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let found = [deps.join(name), deps.join("..").join(name)];
    found.into_iter().find(|path| path.exists()).expect("cargo built no such module")
}

/// What a module brings into the program that loads it.
pub(crate) struct Linked {
    dynamic: String,
    symbols: String,
}

impl Linked {
    /// Reads it from the module. `None`, with the reason printed, where nothing can read it.
    pub(crate) fn read(module: &Path) -> Option<Linked> {
        let readelf = |options: &[&str]| {
            let output = Command::new("readelf").args(options).arg("--").arg(module).output();
            output.map(|output| String::from_utf8(output.stdout).unwrap())
        };
        let Ok(dynamic) = readelf(&["-W", "-d"]) else {
            println!("skipped: no readelf on this machine");
            return None;
        };
        let symbols = readelf(&["-W", "--dyn-syms"]).unwrap();
        assert!(!dynamic.is_empty() && !symbols.is_empty(), "readelf says nothing of {module:?}");
        Some(Linked { dynamic, symbols })
    }

    /// The lines that name the libraries it needs, each of which is one of `known`.
    pub(crate) fn needs_only(&self, known: &[&str]) -> Vec<&str> {
        let needed: Vec<&str> = self.dynamic.lines().filter(|l| l.contains("(NEEDED)")).collect();
        for line in &needed {
            assert!(known.iter().any(|name| line.contains(name)), "{line}");
        }
        needed
    }

    /// Whether it names this symbol: one of its own, or one that it takes from elsewhere.
    pub(crate) fn has(&self, name: &str, own: bool) -> bool {
        self.symbols.lines().any(|line| {
            line.contains(" UND ") != own
                && line.split_whitespace().any(|word| word.split('@').next() == Some(name))
        })
    }
}
