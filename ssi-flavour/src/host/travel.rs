//! How an image gets from node to node: in sealed frames, also while it is written.
//!
//! First how large it is about; then its files, each by its name and what is in it, the manifest
//! last; then the end. What a file has more of comes after its name again.

use super::Store;
use super::line::{SILENCE_MAX, WHOLE_MAX};
use super::part::{FILE_BYTES, Part};
use super::progress::Progress;
use super::sealed::{Key, Opener, Sealer};
use super::store::{create, remove};
use super::within::{Limited, Line};
use crate::cluster::messages::TreeId;
use crate::driver::images::{self, FILES_MAX, MANIFEST};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// Kinds of frames.
const ABOUT: u8 = 1;
const FILE: u8 = 2;
const DATA: u8 = 3;
const END: u8 = 4;
/// Longest name of a file of an image, bytes.
const NAME_MAX: usize = 255;
/// Largest image that is taken, bytes.
const IMAGE_BYTES_MAX: u64 = 1 << 40;
/// Of what these files hold CRIU only adds to the end (criu: criu/page-xfer.c): the memory.
const GROWS: &str = "pages-";
/// How long it is waited until somebody writes an image that is asked for.
const WRITTEN_MAX: Duration = Duration::from_secs(20);
/// From one look for more of it to the next, and how much more is sent meanwhile.
const LOOK: Duration = Duration::from_millis(2);
const MORE: u64 = 256 * 1024;

/// Sends an image, of which more may be written meanwhile.
///
/// # Errors
/// That it is not here, and will not be; those of either side.
pub(super) fn send(
    store: &Store,
    progress: &Progress,
    (tree, version): (TreeId, u64),
    line: Line,
    key: &Key,
) -> io::Result<()> {
    let mut to = Sealer::new(Limited::new(line, SILENCE_MAX, WHOLE_MAX)?, key)?;
    let mut sent = Sent::default();
    let mut told = false;
    if !store.has(tree, version) {
        let reading = progress.read(tree, version)?;
        if let Some((folder, bytes)) = reading.folder(WRITTEN_MAX)? {
            to.put(ABOUT, &bytes.to_le_bytes())?;
            told = true;
            // What is there when it is known to be whole is all.
            while !reading.whole(LOOK)? {
                for name in names(&folder)?.iter().filter(|name| name.starts_with(GROWS)) {
                    sent.copy(&folder, name, MORE, &mut to)?;
                }
            }
        }
    }
    let folder = store.folder(tree, version);
    let manifest = images::manifest(&folder).map_err(io::Error::other)?;
    if !told {
        to.put(ABOUT, &manifest.size_bytes().to_le_bytes())?;
    }
    for name in manifest.files.keys().map(String::as_str).chain([MANIFEST]) {
        sent.copy(&folder, name, 1, &mut to)?;
    }
    to.put(END, &[])?;
    to.flush()
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// What was sent of an image.
#[derive(Default)]
struct Sent {
    /// Files of which more may come.
    open: BTreeMap<String, (File, u64)>,
    /// The file whose content comes now.
    now: String,
}

impl Sent {
    /// Sends what is new of a file, if that is at least so much, or nothing was sent of it yet.
    fn copy<W: Write>(
        &mut self,
        folder: &Path,
        name: &str,
        least: u64,
        to: &mut Sealer<W>,
    ) -> io::Result<()> {
        if !self.open.contains_key(name) {
            self.turn(name, to)?;
            self.open.insert(name.to_owned(), (File::open(folder.join(name))?, 0));
        }
        loop {
            let Some((file, at)) = self.open.get(name) else { return Ok(()) };
            if file.metadata()?.len().saturating_sub(*at) < least {
                break;
            }
            self.turn(name, to)?;
            let Some((file, at)) = self.open.get_mut(name) else { return Ok(()) };
            let n = to.fill(DATA, |room| file.read_at(room, *at))?;
            *at += n as u64;
            if n == 0 {
                return Err(io::Error::other(format!("{name} became shorter while it was sent")));
            }
        }
        if !name.starts_with(GROWS) {
            self.open.remove(name);
        }
        Ok(())
    }

    fn turn<W: Write>(&mut self, name: &str, to: &mut Sealer<W>) -> io::Result<()> {
        if self.now != name {
            to.put(FILE, name.as_bytes())?;
            name.clone_into(&mut self.now);
        }
        Ok(())
    }
}

/// Takes an image that another node sends, of so many bytes at `most`, with [`FILE_BYTES`] for each
/// file, and not many more than that node says first: it is in its place once all of it is here,
/// and on the disk, if it `lasts`. Whether it is its owner's is seen when it is restored.
///
/// # Errors
/// That it breaks off, is not as it was sent, is larger, or is no image; then nothing is left of
/// it.
pub(super) fn receive(
    store: &Store,
    (tree, version): (TreeId, u64),
    from: impl Read,
    key: &Key,
    (lasts, most): (bool, u64),
) -> io::Result<()> {
    let mut from = Opener::new(from, key)?;
    let bytes = match from.next()? {
        (ABOUT, bytes) => bytes.try_into().map(u64::from_le_bytes),
        _ => return Err(broken("it does not begin as an image")),
    };
    let bytes = bytes.map_err(|_| broken("it does not begin as an image"))?;
    let mut part = store.part((tree, version), bytes, lasts)?;
    let received = files(&part, most, &mut from);
    let received = received.and_then(|()| store.arrive(tree, version, &mut part));
    if let Err(error) = &received {
        if error.kind() == ErrorKind::FileTooLarge {
            store.was_larger(tree);
        }
        remove(&part.path)?;
        store.prune(tree)?;
    }
    received
}

fn broken(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why.to_owned())
}

