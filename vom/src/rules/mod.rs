//! Rules of VOs and of this site: who may do what, where (VOPS).
//!
//! Casbin judges ([`model`]); what it says of a request is the law. Since it looks at each rule
//! every time, which takes milliseconds for thousands, an index finds the two rules that can decide
//! ([`engine`]), and verdicts are remembered as long as no rules change ([`court`]). That this
//! comes out as casbin over all rules does is a property test (`tests.rs`).
//!
//! The rules of a VO are part of its log ([`book`]), and so known to every site that serves it.
//! Those of a site lie in its registry ([`own`]).

pub mod book;
pub mod court;
pub mod engine;
pub(crate) mod logins;
pub(crate) mod look;
pub mod model;
pub(crate) mod own;

pub use book::Book;
pub use court::{Court, Finding, Judge};
pub use engine::{Asked, Engine};

use crate::Vom;
use crate::state::Vo;
use own::Own;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use xos_api::policy::{Action, Denial, Place, Side};
use xos_base::{Membership, VoId};

/// All rules known here.
pub(crate) struct Rules {
    pub(crate) judge: Judge,
    pub(crate) own: Own,
    /// What nodes are told of those whom rules keep out.
    pub(crate) logins: logins::Shared,
    /// Those of VOs, as far as somebody was judged by them.
    engines: Mutex<HashMap<VoId, Arc<Engine>>>,
}

impl Rules {
    pub(crate) fn new(judge: Judge, own: Own) -> Rules {
        Rules { judge, own, logins: logins::Shared::default(), engines: Mutex::default() }
    }

    /// Both sides' rules in force for a VO.
    pub(crate) fn court(&self, vo: &Vo) -> Court {
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        let current = engines.get(&vo.id).filter(|e| e.version() == vo.rules.version);
        let engine = match current {
            Some(engine) => engine.clone(),
            None => {
                let engine = Arc::new(Engine::new(&vo.rules));
                engines.insert(vo.id.clone(), engine.clone());
                engine
            }
        };
        drop(engines);
        Court { vo: engine, site: self.own.engine() }
    }
}

impl xos_net::Rules for Vom {
    fn judge(&self, member: &Membership, action: Action, place: &Place) -> Result<(), Denial> {
        let (inner, vo) = (&self.inner, &member.vo);
        let Some(live) = inner.vos.one(vo) else {
            let text = format!("site {} knows no rules of {vo}", inner.site);
            return Err(Denial { side: Side::Site, rule: None, text });
        };
        let carried = Asked::of(member, action, place);
        let (court, whole) = {
            let state = live.read();
            let member = state.members.get_key_value(&member.person);
            let whole = member.map(|(person, m)| state.asked(person, m, action, place));
            (inner.rules.court(&state), whole)
        };
        // Credentials can carry less than the member has: what denies it to a group that was left
        // out counts all the same, and what allows it to one does not.
        let whole = whole.filter(|whole| *whole != carried);
        for asked in whole.into_iter().chain([carried]) {
            let finding = inner.rules.judge.judge(&court, &asked);
            if let Some(denial) = finding.denial(&asked, &inner.site) {
                return Err(denial);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
