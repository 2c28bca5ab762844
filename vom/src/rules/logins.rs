//! Whom rules do not let sign in to a node.

use super::court::{Court, Finding, Judge};
use super::engine::Asked;
use std::cell::RefCell;
use std::collections::HashMap;
use xos_api::policy::{Action, Place};
use xos_base::{GroupName, NodeId, PersonId, RoleName, SiteId};

/// Those whom no rule tells apart.
type Class = (SiteId, Vec<GroupName>, Vec<RoleName>);

/// The rules of sign-ins to one node: those in force, and those that it was told by.
pub(crate) struct Logins<'a> {
    now: Classes<'a>,
    before: Option<Classes<'a>>,
    place: Place,
}

/// Findings by class: members are many, classes few.
struct Classes<'a> {
    judge: &'a Judge,
    court: &'a Court,
    found: RefCell<HashMap<Class, Finding>>,
}

impl<'a> Classes<'a> {
    fn new(judge: &'a Judge, court: &'a Court) -> Classes<'a> {
        Classes { judge, court, found: RefCell::default() }
    }

    fn finding(&self, asked: &Asked) -> Finding {
        let named = |p: &PersonId| self.court.vo.names(p) || self.court.site.names(p);
        let class = match &asked.person {
            Some(p) if !named(p) => (p.site(), asked.groups.clone(), asked.roles.clone()),
            _ => return self.judge.decide(self.court, asked),
        };
        let mut found = self.found.borrow_mut();
        found.entry(class).or_insert_with(|| self.judge.decide(self.court, asked)).clone()
    }

    /// The refusal that a member reads.
    fn refusal(&self, asked: &Asked) -> Option<String> {
        Some(self.finding(asked).denial(asked, &asked.place.site)?.text)
    }
}

impl<'a> Logins<'a> {
    /// The rules for a node, which was told by those of `before`.
    pub(crate) fn new(
        judge: &'a Judge,
        (site, node): (&SiteId, &NodeId),
        court: &'a Court,
        before: Option<&'a Court>,
    ) -> Logins<'a> {
        let free = |court: &Court| court.login_is_free();
        let before = before.filter(|b| *b != court && !(free(b) && free(court)));
        Logins {
            now: Classes::new(judge, court),
            before: before.map(|court| Classes::new(judge, court)),
            place: Place { site: site.clone(), node: Some(node.clone()) },
        }
    }

    /// Why a member is refused; `asked` makes the question about them, when it must be asked.
    pub(crate) fn refusal(&self, asked: impl FnOnce(Action, &Place) -> Asked) -> Option<String> {
        if self.now.court.login_is_free() {
            return None;
        }
        self.now.refusal(&asked(Action::Login, &self.place))
    }

    /// Whether the node must be told another thing of a member than before.
    pub(crate) fn differs(&self, asked: impl FnOnce(Action, &Place) -> Asked) -> bool {
        let Some(before) = &self.before else { return false };
        let asked = asked(Action::Login, &self.place);
        before.refusal(&asked) != self.now.refusal(&asked)
    }
}
