//! One call of PAM: whom it is about, what may be asked, and how the person and the log are told.

use crate::arguments::Arguments;
use crate::codes::{Code, Verdict};
use crate::ffi::{Handle, Priority, Style, uid_of};
use crate::seen::{self, NotSeen};
use crate::texts;
use std::ffi::CStr;
use std::time::{Duration, SystemTime};
use xos_base::Millis;
use xos_base::accounts::ID_RANGE;
use xos_base::local::{LocalCall, LocalError, call_at};

/// Whose files say who was let in before.
const ROOT: u32 = 0;

/// A call of PAM.
pub(crate) struct Call {
    /// libpam's side of it.
    pub(crate) pam: Handle,
    arguments: Arguments,
    silent: bool,
}

/// A grid account, as libc knows it.
pub(crate) struct GridUser {
    /// Its local name.
    pub(crate) name: String,
    /// Its uid.
    pub(crate) uid: u32,
}

impl Call {
    /// A call with the words of its line in `/etc/pam.d`; `silent` when the host wants no messages.
    pub(crate) fn new<'a>(
        pam: Handle,
        silent: bool,
        words: impl IntoIterator<Item = &'a CStr>,
    ) -> Call {
        let (arguments, complaints) = Arguments::parse(words);
        for complaint in complaints {
            pam.log(Priority::Warning, &complaint);
        }
        Call { pam, arguments, silent }
    }

    /// The grid account that this is about, if it is one: an account whose uid, as libc tells it
    /// to the host too, is in the range that only XOS gives. So a local account stays local
    /// whatever else has its name.
    ///
    /// # Errors
    /// When libc lacks something to tell: nothing is decided then.
    pub(crate) fn grid_user(&self) -> Result<Option<GridUser>, Code> {
        // A grid account's name is ASCII, so one that is no text is nobody's here.
        let Some(name) = self.pam.user() else { return Ok(None) };
        match uid_of(&name) {
            Ok(Some(uid)) if ID_RANGE.contains(&uid) => Ok(Some(GridUser { name, uid })),
            Ok(_) => {
                self.debug(&format!("{name} is no grid account"));
                Ok(None)
            }
            Err(e) => {
                let text = format!("cannot tell now whether {name} is a grid account: {e}");
                self.pam.log(Priority::Error, &text);
                Err(Code::AuthInfoUnavail)
            }
        }
    }

    /// Asks the node, for at most `usual` unless the line says otherwise.
    pub(crate) fn ask<C: LocalCall>(
        &self,
        with: &C,
        usual: Duration,
    ) -> Result<C::Answer, LocalError> {
        call_at(&self.arguments.socket, with, self.arguments.timeout.unwrap_or(usual))
    }

    /// Asks the node, for at most `limit` whatever the line says: a call that waits for a person.
    pub(crate) fn ask_patiently<C: LocalCall>(
        &self,
        with: &C,
        limit: Duration,
    ) -> Result<C::Answer, LocalError> {
        call_at(&self.arguments.socket, with, limit)
    }

    /// Until when the account may be let in while the node does not answer.
    pub(crate) fn seen(&self, user: &GridUser) -> Result<Millis, NotSeen> {
        seen::until(&self.arguments.seen, ROOT, user.uid, Millis::of(SystemTime::now()))
    }

    /// Tells the person, unless the host wants no messages, and the log how it ended.
    pub(crate) fn end(&self, user: &GridUser, verdict: Verdict) -> Code {
        self.ended(user, verdict, !self.silent)
    }

    /// The same for a person who was shown or asked something before: they hear the end of it in
    /// any case. sudo wants no messages at all.
    pub(crate) fn end_aloud(&self, user: &GridUser, verdict: Verdict) -> Code {
        self.ended(user, verdict, true)
    }

    fn ended(&self, user: &GridUser, verdict: Verdict, aloud: bool) -> Code {
        let Verdict { code, text } = verdict;
        match text {
            Some(text) => {
                let (priority, style) = match code {
                    Code::Success => (Priority::Notice, Style::Info),
                    _ => (Priority::Warning, Style::Error),
                };
                self.pam.log(priority, &format!("{}: {code:?}: {text}", user.name));
                if aloud {
                    self.say(style, &text);
                }
            }
            None => self.debug(&format!("{}: {code:?}", user.name)),
        }
        code
    }

    /// Tells the person, unless the host wants no messages. Whether they hear it decides nothing:
    /// cron and others have nobody to tell.
    pub(crate) fn tell(&self, style: Style, text: &str) {
        if !self.silent {
            self.say(style, text);
        }
    }

    fn say(&self, style: Style, text: &str) {
        for piece in texts::pieces(text) {
            if let Err(why) = self.pam.say(style, &piece) {
                return self.debug(&format!("the person could not be told: {why}"));
            }
        }
    }

    /// For the log when the line says `debug`.
    pub(crate) fn debug(&self, text: &str) {
        if self.arguments.debug {
            self.pam.log(Priority::Debug, text);
        }
    }
}
