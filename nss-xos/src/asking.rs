//! Asks the node's `xosd` for a grid user whom the account file does not have yet.
//!
//! Only what can be a grid account is asked for, for at most 50 ms; a process that got no answer,
//! or a slow one, asks nobody for 5 seconds. `xosd` itself is never answered so: it would wait for
//! itself. That, and who listens, the kernel says; neither is taken from the environment.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    time::{Duration, Instant},
};

use xos_base::{
    LocalName, VoId,
    accounts::{AccountsBuilder, ID_RANGE, NAME_BYTES_MAX, User},
    local::{FindUser, FoundUser, LocalError, UserKey, call_other_at},
};

use crate::status::Failure;

/// How long a lookup waits for `xosd`.
const ANSWER_MAX: Duration = Duration::from_millis(50);
/// An answer that took longer would make a list of many unknown ids take for ever.
const SLOW: Duration = Duration::from_millis(10);
/// How long a process asks nobody after it got no answer, or a slow one.
const PAUSE: Duration = Duration::from_secs(5);
/// Nobody knows. A caller that takes an error for one takes this errno for "no such user".
const NO_ANSWER: Failure = Failure::Unavailable(libc::ENOENT);

/// The node's `xosd`, at its socket.
pub(crate) struct Node<P> {
    socket: P,
    asks_again: Mutex<Option<Instant>>,
}

/// What to ask for, when `name` can be that of a grid account.
pub(crate) fn by_name(name: &str) -> Option<UserKey> {
    is_grid_name(name).then(|| UserKey::Name(name.to_owned()))
}

/// What to ask for, when `uid` can be that of a grid account.
pub(crate) fn by_uid(uid: u32) -> Option<UserKey> {
    ID_RANGE.contains(&uid).then_some(UserKey::Uid(uid))
}

/// `<person>.<vo>.<site>`, or `u<uid>` of an account whose name was taken.
fn is_grid_name(name: &str) -> bool {
    if name.len() > NAME_BYTES_MAX {
        return false;
    }
    if let Some(digits) = name.strip_prefix('u')
        && let Ok(uid) = digits.parse::<u32>()
    {
        return ID_RANGE.contains(&uid) && uid.to_string() == digits;
    }
    name.split_once('.').is_some_and(|(person, vo)| {
        vo.parse::<VoId>().is_ok_and(|vo| vo.site().person(person).is_ok())
    })
}

impl<P: AsRef<Path>> Node<P> {
    pub(crate) const fn new(socket: P) -> Self {
        Self { socket, asks_again: Mutex::new(None) }
    }

    /// Asks for a user.
    pub(crate) fn find(&self, by: UserKey) -> Result<FoundUser, Failure> {
        self.find_by(by, |call| call_other_at(self.socket.as_ref(), call, ANSWER_MAX))
    }

    fn find_by(
        &self,
        by: UserKey,
        ask: impl FnOnce(&FindUser) -> Result<Option<FoundUser>, LocalError>,
    ) -> Result<FoundUser, Failure> {
        let begun = Instant::now();
        // Whoever cannot have the lock at once would only wait: it is not there for more.
        let asks = self.lock().is_some_and(|again| again.is_none_or(|at| begun >= at));
        if !asks {
            return Err(NO_ANSWER);
        }
        let call = FindUser { by };
        let answer = ask(&call);
        let took = begun.elapsed();
        if (answer.is_err() || took > SLOW)
            && let Some(mut again) = self.lock()
        {
            *again = begun.checked_add(took + PAUSE);
        }
        // libc has one word for every reason.
        let found = answer.map_err(|_| NO_ANSWER)?.ok_or(Failure::NotFound)?;
        if is_sound(&found, &call.by) { Ok(found) } else { Err(Failure::Unavailable(libc::EIO)) }
    }