fn files<R: Read>(part: &Part, most: u64, from: &mut Opener<R>) -> io::Result<()> {
    let mut room = part.most().min(most).min(IMAGE_BYTES_MAX);
    let mut takes = |bytes: u64| -> io::Result<()> {
        let larger = || {
            let why = "an image is larger than it was said to be";
            io::Error::new(ErrorKind::FileTooLarge, why.to_owned())
        };
        room = room.checked_sub(bytes).ok_or_else(larger)?;
        part.takes_more()
    };
    let mut known = BTreeSet::new();
    let mut now: Option<File> = None;
    let written = |file: Option<File>| match file {
        Some(file) if part.lasts => file.sync_all(),
        _ => Ok(()),
    };
    loop {
        match from.next()? {
            (FILE, name) => {
                let name = name_of(name)?;
                written(now.take())?;
                let path = part.path.join(&name);
                now = Some(if known.contains(&name) {
                    more(&path)?
                } else {
                    takes(FILE_BYTES)?;
                    create(&path)?
                });
                known.insert(name);
                if known.len() > FILES_MAX {
                    return Err(broken("more files than an image has"));
                }
            }
            (DATA, bytes) => {
                let file = now.as_mut().ok_or_else(|| broken("bytes of no file in an image"))?;
                takes(bytes.len() as u64)?;
                file.write_all(bytes)?;
            }
            (END, _) => return written(now.take()),
            _ => return Err(broken("something in an image is unknown")),
        }
    }
}

fn name_of(bytes: &[u8]) -> io::Result<String> {
    if bytes.len() > NAME_MAX {
        return Err(broken("a name over 255 bytes in an image"));
    }
    let name = std::str::from_utf8(bytes).map_err(|_| broken("a name that is no text"))?;
    if name.contains(['/', '\0']) || ["", ".", ".."].contains(&name) {
        return Err(broken("a name in an image that is no file's"));
    }
    Ok(name.to_owned())
}

