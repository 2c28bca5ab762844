//! A part of a tree's output on its way from one node to another: a head, then the bytes of output
//! and of error output.

use super::read::read_in;
use super::second::Second;
use super::spools::{Spools, locked};
use super::{ERROR_FILE, KEPT_FILE, Kept, OUTPUT_FILE, WANTED_FILE, bytes};
use crate::cluster::messages::{Offsets, Stretch};
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Longest head, bytes.
const HEAD_BYTES_MAX: u32 = 4096;
/// How much is read or written at a time, bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// What comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// From here: what was before it may not be kept any more.
    starts: Offsets,
    /// To here.
    ends: Offsets,
    /// Which of the two nobody takes more of.
    refused: [bool; 2],
    /// Whether somebody wants it whole.
    wanted: bool,
}

impl Spools {
    /// Writes what of a part of a tree's output is here, in its spool or kept beside a checkpoint:
    /// the length of a head (four bytes, little endian), the head, the bytes. Waits.
    ///
    /// # Errors
    /// That nothing of it is here, or those of the files and of who reads it.
    pub fn send(&self, tree: u64, ask: &Stretch, to: &mut dyn Write) -> io::Result<()> {
        let (folder, most) = self.source(tree, ask)?;
        let none = |e: io::Error| match e.kind() {
            ErrorKind::NotFound => {
                io::Error::new(ErrorKind::NotFound, format!("no output of tree {tree} is here"))
            }
            _ => e,
        };
        let kept: Kept =
            serde_json::from_slice(&std::fs::read(folder.join(KEPT_FILE)).map_err(none)?)?;
        let mut head = Head {
            starts: ask.from,
            ends: ask.upto,
            refused: kept.refused,
            wanted: folder.join(WANTED_FILE).exists(),
        };
        let (mut starts, mut ends) = ([0; 2], [0; 2]);
        for (i, stream) in [OUTPUT_FILE, ERROR_FILE].into_iter().enumerate() {
            let (begin, end) = extent(&folder, stream, kept.from[i])?;
            let end = most.map_or(end, |most| end.min(most.both()[i]));
            starts[i] = ask.from.both()[i].max(begin);
            ends[i] = end.min(ask.upto.both()[i]).max(starts[i]);
        }
        (head.starts, head.ends) = (starts.into(), ends.into());
        let text = serde_json::to_vec(&head)?;
        to.write_all(&u32::try_from(text.len()).map_err(io::Error::other)?.to_le_bytes())?;
        to.write_all(&text)?;
        for i in [0, 1] {
            let mut at = starts[i];
            while at < ends[i] {
                let left = usize::try_from(ends[i] - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
                let piece = read_in(&folder, i == 1, at, left)?;
                if piece.bytes.is_empty() {
                    return Err(io::Error::other("a spool's file became shorter"));
                }
                to.write_all(&piece.bytes)?;
                at += piece.bytes.len() as u64;
            }
        }
        to.flush()
    }

    /// Whether the spool of a tree is here, and has all up to these offsets but what was refused.
    ///
    /// # Errors
    /// Those of the files.
    pub fn reaches(&self, tree: u64, upto: Offsets) -> io::Result<bool> {
        let folder = self.folder(tree);
        let kept: Kept = match std::fs::read(folder.join(KEPT_FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        for (i, stream) in [OUTPUT_FILE, ERROR_FILE].into_iter().enumerate() {
            let (_, end) = extent(&folder, stream, kept.from[i])?;
            if end < upto.both()[i] && !kept.refused[i] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Where it is taken from, and up to where that is good; none: all of it.
    fn source(&self, tree: u64, ask: &Stretch) -> io::Result<(PathBuf, Option<Offsets>)> {
        let spool = self.folder(tree);
        let Some(second) = self.known_second(tree)? else { return Ok((spool, None)) };
        let good = locked(&second).good(ask.line);
        match good.covers(ask.upto) || !spool.join(KEPT_FILE).exists() {
            true => Ok((self.second_folder(tree), Some(good))),
            false => Ok((spool, None)),
        }
    }
}

/// From where to where a stream lies in a folder.
fn extent(folder: &Path, stream: &str, from: u64) -> io::Result<(u64, u64)> {
    let parts = bytes::parts(folder, stream, from)?;
    let Some((last, name)) = parts.last() else { return Ok((from, from)) };
    let begins = parts.first().map_or(from, |(begins, _)| *begins);
    let size = std::fs::metadata(folder.join(name))?.len();
    Ok((begins, last.saturating_add(size)))
}

/// Takes what another node sent of a part of a tree's output ([`Spools::send`]). Waits.
///
/// # Errors
/// That it breaks off, or is something else than was asked; what came until then stays.
pub fn receive(second: &Mutex<Second>, ask: &Stretch, from: &mut dyn Read) -> io::Result<()> {
    let head = head(from)?;
    let broken = |why: &str| io::Error::new(ErrorKind::InvalidData, why.to_owned());
    let (starts, ends) = (head.starts.both(), head.ends.both());
    let (asked, most) = (ask.from.both(), ask.upto.both());
    for i in [0, 1] {
        // What was dropped there may be beyond all that was asked for.
        let none = starts[i] == ends[i];
        if starts[i] < asked[i] || ends[i] < starts[i] || (ends[i] > most[i] && !none) {
            return Err(broken("another part of the output than was asked for"));
        }
    }
    if head.wanted {
        locked(second).want()?;
    }
    let mut buf = vec![0; PIECE_BYTES];
    for i in [0, 1] {
        {
            let mut second = locked(second);
            let end = second.ends().both()[i];
            if end < starts[i] {
                second.begin_at(i, starts[i])?;
            } else if end != starts[i] && !second.is_refused(i) {
                return Err(broken("somebody else fetches it too"));
            }
        }
        let mut at = starts[i];
        while at < ends[i] {
            let left = ends[i] - at;
            let n = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            from.read_exact(&mut buf[..n])?;
            let mut second = locked(second);
            // It was cut back meanwhile, with what a copy here wrote.
            if !second.is_refused(i) && second.ends().both()[i] != at {
                return Err(io::Error::other("what was kept is cut back"));
            }
            second.append(i, &buf[..n])?;
            at += n as u64;
        }
        if head.refused[i] && ends[i] < most[i] {
            locked(second).refuse(i)?;
        }
    }
    Ok(())
}

fn head(from: &mut dyn Read) -> io::Result<Head> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len);
    if len > HEAD_BYTES_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, "a head that is too long"));
    }
    let mut text = vec![0; len as usize];
    from.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}
