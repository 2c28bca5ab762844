use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use xos_api::aem::StageMode;

fn file(name: &str, volume: &str, mode: StageMode, delete: bool) -> Stage {
    Stage { name: name.into(), volume: volume.into(), mode, delete }
}

#[test]
fn files_travel_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let (volume, folder) = (dir.path().join("v"), dir.path().join("f"));
    fs::create_dir_all(&volume).unwrap();
    fs::create_dir_all(&folder).unwrap();
    fs::write(volume.join("in"), "one").unwrap();
    let plan = Plan {
        volume: volume.clone(),
        folder: folder.clone(),
        home: None,
        enter: false,
        stage_in: vec![file("sub/a", "/in", StageMode::Overwrite, true)],
        stage_out: vec![file("sub/a", "out/b", StageMode::Append, false)],
    };
    copy_in(&plan).unwrap();
    copy_out(&plan).unwrap();
    assert_eq!(fs::read_to_string(volume.join("out/b")).unwrap(), "one");
    assert!(!folder.join("sub/a").exists(), "it was to be removed");
    copy_in(&plan).unwrap();
    copy_out(&plan).unwrap();
    assert_eq!(fs::read_to_string(volume.join("out/b")).unwrap(), "oneone");
}

/// What a stager is given, in a process of its own.
const ARGS: &str = "XOS_TEST_STAGE_ARGS";

#[test]
#[ignore = "is the stager of the next test"]
fn stager() {
    if let Ok(args) = std::env::var(ARGS) {
        std::process::exit(stage(&serde_json::from_str::<Vec<String>>(&args).unwrap()).into());
    }
}

/// What is on the volume after a unit got TERM as a cancellation or a limit sends it, and how
/// its first process ended.
fn terminated(script: &str) -> (String, ExitStatus) {
    let dir = tempfile::tempdir().unwrap();
    let (volume, folder) = (dir.path().join("v"), dir.path().join("f"));
    fs::create_dir_all(&volume).unwrap();
    // As in a cluster, where nobody makes the folder but the stager.
    let plan = Plan {
        volume: volume.clone(),
        folder: folder.clone(),
        home: None,
        enter: true,
        stage_in: vec![],
        stage_out: vec![file("result", "result", StageMode::Overwrite, false)],
    };
    let plan = serde_json::to_string(&plan).unwrap();
    let args = [plan.as_str(), "--", "/bin/sh", "-c", script];
    let mut unit = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stage::tests::stager", "--ignored", "--nocapture"])
        .env(ARGS, serde_json::to_string(&args).unwrap())
        .current_dir(dir.path())
        .process_group(0)
        .spawn()
        .unwrap();
    let leader = Pid::from_raw(unit.id().cast_signed());
    for _ in 0..1000 {
        if folder.join("ready").exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // In the test's stager the unit's processes are its group.
    nix::sys::signal::killpg(leader, Signal::SIGTERM).unwrap();
    let status = unit.wait().unwrap();
    (fs::read_to_string(volume.join("result")).unwrap_or_default(), status)
}

/// If it failed, a program that is told to end would be killed before it has written its result,
/// and nothing of it would come to the volume.
#[test]
fn what_a_terminated_program_wrote_comes_home() {
    let wait = "touch ready; while :; do sleep 0.05; done";
    let (result, status) =
        terminated(&format!("trap 'sleep 0.3; echo whole > result; exit 3' TERM; {wait}"));
    assert_eq!((result.as_str(), status.code()), ("whole\n", Some(3)));
    // Without a trap it ends by TERM, and so does the unit.
    let (result, status) = terminated(&format!("echo part > result; {wait}"));
    assert_eq!((result.as_str(), status.signal()), ("part\n", Some(15)));
}

#[test]
fn paths_outside_are_refused() {
    // wrong: a path alone would lead out of the volume or the folder
    for bad in ["../x", "a/../../x", "", "/", "..", "a/.."] {
        assert!(inside(bad, "volume").is_err(), "{bad:?}");
    }
    assert_eq!(inside("/a/./b", "volume").unwrap(), Path::new("a/./b"));
}

/// A volume and a person's home, with a working directory in it.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let w = World { dir: tempfile::tempdir().unwrap() };
        for dir in ["v/shared", "home/jobs/1"] {
            fs::create_dir_all(w.path(dir)).unwrap();
        }
        fs::write(w.path("home/mine"), "mine").unwrap();
        fs::write(w.path("v/data"), "data").unwrap();
        w
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn plan(&self) -> Plan {
        Plan {
            volume: self.path("v"),
            folder: self.path("home/jobs/1"),
            home: Some(self.path("home")),
            enter: false,
            stage_in: vec![],
            stage_out: vec![],
        }
    }

    fn stage_in(&self, volume: &str, name: &str) -> Result<(), StageError> {
        let stage_in = vec![file(name, volume, StageMode::Overwrite, false)];
        copy_in(&Plan { stage_in, ..self.plan() })
    }

    fn stage_out(&self, name: &str, volume: &str, mode: StageMode) -> Result<(), StageError> {
        let stage_out = vec![file(name, volume, mode, false)];
        copy_out(&Plan { stage_out, ..self.plan() })
    }
}

