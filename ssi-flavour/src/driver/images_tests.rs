use super::*;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};

const OWNER: u32 = 70_001;

fn write(path: &Path, text: &str) {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

fn origin() -> Origin {
    let log = OpenFile { path: "/vo/log".into(), size_bytes: 380, ..OpenFile::default() };
    let open_files = vec![log];
    Origin { pid: 32_769, owner: OWNER, epoch: 3, criu: "4.2.1".into(), open_files }
}

/// A sealed folder, in one that is removed at the end.
fn sealed() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("images");
    std::fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
    write(&folder.join("core-32769.img"), "registers");
    write(&folder.join("pages-1.img"), "memory");
    seal(&folder, origin()).unwrap();
    (dir, folder)
}

#[test]
fn what_was_sealed_is_whole() {
    let (_dir, folder) = sealed();
    let manifest = verify(&folder, OWNER).unwrap();
    assert_eq!(manifest.origin, origin());
    assert_eq!(manifest.size_bytes(), 15);
    // sha256sum of "memory"
    assert_eq!(
        manifest.files["pages-1.img"].sha256.as_deref(),
        Some("c064fbca9d9de8dd9bb0624984403b28d0da807a69365d4f7fb09123ecb0c405")
    );
    assert!(manifest.lasts());
    let mode = |name: &str| std::fs::metadata(folder.join(name)).unwrap().permissions().mode();
    assert_eq!(mode(MANIFEST) & 0o7777, 0o600, "it names people's files");
    assert!(!folder.join(DRAFT).exists());
    assert!(seal(&folder, origin()).is_err(), "a manifest is written once");
}

/// If it failed, half an image would be started, or one that only travels be kept as a checkpoint
/// whose damage nobody sees.
#[test]
fn an_image_that_travels_is_whole_and_no_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("images");
    std::fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
    write(&folder.join("pages-1.img"), "memory");
    assert!(matches!(verify(&folder, OWNER).unwrap_err(), ImageError::Torn { .. }));
    seal_to_travel(&folder, origin()).unwrap();
    let found = verify(&folder, OWNER).unwrap();
    assert_eq!((found.lasts(), found.size_bytes()), (false, 6));
    assert_eq!(manifest(&folder).unwrap(), found);
    write(&folder.join("pages-1.img"), "memo");
    assert!(matches!(verify(&folder, OWNER).unwrap_err(), ImageError::Altered { .. }));
    write(&folder.join("pages-1.img"), "memory");
    write(&folder.join("pages-2.img"), "");
    assert!(matches!(verify(&folder, OWNER).unwrap_err(), ImageError::Altered { .. }));
}

/// If it failed, a program would go on with memory that is not its own.
#[test]
fn torn_and_altered_images_are_refused() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 7] = [
        ("never finished", |f| std::fs::remove_file(f.join(MANIFEST)).unwrap()),
        ("one bit", |f| write(&f.join("pages-1.img"), "memorx")),
        ("torn", |f| write(&f.join("pages-1.img"), "memo")),
        ("gone", |f| std::fs::remove_file(f.join("pages-1.img")).unwrap()),
        ("added", |f| write(&f.join("pages-2.img"), "")),
        ("torn manifest", |f| write(&f.join(MANIFEST), "{\"format\":1,")),
        ("manifest of tomorrow", |f| {
            let text = std::fs::read_to_string(f.join(MANIFEST)).unwrap();
            assert!(text.contains("\"format\":1"));
            write(&f.join(MANIFEST), &text.replace("\"format\":1", "\"format\":2"));
        }),
    ];
    for (name, change) in changes {
        let (_dir, folder) = sealed();
        change(&folder);
        let error = verify(&folder, OWNER).unwrap_err();
        assert_eq!(matches!(error, ImageError::Torn { .. }), name == "never finished", "{error}");
        let altered = matches!(error, ImageError::Altered { .. });
        assert!(altered || name == "never finished", "{name}: {error}");
    }
}

/// If it failed, a person could have their own images started as another, or with what they
/// slipped in.
#[test]
fn images_that_others_could_touch_are_refused() {
    let mode = |path: PathBuf, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    let pages = |folder: &Path| folder.join("pages-1.img");
    let refused = |folder: &Path, why: &str| {
        let error = verify(folder, OWNER).unwrap_err();
        assert!(matches!(error, ImageError::Open { .. }), "{why}: {error}");
    };
    let (_dir, folder) = sealed();
    mode(pages(&folder), 0o640);
    refused(&folder, "readable");
    mode(pages(&folder), 0o600);
    mode(folder.clone(), 0o755);
    refused(&folder, "a folder that others enter");
    mode(folder.clone(), 0o700);
    std::fs::hard_link(pages(&folder), folder.with_extension("kept")).unwrap();
    refused(&folder, "a second name");
    std::fs::remove_file(pages(&folder)).unwrap();
    std::os::unix::fs::symlink(folder.with_extension("kept"), pages(&folder)).unwrap();
    refused(&folder, "a link");
    let (dir, folder) = sealed();
    std::os::unix::fs::symlink(&folder, dir.path().join("link")).unwrap();
    assert!(verify(&dir.path().join("link"), OWNER).is_err(), "the folder is a link");
    let error = verify(&folder, OWNER + 1).unwrap_err();
    assert!(matches!(error, ImageError::Foreign { found: OWNER, .. }), "{error}");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(pages(&folder), Some(OWNER), None).unwrap();
        refused(&folder, "another's file");
        std::os::unix::fs::chown(pages(&folder), Some(0), None).unwrap();
        std::os::unix::fs::chown(&folder, Some(OWNER), None).unwrap();
        refused(&folder, "another's folder");
    } else {
        println!("skipped: needs root to give files away");
    }
}
