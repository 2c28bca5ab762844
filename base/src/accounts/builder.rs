//! Making an account file.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    time::SystemTime,
};

use super::{
    AccountsError, ENTRIES_MAX, FIELD_BYTES_MAX, ID_RANGE, MEMBERS_MAX, NAME_BYTES_MAX, User,
    layout::{HEAD_BYTES, Layout, name_hash},
};

/// Collects users and groups; refuses what libc's tools would misread.
#[derive(Debug, Default)]
pub struct AccountsBuilder {
    generation: u64,
    users: BTreeMap<String, UserRow>,
    uids: BTreeMap<u32, String>,
    groups: BTreeMap<String, GroupRow>,
    gids: BTreeMap<u32, String>,
    members: usize,
}

#[derive(Debug)]
struct UserRow {
    uid: u32,
    gid: u32,
    gecos: String,
    home: String,
    shell: String,
}

#[derive(Debug)]
struct GroupRow {
    gid: u32,
    members: Vec<String>,
}

impl AccountsBuilder {
    /// An empty file; `generation` tells its readers which one this is.
    pub fn new(generation: u64) -> Self {
        Self { generation, ..Self::default() }
    }

    /// Changes which generation the file says it is.
    pub fn generation(&mut self, generation: u64) -> &mut Self {
        self.generation = generation;
        self
    }

    /// Adds a user.
    pub fn user(&mut self, user: User<'_>) -> Result<&mut Self, AccountsError> {
        let User { name, uid, gid, gecos, home, shell } = user;
        check_name(name)?;
        check_range(name, uid)?;
        check_range(name, gid)?;
        for (field, value) in [("gecos", gecos), ("home", home), ("shell", shell)] {
            check_field(name, field, value)?;
        }
        if self.users.len() >= ENTRIES_MAX {
            return Err(AccountsError::TooMany { what: "users" });
        }
        if self.users.contains_key(name) {
            return Err(AccountsError::DuplicateName { name: name.into() });
        }
        claim(&mut self.uids, uid, name)?;
        let [gecos, home, shell] = [gecos, home, shell].map(str::to_owned);
        self.users.insert(name.into(), UserRow { uid, gid, gecos, home, shell });
        Ok(self)
    }

    /// Adds a group. Its members must be users by the time of [`AccountsBuilder::build`].
    pub fn group<'m>(
        &mut self,
        name: &str,
        gid: u32,
        members: impl IntoIterator<Item = &'m str>,
    ) -> Result<&mut Self, AccountsError> {
        check_name(name)?;
        check_range(name, gid)?;
        if self.groups.len() >= ENTRIES_MAX {
            return Err(AccountsError::TooMany { what: "groups" });
        }
        if self.groups.contains_key(name) {
            return Err(AccountsError::DuplicateName { name: name.into() });
        }
        let mut members: Vec<String> = members.into_iter().map(str::to_owned).collect();
        members.sort();
        members.dedup();
        let all = self.members + members.len();
        if all > MEMBERS_MAX {
            return Err(AccountsError::TooMany { what: "members of groups" });
        }
        claim(&mut self.gids, gid, name)?;
        self.members = all;
        self.groups.insert(name.into(), GroupRow { gid, members });
        Ok(self)
    }

    /// The bytes of the file.
    pub fn build(&self) -> Result<Vec<u8>, AccountsError> {
        let index: HashMap<&str, u32> = self.users.keys().map(String::as_str).zip(0..).collect();
        let mut gids_of: Vec<Vec<u32>> = vec![Vec::new(); self.users.len()];
        let mut members = Vec::new();
        for (group, row) in &self.groups {
            for member in &row.members {
                let at = *index.get(member.as_str()).ok_or_else(|| {
                    AccountsError::UnknownMember { group: group.clone(), member: member.clone() }
                })?;
                members.extend_from_slice(&at.to_le_bytes());
                gids_of[at as usize].push(row.gid);
            }
        }
        let mut strings = Strings::default();
        let mut users = Vec::new();
        let mut gids = Vec::new();
        for ((name, row), list) in self.users.iter().zip(&gids_of) {
            let texts = [name, &row.gecos, &row.home, &row.shell];
            let mut words = vec![row.uid, row.gid];
            for text in texts {
                words.push(strings.add(text)?);
            }
            words.extend([(gids.len() / 4) as u32, list.len() as u32]);
            push_words(&mut users, &words);
            for text in texts {
                users.extend_from_slice(&(text.len() as u16).to_le_bytes());
            }
            push_words(&mut gids, list);
        }
        let mut groups = Vec::new();
        let mut first = 0;
        for (name, row) in &self.groups {
            let count = row.members.len() as u32;
            push_words(
                &mut groups,
                &[row.gid, strings.add(name)?, first, count, name.len() as u32],
            );
            first += count;
        }
        let group_index = self.groups.keys().map(String::as_str).zip(0..).collect();
        let layout = Layout {
            generation: self.generation,
            users: self.users.len() as u32,
            groups: self.groups.len() as u32,
            gids: (gids.len() / 4) as u32,
            members: (members.len() / 4) as u32,
            strings: strings.bytes.len() as u32,
        };
        let mut out = Vec::with_capacity(HEAD_BYTES);
        out.extend_from_slice(&layout.head());
        out.extend_from_slice(&users);
        push_names(&mut out, &index);
        push_index(&mut out, &self.uids, &index);
        out.extend_from_slice(&groups);
        push_index(&mut out, &self.gids, &group_index);
        for part in [gids, members, strings.bytes] {
            out.extend_from_slice(&part);
        }
        Layout::seal(&mut out);
        Ok(out)
    }

    /// Builds the file and puts it in the place of `path`; see [`write_atomic`].
    pub fn write_atomic(&self, path: &Path) -> Result<(), AccountsError> {
        write_atomic(path, &self.build()?)
    }
}

