//! The calls of the local socket, by their names.

use super::{Answers, Asker};
use crate::agent::Agent;
use serde_json::value::{RawValue, to_raw_value};
use std::sync::Arc;
use xos_base::Error;
use xos_base::local::{
    AuthBegin, AuthNext, CloseLogin, Envelope, FindUser, LocalCall, MayLogin, OpenLogin, Principals,
};

impl Answers for Agent {
    async fn answer(
        self: Arc<Agent>,
        asker: Asker,
        call: Envelope<Box<RawValue>>,
    ) -> Result<Box<RawValue>, Error> {
        let (with, root) = (&call.with, asker.root);
        match call.call.as_str() {
            MayLogin::NAME => encode::<MayLogin>(self.may_login(&asked(root, with)?)?),
            OpenLogin::NAME => {
                encode::<OpenLogin>(self.open_login(asked(root, with)?, asker.pid).await?)
            }
            CloseLogin::NAME => encode::<CloseLogin>(self.close_login(&asked(root, with)?)?),
            Principals::NAME => encode::<Principals>(self.principals(&asked(root, with)?)?),
            FindUser::NAME => encode::<FindUser>(self.find_user(&asked(root, with)?)?),
            AuthBegin::NAME => encode::<AuthBegin>(self.auth_begin(asked(root, with)?).await?),
            AuthNext::NAME => encode::<AuthNext>(self.auth_next(asked(root, with)?).await?),
            _ => Err(unknown(&call.call)),
        }
    }

    fn waits(call: &str) -> bool {
        matches!(call, AuthBegin::NAME | AuthNext::NAME)
    }
}

fn unknown(call: &str) -> Error {
    let name: String = call.chars().take(40).collect();
    Error::unsupported(format!("this xosd knows no call {name:?}"))
        .hint("it may be older than the program that asks")
}

/// The call, if whoever asks may.
fn asked<C: LocalCall>(root: bool, with: &RawValue) -> Result<C, Error> {
    if C::ROOT_ONLY && !root {
        return Err(Error::denied(format!("only root may ask for {}", C::NAME)));
    }
    serde_json::from_str(with.get())
        .map_err(|e| Error::invalid(format!("the call {} is malformed: {e}", C::NAME)))
}

fn encode<C: LocalCall>(answer: C::Answer) -> Result<Box<RawValue>, Error> {
    to_raw_value(&answer).map_err(|e| Error::internal(format!("cannot encode an answer: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    /// If it failed, any local user could open a session as somebody else, or ask who is let in.
    #[test]
    fn what_only_root_may_ask_is_refused_to_others_before_it_is_read() {
        let nonsense = raw("7");
        for e in [
            asked::<MayLogin>(false, &nonsense).unwrap_err(),
            asked::<OpenLogin>(false, &nonsense).unwrap_err(),
            asked::<CloseLogin>(false, &nonsense).unwrap_err(),
            asked::<AuthBegin>(false, &nonsense).unwrap_err(),
            asked::<AuthNext>(false, &nonsense).unwrap_err(),
        ] {
            assert_eq!(e.kind, xos_base::Kind::Denied, "{e}");
        }
        let close = asked::<CloseLogin>(true, &raw(r#"{"session":"a"}"#)).unwrap();
        assert_eq!(close.session, "a");
        assert!(asked::<FindUser>(false, &raw(r#"{"by":{"uid":7}}"#)).is_ok());
        for bad in ["7", "{}", r#"{"session":"a","more":1}"#, r#"{"session":null}"#] {
            let e = asked::<CloseLogin>(true, &raw(bad)).unwrap_err();
            assert_eq!(e.kind, xos_base::Kind::Invalid, "{bad}");
        }
        assert!(unknown(&"x".repeat(1000)).message.len() < 100);
    }
}
