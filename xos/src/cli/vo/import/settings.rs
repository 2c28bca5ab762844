//! What an import sets in the VO as a whole, and who manages its groups.

use super::Walk;
use crate::cli::output::Failure;
use xos_api::policy::{GetVoRules, RULES_MAX, Rule, SetVoRules};
use xos_api::vom::{
    AddManager, GetEnrolmentForm, GetMember, GetVo, Question, SetFileAudit, SetGrace, SetLease,
    SetQuestions, SetReminders, SetRenewal, SetTermsOfUse, TermsOfUse,
};
use xos_base::{Error, GroupName, Kind, PersonId};

/// The settings in a file's line about the VO; absent ones stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The lease, in seconds.
    pub lease_s: Option<u64>,
    /// The grace, in seconds.
    pub grace_s: Option<u64>,
    /// How long credentials are renewed, in seconds.
    pub renewal_s: Option<u64>,
    /// Whether opened files are noted: it is switched on by an import, and never off.
    pub audit_opens: bool,
}

impl Walk<'_> {
    /// What the importer may not set, or the VO does not take, is a bad line and stops nothing
    /// else.
    fn done<T>(&mut self, number: u64, result: Result<T, Error>) -> Result<(), Failure> {
        match result {
            Ok(_) => Ok(()),
            Err(e) if matches!(e.kind, Kind::Unavailable | Kind::Unauthenticated) => Err(e.into()),
            Err(e) => self.bad(number, &e.message),
        }
    }

    pub(super) async fn settings(&mut self, number: u64, to: Settings) -> Result<(), Failure> {
        let info = self.client.call(GetVo { vo: self.vo.clone() }).await?;
        let Some(now) = info.details else {
            return self.bad(number, "you do not see the VO's settings");
        };
        let differs = |to: Option<u64>, now: Option<u64>| to.filter(|_| to != now);
        if let Some(lease_s) = differs(to.lease_s, now.lease_s) {
            self.plan.settings += 1;
            if !self.dry_run {
                let set =
                    self.client.call(SetLease { vo: self.vo.clone(), lease_s, base: None }).await;
                self.done(number, set)?;
            }
        }
        if let Some(grace_s) = differs(to.grace_s, now.grace_s) {
            self.plan.settings += 1;
            if !self.dry_run {
                let set =
                    self.client.call(SetGrace { vo: self.vo.clone(), grace_s, base: None }).await;
                self.done(number, set)?;
            }
        }
        if let Some(renewal_s) = differs(to.renewal_s, now.renewal_s) {
            self.plan.settings += 1;
            if !self.dry_run {
                let set = self
                    .client
                    .call(SetRenewal { vo: self.vo.clone(), renewal_s, base: None })
                    .await;
                self.done(number, set)?;
            }
        }
        if to.audit_opens && !now.audit_opens {
            self.plan.settings += 1;
            if !self.dry_run {
                let set = SetFileAudit { vo: self.vo.clone(), opens: true, base: None };
                let set = self.client.call(set).await;
                self.done(number, set)?;
            }
        }
        Ok(())
    }

    pub(super) async fn terms(&mut self, number: u64, to: SetTermsOfUse) -> Result<(), Failure> {
        let form = self.client.call(GetEnrolmentForm { vo: self.vo.clone() }).await?;
        let same = |t: &TermsOfUse| {
            t.text == to.text
                && t.consent_days == to.consent_days
                && Some(t.grace_days) == to.grace_days
        };
        if form.terms.as_ref().is_some_and(same) {
            return Ok(());
        }
        self.plan.settings += 1;
        if self.dry_run {
            return Ok(());
        }
        let set = self.client.call(to).await;
        self.done(number, set)
    }

    pub(super) async fn questions(
        &mut self,
        number: u64,
        questions: Vec<Question>,
    ) -> Result<(), Failure> {
        let form = self.client.call(GetEnrolmentForm { vo: self.vo.clone() }).await?;
        if form.questions == questions {
            return Ok(());
        }
        self.plan.settings += 1;
        if self.dry_run {
            return Ok(());
        }
        let set = self.client.call(SetQuestions { vo: self.vo.clone(), questions }).await;
        self.done(number, set)
    }

    pub(super) async fn reminders(&mut self, number: u64, days: Vec<u32>) -> Result<(), Failure> {
        self.plan.settings += 1;
        if self.dry_run {
            return Ok(());
        }
        let set = self.client.call(SetReminders { vo: self.vo.clone(), days, base: None }).await;
        self.done(number, set)
    }

    /// Keeps a rule for the end: a VO's rules are set together.
    pub(super) fn rule(&mut self, number: u64, rule: Rule) -> Result<(), Failure> {
        if self.rules.len() >= RULES_MAX {
            return self.bad(number, &format!("a VO has at most {RULES_MAX} rules"));
        }
        self.rules.push(rule);
        Ok(())
    }

    /// Sets the rules of the file in place of those of the VO, if the file has any.
    pub(super) async fn set_rules(&mut self, number: u64) -> Result<(), Failure> {
        let mut rules = std::mem::take(&mut self.rules);
        if rules.is_empty() {
            return Ok(());
        }
        rules.sort_by(|a, b| a.name.cmp(&b.name));
        let now = self.client.call(GetVoRules { vo: self.vo.clone() }).await?;
        if now.rules == rules {
            return Ok(());
        }
        self.plan.rules += rules.len() as u64;
        if self.dry_run {
            return Ok(());
        }
        let set = SetVoRules { vo: self.vo.clone(), version: now.version, rules };
        let set = self.client.call(set).await;
        self.done(number, set)
    }

    /// Lets those manage a group who are members already; the others are counted.
    pub(super) async fn managers(
        &mut self,
        number: u64,
        name: &GroupName,
        managers: Vec<PersonId>,
    ) -> Result<(), Failure> {
        for person in managers {
            let vo = self.vo.clone();
            if self.managed.get(name).is_some_and(|all| all.contains(&person)) {
                continue;
            }
            let ask = GetMember { vo: vo.clone(), person: person.clone() };
            match self.client.call(ask).await {
                Err(e) if e.kind == Kind::NotFound => self.plan.managers += 1,
                Err(e) => return Err(e.into()),
                Ok(_) => {
                    self.plan.named += 1;
                    if !self.dry_run {
                        let add = AddManager { vo, name: name.clone(), person };
                        let added = self.client.call(add).await;
                        self.done(number, added)?;
                    }
                }
            }
        }
        Ok(())
    }
}