fn more(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).custom_flags(libc::O_NOFOLLOW).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::images::{Origin, seal, seal_to_travel, verify};
    use std::os::unix::net::UnixStream;

    const KEY: Key = [7; 32];
    const TREE: TreeId = TreeId(7);
    const OWNER: u32 = 70_001;
    /// An image that need not last, of whatever size.
    const ANY: (bool, u64) = (false, u64::MAX);

    fn origin() -> Origin {
        let (criu, open_files) = ("4.2.1".to_owned(), Vec::new());
        Origin { pid: 7, owner: OWNER, epoch: 1, criu, open_files }
    }

    fn stores(dir: &Path) -> (Store, Store) {
        (Store::new(dir.join("a")), Store::new(dir.join("b")))
    }

    fn write(folder: &Path, name: &str, bytes: &[u8]) {
        create(&folder.join(name)).unwrap().write_all(bytes).unwrap();
    }

    /// All that is sent.
    fn sent(store: &Store, progress: &Progress, version: u64) -> Vec<u8> {
        let (one, mut other) = UnixStream::pair().unwrap();
        let (store, progress) = (store.clone(), progress.clone());
        let sending = std::thread::spawn(move || {
            send(&store, &progress, (TREE, version), Line::Through(one), &KEY)
        });
        let mut bytes = Vec::new();
        other.read_to_end(&mut bytes).unwrap();
        sending.join().unwrap().unwrap();
        bytes
    }

    #[test]
    fn an_image_arrives_whole_or_not_at_all() {
        // wrong: half an image would lie there as if it were one, or a file be written elsewhere
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = stores(dir.path());
        let folder = here.make(TREE, 2).unwrap();
        write(&folder, "core-1.img", b"abc");
        write(&folder, "empty.img", b"");
        seal(&folder, origin()).unwrap();
        let bytes = sent(&here, &Progress::default(), 2);
        receive(&there, (TREE, 2), &bytes[..], &KEY, (true, u64::MAX)).unwrap();
        assert!(verify(&there.folder(TREE, 2), OWNER).unwrap().lasts());
        for cut in 0..bytes.len() {
            assert!(receive(&there, (TREE, 3), &bytes[..cut], &KEY, ANY).is_err(), "{cut}");
            assert!(!there.folder(TREE, 3).exists());
        }
        // Fetched twice, as when it is kept and restored; what is there stays.
        receive(&there, (TREE, 2), &bytes[..], &KEY, ANY).unwrap();
        assert!(there.has(TREE, 2));
        for name in ["../x", "", ".", "a/b"] {
            let mut bad = Vec::new();
            let mut sealer = Sealer::new(&mut bad, &KEY).unwrap();
            sealer.put(ABOUT, &[0; 8]).unwrap();
            sealer.put(FILE, name.as_bytes()).unwrap();
            assert!(receive(&there, (TREE, 3), &bad[..], &KEY, ANY).is_err(), "{name}");
        }
        there.discard(TREE, 2).unwrap();
        assert!(!there.has(TREE, 2));
        there.discard(TREE, 2).unwrap();
    }

    #[test]
    fn no_more_is_taken_than_was_said() {
        // wrong: a node of another site could fill this one's disk
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = stores(dir.path());
        let folder = here.make(TREE, 2).unwrap();
        write(&folder, "core-1.img", &[7; 1000]);
        let manifest = seal(&folder, origin()).unwrap();
        let beside = std::fs::metadata(folder.join(MANIFEST)).unwrap().len();
        let all = manifest.size_bytes() + beside + 2 * FILE_BYTES;
        let bytes = sent(&here, &Progress::default(), 2);
        assert!(receive(&there, (TREE, 2), &bytes[..], &KEY, (true, all - 1)).is_err());
        assert!(!there.folder(TREE, 2).exists());
        receive(&there, (TREE, 2), &bytes[..], &KEY, (true, all)).unwrap();
    }

    /// A beginning of an image that is said to have no bytes.
    fn begun(fill: impl FnOnce(&mut Sealer<&mut Vec<u8>>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut sealer = Sealer::new(&mut bytes, &KEY).unwrap();
        sealer.put(ABOUT, &[0; 8]).unwrap();
        fill(&mut sealer);
        bytes
    }

    #[test]
    fn what_is_said_bounds_what_comes_and_names_count() {
        // wrong: a rooted node could fill this one's disk by an image that nobody asked the size
        // of, or take all its files by names without anything in them
        let dir = tempfile::tempdir().unwrap();
        let (_, there) = stores(dir.path());
        let large = begun(|sealer| {
            sealer.put(FILE, b"pages-1.img").unwrap();
            let piece = vec![0; 1 << 20];
            (0..20).for_each(|_| sealer.put(DATA, &piece).unwrap());
        });
        let names = begun(|sealer| {
            for n in 0..20_000 {
                sealer.put(FILE, format!("core-{n}.img").as_bytes()).unwrap();
            }
        });
        for (tree, bytes) in [(TREE, large), (TreeId(8), names)] {
            let error = receive(&there, (tree, 2), &bytes[..], &KEY, ANY).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FileTooLarge);
            assert!(!dir.path().join("b").join(tree.to_string()).exists(), "nothing is left");
        }
    }

    #[test]
    fn an_image_that_was_larger_than_said_comes_the_next_time() {
        // wrong: a program whose memory was measured too small would never move, each attempt
        // ending where the one before did
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = stores(dir.path());
        let there = there.with_memory();
        let folder = here.make(TREE, 2).unwrap();
        write(&folder, "pages-1.img", &vec![7; 20 << 20]);
        seal(&folder, origin()).unwrap();
        let small = begun(|sealer| {
            let mut sent = Sent::default();
            for name in ["pages-1.img", MANIFEST] {
                sent.copy(&folder, name, 1, sealer).unwrap();
            }
            sealer.put(END, &[]).unwrap();
        });
        assert!(receive(&there, (TREE, 2), &small[..], &KEY, ANY).is_err());
        receive(&there, (TREE, 2), &small[..], &KEY, ANY).unwrap();
        assert!(there.folder(TREE, 2).starts_with(dir.path()), "by the disk");
    }

    #[test]
    fn an_image_is_sent_while_it_is_written() {
        // wrong: a program would stand still until its memory is saved, and then until it is sent;
        // or arrive without what was written last
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = stores(dir.path());
        let progress = Progress::default();
        let writing = progress.begin(TREE, 1);
        let (one, mut other) = UnixStream::pair().unwrap();
        let (store, of) = (here.clone(), progress.clone());
        let sending =
            std::thread::spawn(move || send(&store, &of, (TREE, 1), Line::Through(one), &KEY));
        assert!(writing.awaited(Duration::from_secs(20)));
        let (folder, _room) = here.make_to_travel(TREE, 1, 1000).unwrap();
        writing.to(folder.clone(), 10_000_000);
        let first = vec![1; 3_000_000];
        write(&folder, "pages-1.img", &first);
        // The first frame of the memory comes before there is any more of it.
        let mut begin = vec![0; 1_000_000];
        other.read_exact(&mut begin).unwrap();
        let mut pages = more(&folder.join("pages-1.img")).unwrap();
        let rest = std::thread::spawn(move || {
            let mut bytes = begin;
            other.read_to_end(&mut bytes).unwrap();
            bytes
        });
        pages.write_all(b"last").unwrap();
        write(&folder, "core-1.img", b"abc");
        seal_to_travel(&folder, origin()).unwrap();
        writing.whole();
        sending.join().unwrap().unwrap();
        let bytes = rest.join().unwrap();
        receive(&there, (TREE, 1), &bytes[..], &KEY, ANY).unwrap();
        let got = there.folder(TREE, 1);
        assert!(!verify(&got, OWNER).unwrap().lasts());
        let pages = std::fs::read(got.join("pages-1.img")).unwrap();
        assert_eq!(pages, [&first[..], b"last"].concat());
    }

    #[test]
    fn what_is_not_saved_after_all_does_not_arrive() {
        // wrong: a node would wait for an image that never comes, or take a part for all
        let dir = tempfile::tempdir().unwrap();
        let (here, _) = stores(dir.path());
        let progress = Progress::default();
        let writing = progress.begin(TREE, 1);
        let (one, _other) = UnixStream::pair().unwrap();
        let of = progress.clone();
        let sending =
            std::thread::spawn(move || send(&here, &of, (TREE, 1), Line::Through(one), &KEY));
        assert!(writing.awaited(Duration::from_secs(20)));
        drop(writing);
        assert!(sending.join().unwrap().is_err());
    }
}
