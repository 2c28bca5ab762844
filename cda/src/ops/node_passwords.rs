//! A person types their password at a machine of their own site, whose administrator allowed that.

use super::limited;
use crate::Inner;
use crate::provider::check_login;
use xos_api::Done;
use xos_api::cda::{CheckNodePassword, PASSWORD_MAX};
use xos_base::Error;
use xos_net::Caller;

fn wrong() -> Error {
    Error::unauthenticated("wrong password").hint("try again, or ask a site administrator")
}

impl Inner {
    /// Allowed because a node of this site asks for itself, about a person of this site, who is let
    /// in by a password alone. Each node has its own budget for each person, and one for all.
    pub(crate) async fn check_node_password(
        &self,
        caller: Caller,
        r: CheckNodePassword,
    ) -> Result<Done, Error> {
        let (node, _) = self.present_node(&caller).await?;
        let person = &r.login.person;
        if r.login.node != node {
            return Err(Error::denied(format!("{node} does not ask for {}", r.login.node)));
        }
        check_login(&r.login)?;
        if person.site() != self.site {
            return Err(Error::denied(format!("{person} is not of site {}", self.site))
                .hint("people of other sites type their passwords at their own sites only"));
        }
        self.takes_passwords()?;
        if r.password.0.len() > PASSWORD_MAX {
            return Err(wrong());
        }
        let attempt = self
            .limiter
            .at_nodes
            .attempt(person.as_str(), &node, self.now())
            .map_err(|wait| limited("passwords of this person tried at this machine", wait))?;
        let record = self.person(person).await?.map(|found| found.value);
        let enough = record.filter(|r| !r.disabled && self.check_one_is_enough(r).is_ok());
        // Of others no password is looked at: no machine learns whether it would be right.
        let phc = enough.and_then(|record| record.password).ok_or_else(|| {
            Error::denied(format!("no password of {person} is taken at machines"))
                .hint("sign in by ssh, or by a code for another device where the machine shows one")
        })?;
        let right = self.passwords.verify(r.password, Some(phc)).await;
        if right.is_err() {
            self.limiter.at_nodes.undo(&attempt);
        }
        if !right? {
            return Err(wrong());
        }
        self.limiter.at_nodes.succeeded(attempt);
        Ok(Done {})
    }
}
