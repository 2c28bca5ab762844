//! Whether images are a person's, and images of a program for another account: sites give one
//! person different numbers.
//!
//! CRIU keeps users and groups as numbers, in known places of known images (criu:
//! images/{core,creds,fown,fdinfo,ghost-file,memfd,sk-unix,tty}.proto, criu/image-desc.c). They are
//! changed there, in the encoding itself, so that what this program does not know stays as it is.
//! An image that is not known, an id that is not the person's, a right beyond a person's: refused.
//!
//! That alone makes nothing safe that comes from a machine which is not trusted: CRIU opens
//! whatever files an image names. So it runs with the person's rights (`driver/restore.rs`), and what it
//! opened is looked at before the program goes on (`driver/look.rs`).

use super::super::Person;
use super::{Folder, ImageError, MANIFEST, Manifest, seal, verify};
use rustix::fs::{AtFlags, Mode, OFlags, fsync, openat, renameat, unlinkat};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

/// Of images (`IMG_COMMON_MAGIC`).
const COMMON_MAGIC: u32 = 0x5456_4319;
/// Longest image with ids, in bytes.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// `(uid_t) -1`: no user.
const NOBODY: u32 = u32::MAX;

/// A person's numbers at two sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// The user where the images were made, and here.
    pub uid: (u32, u32),
    /// The groups where the images were made, each with what it is here.
    pub gids: BTreeMap<u32, u32>,
}

impl Ids {
    fn user(&self, uid: u32) -> Result<u32, String> {
        let known = uid == self.uid.0;
        known.then_some(self.uid.1).ok_or_else(|| format!("it names user {uid}, another one"))
    }

    fn group(&self, gid: u32) -> Result<u32, String> {
        let here = self.gids.get(&gid).copied();
        here.ok_or_else(|| format!("it names group {gid}, which the person does not have here"))
    }
}