/// It was refused because of a link, and the message helps.
#[track_caller]
fn by_link(done: Result<(), StageError>, path: &str, what: &str) {
    let said = done.expect_err("a link was followed").to_string();
    let why = format!("{path}: a link leads out of the {what}: remove the link, or copy");
    assert!(said.contains(&why), "{said:?} is not {why:?}");
}

/// If it failed, a member could give another's unit a file of the node in place of its input.
#[test]
fn no_link_brings_a_file_in_that_is_not_on_the_volume() {
    let w = World::new();
    let links = [
        ("to-file", "/etc/hostname".into()),
        ("to-home", w.path("home/mine")),
        ("up", "../../home/mine".into()),
        ("up-from-dots", "../shared/../../home/mine".into()),
        ("to-link", "to-home".into()),
        ("to-nothing", w.path("none")),
    ];
    for (link, to) in &links {
        symlink(to, w.path("v/shared").join(link)).unwrap();
        by_link(w.stage_in(&format!("shared/{link}"), "x"), &format!("v/shared/{link}"), "volume");
    }
    symlink("/etc", w.path("v/etc")).unwrap();
    symlink("../home", w.path("v/home")).unwrap();
    for path in ["etc/hostname", "home/mine"] {
        by_link(w.stage_in(path, "x"), &format!("v/{path}"), "volume");
    }
    assert!(!w.path("home/jobs/1/x").exists(), "something was staged in");
}

/// If it failed, a member could have another's unit overwrite the files of its own person.
#[test]
fn no_link_has_a_file_written_that_is_not_on_the_volume() {
    let w = World::new();
    fs::write(w.path("home/jobs/1/x"), "new").unwrap();
    symlink(w.path("home/mine"), w.path("v/shared/absolute")).unwrap();
    symlink("../../home/mine", w.path("v/shared/up")).unwrap();
    symlink(w.path("home/made"), w.path("v/shared/to-be-made")).unwrap();
    symlink(w.path("home"), w.path("v/shared/folder")).unwrap();
    for mode in [StageMode::Overwrite, StageMode::Append] {
        for path in ["absolute", "up", "to-be-made", "folder/mine", "folder/new/deep/x"] {
            let path = format!("shared/{path}");
            by_link(w.stage_out("x", &path, mode), &format!("v/{path}"), "volume");
        }
    }
    assert_eq!(w.read("home/mine"), "mine");
    assert!(!w.path("home/made").exists() && !w.path("home/new").exists());
}

