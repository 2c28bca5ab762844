use super::super::{OpenFile, Origin};
use super::*;
use proptest::prelude::*;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

/// The rights of a program of user 70001 with groups 70002, 70005 and 70006, from an image that
/// CRIU 4.2.1 made (`creds_entry`).
const RIGHTS: &[u8] = &[
    0x08, 0xf1, 0xa2, 0x04, 0x10, 0xf2, 0xa2, 0x04, 0x18, 0xf1, 0xa2, 0x04, 0x20, 0xf2, 0xa2, 0x04,
    0x28, 0xf1, 0xa2, 0x04, 0x30, 0xf2, 0xa2, 0x04, 0x38, 0xf1, 0xa2, 0x04, 0x40, 0xf2, 0xa2, 0x04,
    0x48, 0x00, 0x48, 0x00, 0x50, 0x00, 0x50, 0x00, 0x58, 0x00, 0x58, 0x00, 0x60, 0xff, 0xff, 0xff,
    0xf7, 0x0f, 0x60, 0xff, 0x03, 0x68, 0x00, 0x70, 0xf5, 0xa2, 0x04, 0x70, 0xf6, 0xa2, 0x04, 0x98,
    0x01, 0x00, 0x98, 0x01, 0x00,
];
/// The same person at another site: user 300000000, groups 5, 6 and 7.
const RIGHTS_HERE: &[u8] = &[
    0x08, 0x80, 0xc6, 0x86, 0x8f, 0x01, 0x10, 0x05, 0x18, 0x80, 0xc6, 0x86, 0x8f, 0x01, 0x20, 0x05,
    0x28, 0x80, 0xc6, 0x86, 0x8f, 0x01, 0x30, 0x05, 0x38, 0x80, 0xc6, 0x86, 0x8f, 0x01, 0x40, 0x05,
    0x48, 0x00, 0x48, 0x00, 0x50, 0x00, 0x50, 0x00, 0x58, 0x00, 0x58, 0x00, 0x60, 0xff, 0xff, 0xff,
    0xf7, 0x0f, 0x60, 0xff, 0x03, 0x68, 0x00, 0x70, 0x06, 0x70, 0x07, 0x98, 0x01, 0x00, 0x98, 0x01,
    0x00,
];
/// A memfd of that program, the whole image.
const MEMFD_IMAGE: &[u8] = &[
    0x19, 0x43, 0x56, 0x54, 0x99, 0x34, 0x45, 0x48, 0x19, 0x00, 0x00, 0x00, 0x0a, 0x01, 0x6d, 0x10,
    0xf1, 0xa2, 0x04, 0x18, 0xf2, 0xa2, 0x04, 0x20, 0x00, 0x28, 0x9d, 0x8d, 0x07, 0x30, 0x01, 0x38,
    0x01, 0x48, 0xff, 0x83, 0x02,
];
/// A removed file that it had open, the whole image: an entry, and the content `x`.
const GHOST_IMAGE: &[u8] = &[
    0x19, 0x43, 0x56, 0x54, 0x05, 0x36, 0x58, 0x52, 0x2e, 0x00, 0x00, 0x00, 0x08, 0xf1, 0xa2, 0x04,
    0x10, 0xf2, 0xa2, 0x04, 0x18, 0xa4, 0x83, 0x02, 0x20, 0x80, 0x80, 0x80, 0x7f, 0x28, 0x9b, 0x80,
    0xe3, 0x04, 0x3a, 0x0a, 0x08, 0x9b, 0x8e, 0xb0, 0xd8, 0x06, 0x10, 0xa5, 0xeb, 0x2a, 0x42, 0x0a,
    0x08, 0x9b, 0x8e, 0xb0, 0xd8, 0x06, 0x10, 0x9a, 0xfa, 0x2a, 0x78,
];
/// The entry of that memfd in `files.img`: nobody is told of it.
const MEMFD_FILE: &[u8] = &[
    0x08, 0x12, 0x10, 0x18, 0xa2, 0x01, 0x16, 0x08, 0x18, 0x10, 0x82, 0x80, 0x02, 0x18, 0x00, 0x22,
    0x0a, 0x08, 0x00, 0x10, 0x00, 0x18, 0x00, 0x20, 0x00, 0x28, 0x00, 0x28, 0x01,
];