/// What a field is.
#[derive(Clone, Copy)]
enum Rule {
    Uid,
    /// Who signed in for it; it becomes nobody, whoever that was.
    LoginUid,
    Gid,
    /// Rights that a person's program does not have.
    Zero,
    /// One of these values.
    Among(&'static [u64]),
    /// What only root can have.
    Never,
    /// Whose a terminal is: the person's, or root's as the files of terminals are.
    TtyUid,
    /// A message with such fields.
    In(&'static [(u32, Rule)]),
    /// Who is sent the signals of a file (`fown_entry`).
    Fown,
}

use Rule::{Among, Fown, Gid, In, LoginUid, Never, TtyUid, Uid, Zero};

const CREDS: &[(u32, Rule)] = &[
    (1, Uid),
    (2, Gid),
    (3, Uid),
    (4, Gid),
    (5, Uid),
    (6, Gid),
    (7, Uid),
    (8, Gid),
    // cap_inh, cap_prm, cap_eff, secbits
    (9, Zero),
    (10, Zero),
    (11, Zero),
    (13, Zero),
    (14, Gid),
    // cap_amb
    (19, Zero),
];
const CORE: &[(u32, Rule)] = &[(3, In(&[(13, LoginUid)])), (5, In(&[(10, In(CREDS))]))];
/// Who signed in is not looked at: another node's administrator may have started the agent.
const CORE_HERE: &[(u32, Rule)] = &[(5, In(&[(10, In(CREDS))]))];
const FOWN: &[(u32, Rule)] = &[(1, Uid), (2, Uid)];
const FILES: &[(u32, Rule)] = &[
    (3, In(&[(5, Fown)])),
    // Sockets: streams and datagrams, no raw ones.
    (4, In(&[(4, Among(&[1, 2])), (13, Fown)])),
    // Namespaces, sockets for packets.
    (5, Never),
    (6, Never),
    (7, In(&[(11, Fown)])),
    (8, In(&[(3, Fown)])),
    (9, In(&[(3, Fown)])),
    (10, In(&[(3, Fown)])),
    // Network devices.
    (11, Never),
    (12, In(&[(3, Fown)])),
    (13, In(&[(4, Fown)])),
    // What watches all files (fanotify).
    (14, Never),
    (15, In(&[(5, Fown)])),
    (16, In(&[(9, Fown), (13, In(&[(2, Uid), (3, Gid)]))])),
    (18, In(&[(4, Fown)])),
    (19, In(&[(4, Fown)])),
    (20, In(&[(4, Fown)])),
    // Maps of BPF.
    (21, Never),
    (22, In(&[(5, Fown)])),
];
const GHOST: &[(u32, Rule)] = &[(1, Uid), (2, Gid)];
const MEMFD: &[(u32, Rule)] = &[(2, Uid), (3, Gid)];
const TTY: &[(u32, Rule)] = &[(14, Uid), (15, Gid)];
/// Pseudo-terminals, the controlling one, and those of outside, which have the group of terminals.
const TTY_HERE: &[(u32, Rule)] = &[(2, Among(&[1, 4, 5])), (14, TtyUid)];

/// Where an image has ids.
#[derive(Clone, Copy)]
struct Kind {
    /// What its name begins with.
    name: &'static str,
    magic: u32,
    rules: &'static [(u32, Rule)],
    /// Only its first entry is one: content follows.
    content: bool,
}

const KINDS: &[Kind] = &[
    Kind { name: "core-", magic: 0x5505_3847, rules: CORE, content: false },
    Kind { name: "creds-", magic: 0x5402_3547, rules: CREDS, content: false },
    Kind { name: "files.", magic: 0x5630_3138, rules: FILES, content: false },
    Kind { name: "ghost-file-", magic: 0x5258_3605, rules: GHOST, content: true },
    Kind { name: "memfd.", magic: 0x4845_3499, rules: MEMFD, content: false },
    Kind { name: "tty-info.", magic: 0x5945_3036, rules: TTY, content: false },
];

/// Images without ids, by what their names begin with.
const PLAIN: &[&str] = &[
    "fdinfo-",
    "fifo-data.",
    "filelocks.",
    "fs-",
    "ids-",
    "inventory.",
    "mm-",
    "pagemap-",
    "pages-",
    "pipes-data.",
    "pstree.",
    "remap-fpath.",
    "rlimit-",
    "seccomp.",
    "sk-queues.",
    "stats-",
    // What this program adds ([`crate::host::Store`]).
    "streams.json",
    "tcp-stream-",
    "timens-",
    "tty-data.",
];

/// Makes the images of a person's program those of their account here, in place. The manifest goes
/// first: until it is there again the folder is not whole, and has to be fetched anew if this is
/// broken off or refused.
///
/// # Errors
/// As [`verify`], for the user where they were made; when they hold what the person cannot have
/// here, or an image that is not known; those of the disk.
pub fn reown(folder: &Path, ids: &Ids) -> Result<Manifest, ImageError> {
    let manifest = verify(folder, ids.uid.0)?;
    let dir = Folder::open(folder)?;
    unlinkat(&dir.fd, MANIFEST, AtFlags::empty()).map_err(|e| dir.failed(MANIFEST)(e.into()))?;
    for name in manifest.files.keys() {
        let Some((kind, bytes)) = dir.with_ids(name)? else { continue };
        let new = image(&bytes, kind, ids).map_err(|what| dir.bound(name, what))?;
        if new != bytes {
            dir.replace(name, &new).map_err(dir.failed(name))?;
        }
    }
    let mut origin = manifest.origin;
    origin.owner = ids.uid.1;
    seal(folder, origin)
}

/// Whether a folder has whole images of this person's program, and nothing in them is another's or
/// beyond what a person may have. Files that it names are not looked at.
///
/// # Errors
/// As [`verify`], and when they hold what the person cannot have, or an image that is not known.
pub fn check(folder: &Path, person: &Person) -> Result<Manifest, ImageError> {
    let manifest = verify(folder, person.uid)?;
    let dir = Folder::open(folder)?;
    let gids = person.gids.iter().map(|gid| (*gid, *gid)).collect();
    let ids = Ids { uid: (person.uid, person.uid), gids };
    for name in manifest.files.keys() {
        let Some((kind, bytes)) = dir.with_ids(name)? else { continue };
        image(&bytes, kind.here(), &ids).map_err(|what| dir.bound(name, what))?;
    }
    Ok(manifest)
}

impl Kind {
    /// With the rules for images of the same site.
    fn here(self) -> Kind {
        let rules = match self.name {
            "core-" => CORE_HERE,
            "tty-info." => TTY_HERE,
            _ => self.rules,
        };
        Kind { rules, ..self }
    }
}

impl Folder<'_> {
    /// An image that has ids, and its kind; `None`: it has none.
    fn with_ids(&self, name: &str) -> Result<Option<(Kind, Vec<u8>)>, ImageError> {
        let Some(kind) = KINDS.iter().find(|kind| name.starts_with(kind.name)) else {
            if PLAIN.iter().any(|plain| name.starts_with(plain)) {
                return Ok(None);
            }
            return Err(self.bound(name, "nobody knows whether it names users".to_owned()));
        };
        let mut bytes = Vec::new();
        let read = self.file(name)?.take(BYTES_MAX + 1).read_to_end(&mut bytes);
        let read = read.map_err(self.failed(name))?;
        if u64::try_from(read).is_ok_and(|read| read > BYTES_MAX) {
            return Err(self.bound(name, "it is too long".to_owned()));
        }
        Ok(Some((*kind, bytes)))
    }

    fn bound(&self, name: &str, what: String) -> ImageError {
        ImageError::Bound { path: self.path.join(name), what }
    }

    /// Puts other bytes in the place of a file.
    fn replace(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        let draft = format!("{name}.new");
        let how = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.fd, &draft, how, Mode::from_raw_mode(0o600))?);
        file.write_all(bytes)?;
        file.sync_all()?;
        renameat(&self.fd, &draft, &self.fd, name)?;
        fsync(self.fd.as_fd())?;
        Ok(())
    }
}