/// If it failed, people who order their volume by links could not stage any more.
#[test]
fn links_within_the_volume_are_followed() {
    let w = World::new();
    let back = w.path("v/data");
    let links = [
        ("relative", "../data".into()),
        ("dots", "../shared/../data".into()),
        ("to-link", "relative".into()),
        ("absolute", back),
    ];
    for (link, to) in &links {
        symlink(to, w.path("v/shared").join(link)).unwrap();
        w.stage_in(&format!("shared/{link}"), link).unwrap();
        assert_eq!(w.read(&format!("home/jobs/1/{link}")), "data", "{link}");
    }
    symlink("shared", w.path("v/folder")).unwrap();
    symlink(w.path("v/shared"), w.path("v/absolute")).unwrap();
    for folder in ["folder", "absolute"] {
        w.stage_out("relative", &format!("{folder}/a/b/out"), StageMode::Append).unwrap();
    }
    assert_eq!(w.read("v/shared/a/b/out"), "datadata");
    // A link to a file that is not there yet makes that file.
    symlink("later", w.path("v/link")).unwrap();
    w.stage_out("relative", "link", StageMode::Overwrite).unwrap();
    assert_eq!(w.read("v/later"), "data");
    // What is in the way stays, and what a link in the way leads to.
    symlink("later", w.path("v/kept")).unwrap();
    fs::write(w.path("home/jobs/1/other"), "other").unwrap();
    w.stage_out("other", "kept", StageMode::DontOverwrite).unwrap();
    assert_eq!(w.read("v/later"), "data");
}

/// If it failed, a working directory that others write to would be a way to the person's files; or
/// people's own links in their homes would not work.
#[test]
fn links_of_the_working_directory_stay_in_the_home_or_the_volume() {
    let w = World::new();
    symlink("../../mine", w.path("home/jobs/1/own")).unwrap();
    w.stage_out("own", "copy", StageMode::Overwrite).unwrap();
    assert_eq!(w.read("v/copy"), "mine");
    symlink("/etc/hostname", w.path("home/jobs/1/out")).unwrap();
    let done = w.stage_out("out", "copy", StageMode::Overwrite);
    by_link(done, "home/jobs/1/out", "home");

    // In the volume, and in a folder of neither, everybody may have made the link.
    fs::create_dir(w.path("other")).unwrap();
    for (folder, what) in [("v/shared", "volume"), ("other", "working directory")] {
        symlink(w.path("home/mine"), w.path(folder).join("link")).unwrap();
        let stage = vec![file("link", "data", StageMode::Overwrite, false)];
        let plan = Plan { folder: w.path(folder), ..w.plan() };
        let plans =
            [Plan { stage_in: stage.clone(), ..plan.clone() }, Plan { stage_out: stage, ..plan }];
        let path = format!("{folder}/link");
        by_link(copy_in(&plans[0]), &path, what);
        by_link(copy_out(&plans[1]), &path, what);
    }
    assert_eq!(w.read("home/mine"), "mine");
}

/// If it failed, the removal of a staged file could remove one that a link leads to.
#[test]
fn what_is_removed_is_in_the_working_directory() {
    let w = World::new();
    symlink(w.path("home/mine"), w.path("home/jobs/1/link")).unwrap();
    fs::write(w.path("home/jobs/1/x"), "x").unwrap();
    let stage_in = ["link", "x", "none", "no/such"]
        .map(|name| file(name, "data", StageMode::Overwrite, true))
        .to_vec();
    copy_out(&Plan { stage_in, ..w.plan() }).unwrap();
    assert_eq!(fs::read_dir(w.path("home/jobs/1")).unwrap().count(), 0);
    assert_eq!(w.read("home/mine"), "mine");

    fs::create_dir(w.path("other")).unwrap();
    symlink(w.path("home"), w.path("other/dir")).unwrap();
    let stage_in = vec![file("dir/mine", "data", StageMode::Overwrite, true)];
    let done = copy_out(&Plan { folder: w.path("other"), stage_in, ..w.plan() });
    by_link(done, "other/dir/mine", "working directory");
    assert_eq!(w.read("home/mine"), "mine");
}