    /// Never waits: see `AccountsFile`. In a child that was forked while the lock was held nobody
    /// asks any more, and the account file still answers.
    fn lock(&self) -> Option<MutexGuard<'_, Option<Instant>>> {
        match self.asks_again.try_lock() {
            Ok(again) => Some(again),
            Err(TryLockError::Poisoned(again)) => Some(PoisonError::into_inner(again)),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// Whether it is the user asked for, and one that could stand in the account file.
fn is_sound(found: &FoundUser, asked: &UserKey) -> bool {
    let is_asked = match asked {
        // Who has a name that the site gave is found by the common one too.
        UserKey::Name(name) => *name == found.name || found.name.parse::<LocalName>().is_ok(),
        UserKey::Uid(uid) => *uid == found.uid,
    };
    is_asked && AccountsBuilder::new(0).user(row(found)).is_ok()
}

/// The user as the account file has it.
pub(crate) fn row(found: &FoundUser) -> User<'_> {
    User {
        name: &found.name,
        uid: found.uid,
        gid: found.gid,
        gecos: &found.gecos,
        home: &found.home,
        shell: &found.shell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: u32 = 1_879_048_200;

    fn alice() -> FoundUser {
        FoundUser {
            name: "alice.demo.rennes".into(),
            uid: UID,
            gid: UID - 8,
            gecos: String::new(),
            home: "/home/xos/alice.demo.rennes".into(),
            shell: "/bin/sh".into(),
        }
    }

    fn changed(change: fn(&mut FoundUser)) -> FoundUser {
        let mut found = alice();
        change(&mut found);
        found
    }

    fn name() -> UserKey {
        UserKey::Name("alice.demo.rennes".into())
    }

    /// If it failed, every mistyped local name on the machine would wait for `xosd`.
    #[test]
    fn only_grid_names_and_numbers_are_asked_for() {
        for yes in ["alice.demo.rennes", "a-b_c1.x.y", "u1879048200"] {
            assert_eq!(by_name(yes), Some(UserKey::Name(yes.into())));
        }
        for no in [
            "",
            "root",
            "u",
            "u1000",
            "u01879048200",
            "u+1879048200",
            "alice.demo",
            "a.b.c.d",
            "Alice.demo.rennes",
            "alice..rennes",
            ".demo.rennes",
            "alice.demo.",
            "älice.demo.rennes",
            "alice.demo.rennes\n",
            "alice:x.demo.rennes",
            "a/b.demo.rennes",
            "alice.demo.rennes ",
            "alice.demo.a-site-whose-name-is-long",
            "аlice.demo.rennes",
        ] {
            assert_eq!(by_name(no), None, "{no:?}");
        }
        assert_eq!(by_uid(UID), Some(UserKey::Uid(UID)));
        for no in [0, 1000, 65_534, ID_RANGE.start() - 1, ID_RANGE.end() + 1, u32::MAX] {
            assert_eq!(by_uid(no), None, "{no}");
        }
    }

    /// If it failed, a fault of `xosd` could make somebody another user, or root, or break a line
    /// of whatever prints the answer.
    #[test]
    fn an_answer_to_another_question_is_none() {
        let node = Node::new("/nowhere");
        let answer = |found: FoundUser, by| node.find_by(by, |_| Ok(Some(found)));
        assert_eq!(answer(alice(), name()), Ok(alice()));
        assert_eq!(answer(alice(), UserKey::Uid(UID)), Ok(alice()));
        // The site calls her otherwise.
        let ann = changed(|u| u.name = "ann".into());
        assert_eq!(answer(ann.clone(), name()), Ok(ann));
        for bad in [
            changed(|u| u.name = "bob.demo.rennes".into()),
            changed(|u| u.name = "root".into()),
            changed(|u| u.uid = 0),
            changed(|u| u.gid = 0),
            changed(|u| u.uid = u32::MAX),
            // PAM would take them for local users, and let them in unasked.
            changed(|u| u.uid = 100_001),
            changed(|u| u.uid = ID_RANGE.start() - 1),
            changed(|u| u.gid = 100_001),
            changed(|u| u.home = "relative".into()),
            changed(|u| u.shell = "/bin/sh\0".into()),
            changed(|u| u.gecos = "x\nroot::0:0".into()),
        ] {
            assert_eq!(
                answer(bad.clone(), name()),
                Err(Failure::Unavailable(libc::EIO)),
                "{bad:?}"
            );
        }
        let other = answer(alice(), UserKey::Uid(UID + 1));
        assert_eq!(other, Err(Failure::Unavailable(libc::EIO)));
    }

    /// If it failed, `ls -l` in a folder of unknown owners would wait 50 ms for each.
    #[test]
    fn silence_is_not_asked_again_at_once() {
        let node = Node::new("/nowhere");
        assert_eq!(node.find_by(name(), |_| Ok(None)), Err(Failure::NotFound));
        assert_eq!(node.find_by(name(), |_| Ok(Some(alice()))), Ok(alice()), "no is not kept");
        assert_eq!(node.find_by(name(), |_| Err(LocalError::Late)), Err(NO_ANSWER));
        let asked = node.find_by(name(), |_| panic!("asked while silent"));
        assert_eq!(asked, Err(NO_ANSWER));
        *node.lock().unwrap() = Some(Instant::now());
        assert_eq!(node.find_by(name(), |_| Ok(Some(alice()))), Ok(alice()), "after the pause");
    }

    /// If it failed, a slow `xosd` would slow down everything that looks up many names.
    #[test]
    fn a_slow_answer_is_used_once() {
        let node = Node::new("/nowhere");
        let slowly = |_: &FindUser| {
            let begun = Instant::now();
            while begun.elapsed() <= SLOW {
                std::hint::spin_loop();
            }
            Ok(Some(alice()))
        };
        assert_eq!(node.find_by(name(), slowly), Ok(alice()));
        assert_eq!(node.find_by(name(), slowly), Err(NO_ANSWER));
    }

    /// If it failed, a lookup on a machine without `xosd` would not end, or wait.
    #[test]
    fn nobody_at_the_socket_is_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::new(dir.path().join("s"));
        assert_eq!(node.find(name()), Err(NO_ANSWER));
    }

    /// If it failed, `xosd` would wait for itself.
    #[test]
    fn the_process_that_listens_is_not_asked() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::new(dir.path().join("s"));
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        assert_eq!(node.find(name()), Err(NO_ANSWER));
        listener.set_nonblocking(true).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut sent = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut sent).unwrap();
        assert!(sent.is_empty(), "it was asked");
    }
}