fn ids() -> Ids {
    Ids {
        uid: (70_001, 300_000_000),
        gids: BTreeMap::from([(70_002, 5), (70_005, 6), (70_006, 7)]),
    }
}

fn kind(name: &str) -> Kind {
    *KINDS.iter().find(|kind| name.starts_with(kind.name)).unwrap()
}

/// A field that holds bytes.
fn field(number: u64, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, (number << 3) | 2);
    put(&mut out, content.len() as u64);
    out.extend(content);
    out
}

/// An image of entries.
fn packed(magic: u32, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut out = [COMMON_MAGIC.to_le_bytes(), magic.to_le_bytes()].concat();
    for entry in entries {
        out.extend(u32::try_from(entry.len()).unwrap().to_le_bytes());
        out.extend(entry);
    }
    out
}

/// A core with these rights, of a session of that user.
fn core(rights: &[u8], login: &[u8]) -> Vec<u8> {
    let thread = [vec![0x10, 0x18], field(10, rights), vec![0x60, 0x00]].concat();
    let entry = [vec![0x08, 0x01], field(3, login), field(5, &thread)].concat();
    packed(kind("core-1.img").magic, &[entry])
}

/// If it failed, a program would come back as another user, or not at all.
#[test]
fn ids_of_real_images_are_changed_and_nothing_else() {
    let told = image(&core(RIGHTS, &[0x68, 0xf1, 0xa2, 0x04]), kind("core-1.img"), &ids()).unwrap();
    let nobody = [0x68, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(told, core(RIGHTS_HERE, &nobody));
    let there = core(RIGHTS, &nobody);
    assert_eq!(image(&there, kind("core-1.img"), &ids()).unwrap(), core(RIGHTS_HERE, &nobody));
    // An administrator there had started the agent.
    let of_other = core(RIGHTS, &[0x68, 0xe8, 0x07]);
    assert_eq!(image(&of_other, kind("core-1.img"), &ids()).unwrap(), core(RIGHTS_HERE, &nobody));

    let told = image(MEMFD_IMAGE, kind("memfd.img"), &ids()).unwrap();
    let mut want = MEMFD_IMAGE[..16].to_vec();
    want.extend([0x80, 0xc6, 0x86, 0x8f, 0x01, 0x18, 0x05]);
    want.extend(&MEMFD_IMAGE[23..]);
    want[8] = 0x19; // two bytes more, two less
    assert_eq!(told, want);

    let told = image(GHOST_IMAGE, kind("ghost-file-1.img"), &ids()).unwrap();
    assert_eq!(told[12..20], [0x08, 0x80, 0xc6, 0x86, 0x8f, 0x01, 0x10, 0x05]);
    assert_eq!(told[20..], GHOST_IMAGE[20..], "times and content");

    let files = packed(kind("files.img").magic, &[MEMFD_FILE.to_vec()]);
    assert_eq!(image(&files, kind("files.img"), &ids()).unwrap(), files);
    let same = Ids { uid: (70_001, 70_001), gids: [70_002, 70_005, 70_006].map(|g| (g, g)).into() };
    assert_eq!(image(&there, kind("core-1.img"), &same).unwrap(), there, "what is not known stays");
}

/// If it failed, another site could have a program run here as root, or as somebody else.
#[test]
fn what_is_not_the_persons_is_refused() {
    let of_core = kind("core-1.img");
    let refused = |rights: &[u8]| image(&core(rights, &[]), of_core, &ids()).unwrap_err();
    // Each number in turn.
    for at in [0, 4, 8, 12, 16, 20, 24, 28] {
        let mut rights = RIGHTS.to_vec();
        rights.splice(at + 1..at + 4, [0x00]);
        let why = refused(&rights);
        assert!(why.contains("user 0") || why.contains("group 0"), "{at}: {why}");
    }
    for zero in [33, 37, 41, 54, 65] {
        let mut rights = RIGHTS.to_vec();
        assert_eq!(rights[zero], 0);
        rights[zero] = 1;
        assert!(refused(&rights).contains("more rights"), "{zero}");
    }
    // Behind the right ones, and one after the other in one field: the last of several counts.
    let twice = [RIGHTS, &[0x08, 0x00][..]].concat();
    assert!(refused(&twice).contains("user 0"));
    let list = [RIGHTS, &field(14, &[0xf5, 0xa2, 0x04, 0x00])[..]].concat();
    assert!(refused(&list).contains("group 0"));
    let caps = [RIGHTS, &field(11, &[0x00, 0x01])[..]].concat();
    assert!(refused(&caps).contains("more rights"));
    // A second set of rights.
    let thread = [field(10, RIGHTS), field(10, &[0x18, 0x00])].concat();
    let two = packed(kind("core-1.img").magic, &[field(5, &thread)]);
    assert!(image(&two, kind("core-1.img"), &ids()).unwrap_err().contains("user 0"));
    // Signals for a process are sent as somebody.
    let mut told = MEMFD_FILE.to_vec();
    told[26] = 9;
    let files = packed(kind("files.img").magic, &[told]);
    assert!(image(&files, kind("files.img"), &ids()).unwrap_err().contains("user 0"));
    assert!(image(MEMFD_IMAGE, kind("files.img"), &ids()).is_err(), "another kind");
    for cut in 0..MEMFD_IMAGE.len() {
        let whole = cut == 8;
        let told = image(&MEMFD_IMAGE[..cut], kind("memfd.img"), &ids());
        assert_eq!(told.is_ok(), whole, "{cut}");
    }
}

proptest! {
    /// If it failed, an image from another site could end the node's daemon.
    #[test]
    fn no_bytes_do_harm(
        entry in proptest::collection::vec(any::<u8>(), 0..80),
        n in 0..KINDS.len(),
    ) {
        let bytes = packed(KINDS[n].magic, std::slice::from_ref(&entry));
        let _whatever = image(&bytes, KINDS[n], &ids());
        let _whatever = image(&entry, KINDS[n], &ids());
    }
}

fn write(path: &Path, bytes: &[u8]) {
    let mut how = std::fs::OpenOptions::new();
    how.write(true).create_new(true).mode(0o600).open(path).unwrap().write_all(bytes).unwrap();
}

/// If it failed, images would be started that are half one user's and half another's.
#[test]
fn a_folder_is_the_new_users_or_not_whole() {
    let dir = tempfile::tempdir().unwrap();
    let fill = |name: &str| {
        let folder = dir.path().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
        write(&folder.join("core-7.img"), &core(RIGHTS, &[]));
        write(&folder.join("pages-1.img"), b"memory");
        folder
    };
    let origin = || Origin {
        pid: 7,
        owner: 70_001,
        epoch: 2,
        criu: "4.2.1".into(),
        open_files: vec![OpenFile { path: "/vo/log".into(), size_bytes: 3, ..OpenFile::default() }],
    };
    let good = fill("good");
    seal(&good, origin()).unwrap();
    let manifest = reown(&good, &ids()).unwrap();
    assert_eq!(manifest.origin, Origin { owner: 300_000_000, ..origin() });
    assert_eq!(verify(&good, 300_000_000).unwrap(), manifest);
    assert_eq!(std::fs::read(good.join("core-7.img")).unwrap(), core(RIGHTS_HERE, &[]));
    assert!(matches!(reown(&good, &ids()), Err(ImageError::Foreign { .. })), "it is another's now");

    let strange = fill("strange");
    write(&strange.join("ipcns-shm-9.img"), b"");
    seal(&strange, origin()).unwrap();
    assert!(matches!(reown(&strange, &ids()), Err(ImageError::Bound { .. })));
    assert!(matches!(verify(&strange, 70_001), Err(ImageError::Torn { .. })));
}

/// If it failed, images that another node made would get a program rights that its person lacks, or
/// good ones be refused.
#[test]
fn images_of_the_same_site_hold_what_the_person_has_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let person = Person::new(70_001, 70_002, &[70_005, 70_006]);
    let origin =
        || Origin { pid: 7, owner: 70_001, epoch: 2, criu: "4.2.1".into(), open_files: vec![] };
    let mut number = 0;
    let mut told = |name: &str, bytes: &[u8], person: &Person| {
        number += 1;
        let folder = dir.path().join(number.to_string());
        std::fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
        write(&folder.join(name), bytes);
        write(&folder.join("streams.json"), b"{}");
        seal(&folder, origin()).unwrap();
        check(&folder, person)
    };
    // An administrator of the other node had signed in.
    let administrator = [0x68, 0xe8, 0x07];
    let good = core(RIGHTS, &administrator);
    told("core-7.img", &good, &person).unwrap();
    told("memfd.img", MEMFD_IMAGE, &person).unwrap();
    told("ghost-file-1.img", GHOST_IMAGE, &person).unwrap();
    let fewer = Person::new(70_001, 70_002, &[70_005]);
    let bound = |told: Result<Manifest, ImageError>| match told.unwrap_err() {
        ImageError::Bound { what, .. } => what,
        other => panic!("{other}"),
    };
    assert!(bound(told("core-7.img", &good, &fewer)).contains("group 70006"));
    let root = [RIGHTS, &[0x18, 0x80, 0x00][..]].concat();
    assert!(bound(told("core-7.img", &core(&root, &[]), &person)).contains("user 0"));
    let rights = [RIGHTS, &[0x58, 0x02][..]].concat();
    assert!(bound(told("core-7.img", &core(&rights, &[]), &person)).contains("more rights"));
    bound(told("userns-9.img", b"", &person));
    let other = Person::new(70_009, 70_002, &[]);
    let foreign = told("core-7.img", &good, &other).unwrap_err();
    assert!(matches!(foreign, ImageError::Foreign { .. }), "{foreign}");
}

