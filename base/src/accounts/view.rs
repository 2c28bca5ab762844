//! Searching an account file where it lies.

use std::cmp::Ordering;

use super::{
    AccountsError, User,
    layout::{
        GROUP_BYTES, ID_BYTES, INDEX_BYTES, Layout, USER_BYTES, check_sum, name_hash, u16_at,
        u32_at,
    },
};

/// The bytes of an account file, read as such. Nothing is copied; every answer borrows from them.
#[derive(Debug, Clone, Copy)]
pub struct AccountsView<'a> {
    bytes: &'a [u8],
    layout: Layout,
}

/// One group.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its id.
    pub gid: u32,
    /// Who is in it, in order of names.
    pub members: Members<'a>,
}

/// The names of a group's members.
#[derive(Debug, Clone, Copy)]
pub struct Members<'a> {
    view: AccountsView<'a>,
    next: u32,
    end: u32,
}

/// The groups that name a user as a member, in order of the groups' names; the primary group is
/// among them only if it does.
#[derive(Debug, Clone, Copy)]
pub struct Gids<'a> {
    view: AccountsView<'a>,
    next: u32,
    end: u32,
}

impl<'a> AccountsView<'a> {
    /// Checks head, length and checksum.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, AccountsError> {
        let layout = Layout::of(bytes)?;
        check_sum(bytes)?;
        Ok(Self { bytes, layout })
    }

    /// For bytes that were checked before, when `layout` was read from them.
    pub(super) fn checked(bytes: &'a [u8], layout: Layout) -> Self {
        Self { bytes, layout }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Which file this is, as its builder counted.
    pub fn generation(&self) -> u64 {
        self.layout.generation
    }

    /// The user of this name.
    pub fn user_by_name(&self, name: &str) -> Result<Option<User<'a>>, AccountsError> {
        self.find_user(name)?.map(|at| self.user(at)).transpose()
    }

    /// The user of this id.
    pub fn user_by_uid(&self, uid: u32) -> Result<Option<User<'a>>, AccountsError> {
        let at = self.find_id(self.layout.uids_at(), self.layout.users, uid)?;
        at.map(|at| self.user(at)).transpose()
    }

    /// The group of this name.
    pub fn group_by_name(&self, name: &str) -> Result<Option<Group<'a>>, AccountsError> {
        let at = search(self.layout.groups, |at| {
            Ok(self.group_name(self.group_row(at)?)?.cmp(name.as_bytes()))
        })?;
        at.map(|at| self.group(at)).transpose()
    }

    /// The group of this id.
    pub fn group_by_gid(&self, gid: u32) -> Result<Option<Group<'a>>, AccountsError> {
        let at = self.find_id(self.layout.group_gids_at(), self.layout.groups, gid)?;
        at.map(|at| self.group(at)).transpose()
    }

    /// The groups that the user of this name is a member of; `None` if there is no such user.
    pub fn groups_of(&self, name: &str) -> Result<Option<Gids<'a>>, AccountsError> {
        let Some(at) = self.find_user(name)? else { return Ok(None) };
        let row = self.user_row(at)?;
        let (next, count) = (u32_at(row, 24)?, u32_at(row, 28)?);
        let end = bounded(next, count, self.layout.gids)?;
        Ok(Some(Gids { view: *self, next, end }))
    }

    /// The user at place `at` in order of names; `None` behind the last.
    pub fn user_at(&self, at: u32) -> Result<Option<User<'a>>, AccountsError> {
        (at < self.layout.users).then(|| self.user(at)).transpose()
    }

    /// The group at place `at` in order of names; `None` behind the last.
    pub fn group_at(&self, at: u32) -> Result<Option<Group<'a>>, AccountsError> {
        (at < self.layout.groups).then(|| self.group(at)).transpose()
    }

    /// All users in order of names.
    pub fn users(&self) -> impl Iterator<Item = Result<User<'a>, AccountsError>> + use<'a> {
        let view = *self;
        (0..view.layout.users).map(move |at| view.user(at))
    }

    /// All groups in order of names.
    pub fn groups(&self) -> impl Iterator<Item = Result<Group<'a>, AccountsError>> + use<'a> {
        let view = *self;
        (0..view.layout.groups).map(move |at| view.group(at))
    }

    fn find_user(&self, name: &str) -> Result<Option<u32>, AccountsError> {
        let (section, count) = (self.layout.names_at(), self.layout.users);
        let hash = name_hash(name);
        let at = search(count, |at| {
            let order = u32_at(self.row(section, at, INDEX_BYTES)?, 0)?.cmp(&hash);
            if order != Ordering::Equal {
                return Ok(order);
            }
            let row = self.user_row(self.target(section, count, at)?)?;
            Ok(self.text_bytes(row, 8, 32)?.cmp(name.as_bytes()))
        })?;
        at.map(|at| self.target(section, count, at)).transpose()
    }

    fn find_id(&self, section: u64, count: u32, id: u32) -> Result<Option<u32>, AccountsError> {
        let at = search(count, |at| Ok(u32_at(self.row(section, at, INDEX_BYTES)?, 0)?.cmp(&id)))?;
        at.map(|at| self.target(section, count, at)).transpose()
    }

    /// To which of `count` rows the index at `section` leads at place `at`.
    fn target(&self, section: u64, count: u32, at: u32) -> Result<u32, AccountsError> {
        let target = u32_at(self.row(section, at, INDEX_BYTES)?, 4)?;
        let target = (target < count).then_some(target);
        target.ok_or(AccountsError::Corrupt("an index points nowhere"))
    }

    fn user(&self, at: u32) -> Result<User<'a>, AccountsError> {
        let row = self.user_row(at)?;
        Ok(User {
            name: self.text(row, 8, 32)?,
            uid: u32_at(row, 0)?,
            gid: u32_at(row, 4)?,
            gecos: self.text(row, 12, 34)?,
            home: self.text(row, 16, 36)?,
            shell: self.text(row, 20, 38)?,
        })
    }

    fn group(&self, at: u32) -> Result<Group<'a>, AccountsError> {
        let row = self.group_row(at)?;
        let name = as_text(self.group_name(row)?)?;
        let (next, count) = (u32_at(row, 8)?, u32_at(row, 12)?);
        let end = bounded(next, count, self.layout.members)?;
        Ok(Group { name, gid: u32_at(row, 0)?, members: Members { view: *self, next, end } })
    }

    fn user_row(&self, at: u32) -> Result<&'a [u8], AccountsError> {
        self.row(self.layout.users_at(), at, USER_BYTES)
    }

    fn group_row(&self, at: u32) -> Result<&'a [u8], AccountsError> {
        self.row(self.layout.groups_at(), at, GROUP_BYTES)
    }

    fn group_name(&self, row: &[u8]) -> Result<&'a [u8], AccountsError> {
        self.string(u32_at(row, 4)?, u32_at(row, 16)?)
    }

    fn row(&self, section: u64, at: u32, len: usize) -> Result<&'a [u8], AccountsError> {
        self.slice(section + u64::from(at) * len as u64, len as u64)
    }

    /// The text whose offset and length stand at these places of a user's row.
    fn text_bytes(&self, row: &[u8], at: usize, len: usize) -> Result<&'a [u8], AccountsError> {
        self.string(u32_at(row, at)?, u32::from(u16_at(row, len)?))
    }

    fn text(&self, row: &[u8], at: usize, len: usize) -> Result<&'a str, AccountsError> {
        as_text(self.text_bytes(row, at, len)?)
    }

    fn string(&self, at: u32, len: u32) -> Result<&'a [u8], AccountsError> {
        bounded(at, len, self.layout.strings)?;
        self.slice(self.layout.strings_at() + u64::from(at), u64::from(len))
    }

    fn slice(&self, at: u64, len: u64) -> Result<&'a [u8], AccountsError> {
        let range = usize::try_from(at).ok().zip(usize::try_from(at + len).ok());
        range
            .and_then(|(start, end)| self.bytes.get(start..end))
            .ok_or(AccountsError::Corrupt("an offset lies outside"))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<&'a str, AccountsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = (self.next < self.end).then_some(self.next)?;
        self.next += 1;
        let member = self.view.row(self.view.layout.members_at(), at, ID_BYTES);
        Some(member.and_then(|id| u32_at(id, 0)).and_then(|at| {
            let user = self.view.user_at(at)?;
            user.map(|u| u.name).ok_or(AccountsError::Corrupt("a member points nowhere"))
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end.saturating_sub(self.next) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Members<'_> {}

impl Iterator for Gids<'_> {
    type Item = Result<u32, AccountsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = (self.next < self.end).then_some(self.next)?;
        self.next += 1;
        Some(self.view.row(self.view.layout.gids_at(), at, ID_BYTES).and_then(|b| u32_at(b, 0)))
    }
}

/// The end of a run of `count` from `first`, which must lie within `most`.
fn bounded(first: u32, count: u32, most: u32) -> Result<u32, AccountsError> {
    let end = first.checked_add(count).filter(|end| *end <= most);
    end.ok_or(AccountsError::Corrupt("a run of entries lies outside"))
}

fn as_text(bytes: &[u8]) -> Result<&str, AccountsError> {
    // A NUL would end the text early in C, and two names could become one.
    let text = std::str::from_utf8(bytes).ok().filter(|_| !bytes.contains(&0));
    text.ok_or(AccountsError::Corrupt("a text is no text"))
}

/// Binary search over `count` rows; `compare` orders a row against what is sought.
fn search(
    count: u32,
    compare: impl Fn(u32) -> Result<Ordering, AccountsError>,
) -> Result<Option<u32>, AccountsError> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        match compare(middle)? {
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
            Ordering::Equal => return Ok(Some(middle)),
        }
    }
    Ok(None)
}
