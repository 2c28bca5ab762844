//! Who may do what: pure decisions over an inode and an identity.

use xtreemfs_proto::{Errno, RpcError};

use crate::identity::Identity;
use crate::mrc::record::InodeRecord;

/// Read.
pub const R: u32 = 4;
/// Write.
pub const W: u32 = 2;
/// Execute, or search a directory.
pub const X: u32 = 1;
/// Set-user-id bit.
pub const SETUID: u32 = 0o4000;
/// Set-group-id bit.
pub const SETGID: u32 = 0o2000;
/// Sticky bit.
pub const STICKY: u32 = 0o1000;
/// All bits of a mode that are kept.
pub const MODE_BITS: u32 = 0o7777;

/// Whether `who` has all permissions in `want`. The volume's administrator has all, but executes a
/// file only if somebody may.
pub fn may(who: &Identity, inode: &InodeRecord, want: u32) -> bool {
    if who.admin {
        return want & X == 0 || inode.is_dir() || inode.mode & 0o111 != 0;
    }
    let class = if who.member == inode.owner {
        inode.mode >> 6
    } else if who.in_group(inode.group) {
        inode.mode >> 3
    } else {
        inode.mode
    };
    class & want == want
}

/// Refuses with `EACCES` unless [`may`].
///
/// # Errors
/// `EACCES`.
pub fn need(who: &Identity, inode: &InodeRecord, want: u32) -> Result<(), RpcError> {
    if may(who, inode, want) {
        return Ok(());
    }
    let mut missing = String::new();
    for (bit, name) in [(R, 'r'), (W, 'w'), (X, 'x')] {
        if want & bit != 0 {
            missing.push(name);
        }
    }
    let text = format!(
        "permission denied: member {} needs {missing}, mode is {:04o} of owner {} group {}",
        who.member, inode.mode, inode.owner, inode.group
    );
    Err(RpcError::errno(Errno::EACCES, text))
}

/// Whether `who` is the owner or the administrator.
pub fn owns(who: &Identity, inode: &InodeRecord) -> bool {
    who.admin || who.member == inode.owner
}

/// Whether `who`, who may write to `dir`, may remove or rename `inode` in it (sticky bit).
///
/// # Errors
/// `EPERM`.
pub fn need_sticky(who: &Identity, dir: &InodeRecord, inode: &InodeRecord) -> Result<(), RpcError> {
    if dir.mode & STICKY == 0 || owns(who, dir) || who.member == inode.owner {
        return Ok(());
    }
    let text = "the directory is sticky: only the owner may remove or rename this";
    Err(RpcError::errno(Errno::EPERM, text))
}

/// Mode and group of something new in `dir`.
pub fn inherit(who: &Identity, dir: &InodeRecord, mode: u32, is_dir: bool) -> (u32, u32) {
    let mode = mode & MODE_BITS;
    let setgid = dir.mode & SETGID != 0;
    let group = if setgid { dir.group } else { who.primary_group() };
    if is_dir {
        let mode = mode & !SETUID;
        return (if setgid { mode | SETGID } else { mode & !SETGID }, group);
    }
    (limit_setgid(who, mode, group), group)
}

/// Takes the set-group-id bit from a mode that `who` may not give for `group`.
pub fn limit_setgid(who: &Identity, mode: u32, group: u32) -> u32 {
    if who.admin || who.in_group(group) { mode } else { mode & !SETGID }
}

/// Mode of a file after somebody else than the administrator wrote to it or changed its owner.
pub fn without_set_ids(mode: u32) -> u32 {
    let mode = mode & !SETUID;
    // Without group execution the bit once meant mandatory locking: Linux leaves it.
    if mode & 0o010 != 0 { mode & !SETGID } else { mode }
}

#[cfg(test)]
mod tests {
    use xtreemfs_proto::mrc::Kind;

    use super::*;
    use crate::identity::NO_MEMBER;

    fn who(member: u32, groups: &[u32], admin: bool) -> Identity {
        let groups = groups.to_vec();
        Identity { vo: "demo".into(), member, groups, admin, epoch: 1, expires_ms: u64::MAX }
    }

    fn inode(kind: Kind, mode: u32) -> InodeRecord {
        InodeRecord { kind: kind.into(), mode, owner: 10, group: 20, ..Default::default() }
    }

    /// The table that people rely on: a change to it is a change of everybody's rights.
    #[test]
    fn permission_table() {
        let people = [
            ("owner", who(10, &[99], false)),
            ("owner in group", who(10, &[20], false)),
            ("in group", who(11, &[99, 20], false)),
            ("other", who(12, &[10], false)),
            ("no groups", who(12, &[], false)),
            ("admin", who(13, &[99], true)),
        ];
        let modes = [0o000, 0o777, 0o700, 0o640, 0o604, 0o070, 0o007, 0o751, 0o022];
        let mut table = String::new();
        for kind in [Kind::File, Kind::Directory] {
            for mode in modes {
                for (name, person) in &people {
                    let inode = inode(kind, mode);
                    let bit = |want, c| if may(person, &inode, want) { c } else { '-' };
                    let row = [bit(R, 'r'), bit(W, 'w'), bit(X, 'x')];
                    let row: String = row.iter().collect();
                    table += &format!("{kind:?} {mode:03o} {name}: {row}\n");
                }
            }
        }
        let golden = include_str!("../../tests/golden/permissions.txt");
        assert_eq!(table, golden, "the permission table changed; if that is meant, replace it");
    }

    /// Somebody must not be able to delete another's file in a shared folder, nor plant a file
    /// that runs with a group that is not hers.
    #[test]
    fn sticky_and_setgid() {
        let (owner, other) = (who(10, &[20], false), who(12, &[30], false));
        let mut dir = inode(Kind::Directory, 0o1777);
        dir.owner = 1;
        let file = inode(Kind::File, 0o777);
        assert!(need_sticky(&owner, &dir, &file).is_ok());
        assert!(need_sticky(&who(1, &[], false), &dir, &file).is_ok(), "owner of the directory");
        assert!(need_sticky(&who(5, &[], true), &dir, &file).is_ok(), "administrator");
        assert_eq!(need_sticky(&other, &dir, &file).unwrap_err().errno, Errno::EPERM);

        dir.owner = NO_MEMBER;
        for member in [0, 1, 12] {
            let refused = need_sticky(&who(member, &[20], false), &dir, &file);
            assert_eq!(refused.unwrap_err().errno, Errno::EPERM, "the directory is nobody's");
        }
        assert!(need_sticky(&owner, &dir, &file).is_ok());

        dir.mode = 0o2777;
        assert_eq!(inherit(&other, &dir, 0o2755, false), (0o755, 20), "setgid of a foreign group");
        assert_eq!(inherit(&owner, &dir, 0o2755, false), (0o2755, 20));
        assert_eq!(inherit(&other, &dir, 0o755, true), (0o2755, 20), "folders pass setgid on");
        dir.mode = 0o777;
        assert_eq!(inherit(&other, &dir, 0o644, false), (0o644, 30));
        assert_eq!(without_set_ids(0o6755), 0o755);
        assert_eq!(without_set_ids(0o6745), 0o2745);
    }
}
