//! The program as people and jobs run it.

// clippy.toml lifts this for test functions only, not for their helpers.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const UNITS: u32 = 4;

fn spect(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spect"))
        .args(args)
        .current_dir(folder)
        .env_remove("XOS_UNIT_INDEX")
        .env_remove("XOS_UNIT_COUNT")
        .output()
        .unwrap()
}

fn done(folder: &Path, args: &[&str]) -> String {
    let output = spect(folder, args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    assert_eq!(error, "", "nothing but a terminal gets progress");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(folder: &Path, args: &[&str], code: i32) -> String {
    let output = spect(folder, args);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
    error
}

/// A phantom and the histograms of a whole run, `photons` per unit.
fn whole_run(photons: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    done(folder.path(), &["phantom", "body.spect", "--size", "32", "--png", "body.png"]);
    for unit in 0..UNITS {
        let (unit, units) = (unit.to_string(), UNITS.to_string());
        let line = done(
            folder.path(),
            &[
                "simulate",
                "--phantom",
                "body.spect",
                "--unit",
                &unit,
                "--units",
                &units,
                "--photons",
                photons,
                "--out",
                "hist/",
            ],
        );
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(
            line.starts_with(&format!("unit {unit} of {UNITS}: {photons} photons, ")),
            "{line}"
        );
    }
    folder
}

const MERGE: [&str; 6] = ["merge", "--phantom", "body.spect", "--out", "slice.png", "hist"];

fn merge_with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [MERGE.as_slice(), more].concat()
}

fn unit_file(folder: &Path, unit: u32) -> PathBuf {
    folder.join(format!("hist/unit-{unit:05}.hist"))
}

/// The purpose of the example: the picture is right, and the check notices when it is not.
#[test]
fn reconstructs_and_notices_shuffled_histograms() {
    let folder = whole_run("100000");
    let folder = folder.path();
    let args = ["--expect", "4", "--min-correlation", "0.9", "--json", "result.json"];
    let line = done(folder, &merge_with(&args));
    assert!(line.contains("4 units, 400000 photons, "), "{line}");
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("result.json")).unwrap()).unwrap();
    let good = json["correlation"].as_f64().unwrap();
    assert!(good >= 0.9, "{good}");
    assert_eq!(json["units"], 4);
    for (picture, width) in [("body.png", 384), ("slice.png", 780)] {
        let bytes = fs::read(folder.join(picture)).unwrap();
        let reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        assert_eq!((reader.info().width, reader.info().height), (width, 384), "{picture}");
    }

    for unit in 0..UNITS {
        let file = unit_file(folder, unit);
        let file = file.to_str().unwrap();
        done(folder, &["shuffle", file, file, "--seed", &unit.to_string()]);
    }
    let error = refused(folder, &merge_with(&["--min-correlation", "0.9", "--json", "-"]), 3);
    assert!(error.contains("below 0.9"), "{error}");
}

/// A unit that is run again must give the same file, and another unit another one; the numbers
/// that the job sets in the environment must count like those on the command line.
#[test]
fn units_repeat_exactly_and_take_the_jobs_numbers() {
    let folder = whole_run("5000");
    let folder = folder.path();
    let first = fs::read(unit_file(folder, 1)).unwrap();
    assert_ne!(first[60..], fs::read(unit_file(folder, 2)).unwrap()[60..]);
    let again = |more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_spect"))
            .args(["simulate", "--phantom", "body.spect", "--photons", "5000", "--out", "again"])
            .args(more)
            .current_dir(folder)
            .env("XOS_UNIT_INDEX", "1")
            .env("XOS_UNIT_COUNT", "4")
            .output()
            .unwrap()
    };
    assert!(again(&[]).status.success());
    assert_eq!(fs::read(folder.join("again")).unwrap(), first);
    assert!(again(&["--unit", "2"]).status.success());
    let second = fs::read(unit_file(folder, 2)).unwrap();
    assert_eq!(fs::read(folder.join("again")).unwrap(), second);
    let names: Vec<_> = fs::read_dir(folder.join("hist")).unwrap().collect();
    assert_eq!(names.len(), UNITS as usize, "a temporary file stayed behind");
}

/// Every bad file must be refused with exit code 2 and its name, whatever is wrong with it.
#[test]
fn bad_histograms_are_refused_by_name() {
    let folder = whole_run("5000");
    let folder = folder.path();
    let file = unit_file(folder, 2);
    let good = fs::read(&file).unwrap();
    let expect = |content: &[u8], words: &str| {
        fs::write(&file, content).unwrap();
        let error = refused(folder, &MERGE, 2);
        assert!(error.contains("unit-00002.hist") && error.contains(words), "{error}");
    };
    expect(b"", "does not begin with the mark");
    expect(&good[..good.len() / 2], "check sum");
    let mut flipped = good.clone();
    flipped[100] ^= 4;
    expect(&flipped, "check sum");
    expect(&fs::read(folder.join("body.spect")).unwrap(), "does not begin with the mark");
    expect(&fs::read(unit_file(folder, 1)).unwrap(), "unit 1 is already there");

    done(folder, &["phantom", "other.spect", "--size", "32", "--seed", "2"]);
    let simulate = |phantom: &str, seed: &str| {
        let out = file.to_str().unwrap();
        done(
            folder,
            &[
                "simulate",
                "--phantom",
                phantom,
                "--unit",
                "2",
                "--units",
                "4",
                "--photons",
                "5000",
                "--seed",
                seed,
                "--out",
                out,
            ],
        );
        fs::read(&file).unwrap()
    };
    expect(&simulate("other.spect", "1"), "another phantom");
    expect(&simulate("body.spect", "2"), "another run: its seed is 2");

    fs::remove_file(&file).unwrap();
    let error = refused(folder, &MERGE, 2);
    assert!(error.contains("1 of 4 histograms are missing: unit 2;"), "{error}");
    fs::write(&file, &good).unwrap();
    let error = refused(folder, &merge_with(&["--expect", "5"]), 2);
    assert!(error.contains("of a run of 4 units"), "{error}");
    assert!(!folder.join("slice.png").exists(), "a refused merge must not leave a picture");
    done(folder, &MERGE);
}

/// Wrong use must be told from a refusing system by the exit code, and must say what is wrong.
#[test]
fn wrong_use_has_its_own_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let simulate = |more: &[&'static str]| {
        [["simulate", "--phantom", "body.spect", "--out", "x"].as_slice(), more].concat()
    };
    assert!(refused(folder, &simulate(&[]), 2).contains("--unit"));
    let absent = refused(folder, &simulate(&["--unit", "0", "--units", "1"]), 1);
    assert!(absent.contains("body.spect: cannot read: No such file"), "{absent}");
    done(folder, &["phantom", "body.spect", "--size", "16"]);
    let beyond = refused(folder, &simulate(&["--unit", "4", "--units", "4"]), 2);
    assert!(beyond.contains("`unit` holds 4"), "{beyond}");
    refused(folder, &["phantom", "big.spect", "--size", "129"], 2);
    refused(folder, &merge_with(&["--min-correlation", "NaN"]), 2);
    fs::create_dir(folder.join("hist")).unwrap();
    assert!(refused(folder, &MERGE, 2).contains("no histogram to merge"));
    let nowhere = refused(folder, &["phantom", "no/such/folder"], 1);
    assert!(nowhere.contains("no/such/folder: cannot write"), "{nowhere}");
    let help = done(folder, &["--help"]);
    assert!(help.contains("Exit codes:") && help.contains("Examples:"), "{help}");
}