/// If it failed, CRIU would make for a person, as root, what they cannot make themself.
#[test]
fn what_only_root_can_have_is_in_no_image() {
    let same = Ids { uid: (70_001, 70_001), gids: BTreeMap::from([(5, 5)]) };
    let files = |entry: Vec<u8>| packed(kind("files.img").magic, &[entry]);
    let told = |entry: Vec<u8>| image(&files(entry), kind("files.img"), &same);
    // Streams and datagrams; raw sockets.
    for (socket, good) in [(1, true), (2, true), (3, false)] {
        assert_eq!(told(field(4, &[0x20, socket])).is_ok(), good, "{socket}");
    }
    for never in [5, 6, 11, 14, 21] {
        assert!(told(field(never, &[])).unwrap_err().contains("more rights"), "{never}");
    }
    let tty = kind("tty-info.img").here();
    let terminal = |what: u8, user: &[u8]| {
        let entry = [&[0x10, what, 0x70][..], user, &[0x78, 0x05][..]].concat();
        image(&packed(tty.magic, &[entry]), tty, &same)
    };
    let (person, root) = (&[0xf1, 0xa2, 0x04][..], &[0x00][..]);
    assert!(terminal(1, person).is_ok() && terminal(5, root).is_ok());
    assert!(terminal(3, person).is_err(), "the machine's own screen");
    assert!(terminal(1, &[0x07]).unwrap_err().contains("user 7"));
}