/// An image with the ids of another site.
fn image(bytes: &[u8], kind: Kind, ids: &Ids) -> Result<Vec<u8>, String> {
    let torn = || "it ends in the middle".to_owned();
    let head = [COMMON_MAGIC.to_le_bytes(), kind.magic.to_le_bytes()].concat();
    let mut rest = bytes.strip_prefix(head.as_slice()).ok_or("it is of another kind")?;
    let mut out = head;
    while let Some((size, entry)) = rest.split_first_chunk() {
        let size = usize::try_from(u32::from_le_bytes(*size)).map_err(|_| torn())?;
        let (entry, more) = entry.split_at_checked(size).ok_or_else(torn)?;
        let new = message(entry, kind.rules, ids)?;
        out.extend(u32::try_from(new.len()).map_err(|_| torn())?.to_le_bytes());
        out.extend(new);
        rest = more;
        if kind.content {
            out.extend(rest);
            return Ok(out);
        }
    }
    if rest.is_empty() && !kind.content { Ok(out) } else { Err(torn()) }
}

/// A message (protobuf.dev/programming-guides/encoding) with its ids changed.
fn message(mut bytes: &[u8], rules: &[(u32, Rule)], ids: &Ids) -> Result<Vec<u8>, String> {
    let torn = || "a message in it is damaged".to_owned();
    let mut out = Vec::with_capacity(bytes.len());
    while !bytes.is_empty() {
        let key = varint(&mut bytes).ok_or_else(torn)?;
        let field = u32::try_from(key >> 3).map_err(|_| torn())?;
        let rule = rules.iter().find(|(known, _)| *known == field).map(|(_, rule)| *rule);
        put(&mut out, key);
        match key & 7 {
            0 => {
                let value = varint(&mut bytes).ok_or_else(torn)?;
                put(&mut out, number(value, rule, ids)?);
            }
            1 => out.extend(split(&mut bytes, 8).ok_or_else(torn)?),
            2 => {
                let size = varint(&mut bytes).and_then(|size| usize::try_from(size).ok());
                let content = size.and_then(|size| split(&mut bytes, size)).ok_or_else(torn)?;
                let new = match rule {
                    None => content.to_vec(),
                    Some(In(inner)) => message(content, inner, ids)?,
                    Some(Never) => return Err(beyond()),
                    Some(Fown) => message(content, fown(content).ok_or_else(torn)?, ids)?,
                    // Numbers one after the other (packed).
                    Some(_) => numbers(content, rule, ids)?,
                };
                put(&mut out, new.len() as u64);
                out.extend(new);
            }
            5 => out.extend(split(&mut bytes, 4).ok_or_else(torn)?),
            _ => return Err(torn()),
        }
    }
    Ok(out)
}

fn numbers(mut bytes: &[u8], rule: Option<Rule>, ids: &Ids) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(bytes.len());
    while !bytes.is_empty() {
        let value = varint(&mut bytes).ok_or("a message in it is damaged")?;
        put(&mut out, number(value, rule, ids)?);
    }
    Ok(out)
}

fn number(value: u64, rule: Option<Rule>, ids: &Ids) -> Result<u64, String> {
    let id = || u32::try_from(value).map_err(|_| format!("{value} is no user or group"));
    Ok(match rule {
        None => value,
        Some(Uid) => ids.user(id()?)?.into(),
        // Whoever signed in there did not do so here. It may be an administrator of the other site,
        // where the kernel does not let the agent forget who started it (`alone`).
        Some(LoginUid) => id().map(|_| u64::from(NOBODY))?,
        Some(Gid) => ids.group(id()?)?.into(),
        Some(Zero) if value == 0 => value,
        Some(Among(known)) if known.contains(&value) => value,
        Some(TtyUid) if value == 0 => value,
        Some(TtyUid) => ids.user(id()?)?.into(),
        Some(Zero | Among(_) | Never) => return Err(beyond()),
        Some(In(_) | Fown) => return Err("a message in it is damaged".to_owned()),
    })
}

fn beyond() -> String {
    "its program has more rights than a person has".to_owned()
}

/// The rules for who is sent signals: with no process to send them to, it is no user either.
fn fown(mut bytes: &[u8]) -> Option<&'static [(u32, Rule)]> {
    const NONE: &[(u32, Rule)] = &[];
    let (mut pid, mut users) = (0, 0);
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        if key & 7 != 0 {
            return None;
        }
        let value = varint(&mut bytes)?;
        match key >> 3 {
            1 | 2 => users |= value,
            5 => pid = value,
            _ => {}
        }
    }
    Some(if pid == 0 && users == 0 { NONE } else { FOWN })
}

fn split<'a>(bytes: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let (first, rest) = bytes.split_at_checked(size)?;
    *bytes = rest;
    Some(first)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(bytes).ok()
}

fn put(out: &mut Vec<u8>, value: u64) {
    prost::encoding::encode_varint(value, out);
}

#[cfg(test)]
mod tests;