/// Puts `bytes` in the place of `path`, mode 0644: readers see the old file or the new one, also
/// after a power cut. For one writer at a time.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), AccountsError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    let write = || -> io::Result<()> {
        match fs::remove_file(temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // Never through a link that somebody has laid.
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
        file.write_all(bytes)?;
        // The umask must not decide whether users can see names.
        file.set_permissions(Permissions::from_mode(0o644))?;
        // The kernel's own would be that of its last tick, which two files could have in common.
        file.set_modified(SystemTime::now())?;
        file.sync_all()?;
        fs::rename(temporary, path)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|source| AccountsError::Io { path: path.to_path_buf(), source })
}

fn check_name(name: &str) -> Result<(), AccountsError> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_BYTES_MAX {
        "it is longer than 32 bytes"
    } else if name.bytes().any(|b| !b.is_ascii_graphic() || b":,/\\\"'".contains(&b)) {
        "it holds a space, control or non-ASCII character, or one of : , / \\ \" '"
    } else if name.starts_with(['-', '+', '~']) || name == "." || name == ".." {
        "it begins with - + or ~, or is . or .."
    } else if name.bytes().all(|b| b.is_ascii_digit()) {
        "tools would take it for an id"
    } else {
        return Ok(());
    };
    Err(AccountsError::BadName { name: name.into(), why })
}

/// PAM takes any other uid for a local user's, whom it lets in unasked.
fn check_range(name: &str, id: u32) -> Result<(), AccountsError> {
    if ID_RANGE.contains(&id) {
        return Ok(());
    }
    Err(AccountsError::OutOfRange { name: name.into(), id })
}

fn check_field(name: &str, field: &'static str, value: &str) -> Result<(), AccountsError> {
    let why = if value.len() > FIELD_BYTES_MAX {
        "it is longer than 1024 bytes"
    } else if value.contains(|c: char| c == ':' || c.is_control()) {
        "it holds a colon, newline or other control character"
    } else if field != "gecos" && !value.starts_with('/') {
        "it is not an absolute path"
    } else {
        return Ok(());
    };
    let (name, value) = (name.into(), value.into());
    Err(AccountsError::BadField { name, field, value, why })
}

fn claim(ids: &mut BTreeMap<u32, String>, id: u32, name: &str) -> Result<(), AccountsError> {
    if let Some(other) = ids.get(&id) {
        let (name, other) = (name.into(), other.clone());
        return Err(AccountsError::DuplicateId { id, name, other });
    }
    ids.insert(id, name.into());
    Ok(())
}

fn push_words(out: &mut Vec<u8>, words: &[u32]) {
    out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}

/// The users by the hash of their names; the indices are in order of the names.
fn push_names(out: &mut Vec<u8>, index: &HashMap<&str, u32>) {
    let mut rows: Vec<[u32; 2]> = index.iter().map(|(name, at)| [name_hash(name), *at]).collect();
    rows.sort_unstable();
    for row in rows {
        push_words(out, &row);
    }
}

fn push_index(out: &mut Vec<u8>, ids: &BTreeMap<u32, String>, index: &HashMap<&str, u32>) {
    for (id, name) in ids {
        push_words(out, &[*id, index.get(name.as_str()).copied().unwrap_or(0)]);
    }
}

/// The string table: each text once, since most users share a shell.
#[derive(Default)]
struct Strings<'a> {
    bytes: Vec<u8>,
    seen: HashMap<&'a str, u32>,
}

impl<'a> Strings<'a> {
    fn add(&mut self, text: &'a str) -> Result<u32, AccountsError> {
        if let Some(at) = self.seen.get(text) {
            return Ok(*at);
        }
        let at = u32::try_from(self.bytes.len()).ok();
        let at = at.filter(|at| at.checked_add(FIELD_BYTES_MAX as u32).is_some());
        let at = at.ok_or(AccountsError::TooMany { what: "bytes of text" })?;
        self.bytes.extend_from_slice(text.as_bytes());
        self.seen.insert(text, at);
        Ok(at)
    }
}
