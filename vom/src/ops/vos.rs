//! Founding, listing, reading, suspending VOs.

use super::Vom;
use crate::decide::Command;
use crate::live::Live;
use crate::log::{self, Chain};
use crate::policy::{Action, Role};
use crate::registry::Appended;
use crate::state::{Vo, about, page_size};
use crate::{Found, VOS_MAX};
use xos_api::Done;
use xos_api::vom::{
    Actor, Change, DescribeVo, FoundVo, GetVo, ListVos, RecordVolume, ResumeVo, SetFileAudit,
    SetGrace, SetLease, SetRenewal, SuspendVo, VoInfo, VoPage,
};
use xos_base::{Error, PersonId, VoId};
use xos_net::{Caller, Principal};

/// Most VOs at one home that one person who is no site administrator may found. A VO given to
/// somebody else still counts, and a dissolved one until it is erased.
pub const FOUNDED_MAX: usize = 20;

/// The right to found a VO.
struct FoundGrant {
    person: PersonId,
    /// How many VOs the person may have founded before.
    before_max: usize,
}

impl Vom {
    pub(super) async fn found_vo(&self, caller: Caller, r: FoundVo) -> Result<VoInfo, Error> {
        let vo: VoId = format!("{}.{}", r.label, self.inner.site).parse()?;
        let (vom, asks, id) = (self.clone(), caller.clone(), vo.clone());
        let task = tokio::spawn(async move {
            let said = r.clone();
            let founded = match vom.authorise_founding(&asks) {
                Ok(grant) => vom.found(grant, id.clone(), r).await,
                Err(e) => Err(e),
            };
            vom.noted(&asks, "found_vo", (&id, &said), founded).await
        });
        task.await
            .map_err(|_| Error::internal("founding failed").hint("look whether it was made"))??;
        self.get_vo(caller, GetVo { vo }).await
    }

    fn authorise_founding(&self, caller: &Caller) -> Result<FoundGrant, Error> {
        let site = &self.inner.site;
        let person = match caller.principal() {
            Principal::Person(p) => p.clone(),
            // A credential in a VO of this site was issued by this site.
            Principal::Member(m) if m.vo.site() == *site => m.person.clone(),
            _ => {
                return Err(Error::denied("only persons found VOs").hint("sign in: `xos login`"));
            }
        };
        if person.site() != *site {
            return Err(Error::denied(format!("{person} is not a person of site {site}"))
                .hint(format!("found it at your own site, {}", person.site())));
        }
        if caller.site_admin() {
            return Ok(FoundGrant { person, before_max: VOS_MAX });
        }
        if self.inner.config.found == Found::SiteAdmins {
            return Err(Error::denied(format!("only administrators of {site} found VOs here"))
                .hint("ask one of them"));
        }
        Ok(FoundGrant { person, before_max: FOUNDED_MAX - 1 })
    }

    async fn found(&self, grant: FoundGrant, vo: VoId, r: FoundVo) -> Result<VoId, Error> {
        let inner = &self.inner;
        let FoundGrant { person, before_max } = grant;
        // One at a time: else many at once would all count the same VOs.
        let _alone = inner.founding.lock().await;
        let exists =
            || Error::conflict(format!("there is a VO {vo} already")).hint("choose another label");
        if inner.vos.one(&vo).is_some() {
            return Err(exists());
        }
        if let Some(told) = inner.graves.told(&vo) {
            return Err(Error::conflict(format!("{told}: nobody gets its id again"))
                .hint("choose another label"));
        }
        let all = inner.vos.after(None, VOS_MAX);
        if all.len() >= VOS_MAX {
            return Err(Error::too_large(format!("this site knows {VOS_MAX} VOs already"))
                .hint("ask an administrator of the site"));
        }
        let own = all.iter().filter(|l| l.id().site() == inner.site);
        let founded = own.filter(|l| l.read().founder == person).count();
        if founded > before_max {
            return Err(Error::limited(format!("{person} founded {founded} VOs here already"))
                .hint("ask an administrator of the site"));
        }
        let change =
            Change::Founded { owner: person.clone(), title: r.title, description: r.description };
        let mut chain = Chain::start();
        let entry = chain.next(&vo, Actor::Person(person), change, inner.clock.now());
        let state = Vo::found(&entry)?;
        let jws = log::seal(&inner.signer, &entry)?;
        let about = about(&entry.change);
        if inner.registry.append_about(&vo, 1, &jws, &about).await? == Appended::Taken {
            // Another core of this site was faster: know it from now on.
            let (state, chain, checkpointed) = inner.registry.load(&vo).await?;
            inner.vos.add(Live::new(state, chain, checkpointed, inner.clock.now()));
            return Err(exists());
        }
        chain.advance(&entry, &jws);
        let live = inner.vos.add(Live::new(state, chain, 0, entry.time));
        inner.grown(&live);
        Ok(vo)
    }

    /// Public: names, titles and descriptions are what people choose a VO by.
    pub(super) async fn list_vos(&self, r: ListVos) -> Result<VoPage, Error> {
        let size = page_size(r.limit);
        let mut lives = self.inner.vos.after(r.after.as_ref(), size.saturating_add(1));
        let more = lives.len() > size;
        lives.truncate(size);
        let vos: Vec<_> = lives.iter().map(|l| l.read().summary()).collect();
        let next = vos.last().filter(|_| more).map(|v| v.vo.clone());
        Ok(VoPage { vos, next })
    }

    pub(super) async fn get_vo(&self, caller: Caller, r: GetVo) -> Result<VoInfo, Error> {
        let live = self.known(&r.vo)?;
        let now = self.inner.clock.now();
        let subject = self.inner.subject(&caller, &r.vo)?;
        let vo = live.read();
        let sees = self.inner.policy.authorise(&vo, &subject, Action::See, now).is_ok();
        // A credential in another VO shows who somebody is, and opens nothing of this one.
        let person = subject.person().filter(|_| !subject.carries_nothing());
        Ok(VoInfo {
            summary: vo.summary(),
            state: vo.state.clone(),
            me: person.and_then(|p| vo.member_info(p, now)),
            application: person.and_then(|p| vo.applications.get(p)).cloned(),
            details: sees.then(|| vo.details()),
        })
    }

    pub(super) async fn suspend_vo(&self, caller: Caller, r: SuspendVo) -> Result<Done, Error> {
        self.change(&caller, &r.vo, Command::SuspendVo { reason: r.reason }).await
    }

    pub(super) async fn resume_vo(&self, caller: Caller, r: ResumeVo) -> Result<Done, Error> {
        self.change(&caller, &r.vo, Command::ResumeVo).await
    }

    pub(super) async fn describe_vo(&self, caller: Caller, r: DescribeVo) -> Result<Done, Error> {
        let DescribeVo { vo, title, description, base } = r;
        self.change(&caller, &vo, Command::DescribeVo { title, description, base }).await
    }

    pub(super) async fn set_lease(&self, caller: Caller, r: SetLease) -> Result<Done, Error> {
        let command = Command::SetLease { lease_s: r.lease_s, base: r.base };
        self.change(&caller, &r.vo, command).await
    }

    pub(super) async fn set_grace(&self, caller: Caller, r: SetGrace) -> Result<Done, Error> {
        let command = Command::SetGrace { grace_s: r.grace_s, base: r.base };
        self.change(&caller, &r.vo, command).await
    }

    pub(super) async fn set_renewal(&self, caller: Caller, r: SetRenewal) -> Result<Done, Error> {
        let command = Command::SetRenewal { renewal_s: r.renewal_s, base: r.base };
        self.change(&caller, &r.vo, command).await
    }

    pub(super) async fn set_file_audit(
        &self,
        caller: Caller,
        r: SetFileAudit,
    ) -> Result<Done, Error> {
        let command = Command::SetFileAudit { opens: r.opens, base: r.base };
        self.change(&caller, &r.vo, command).await
    }

    pub(super) async fn record_volume(
        &self,
        caller: Caller,
        r: RecordVolume,
    ) -> Result<Done, Error> {
        self.change(&caller, &r.vo, Command::MakeVolume { name: r.name }).await
    }

    /// Whether the caller administers this site; for what concerns the site itself.
    pub(super) fn site_admin(&self, caller: &Caller) -> Result<(), Error> {
        if caller.site_admin() {
            return Ok(());
        }
        let role = Role::SiteAdmin.as_str();
        Err(Error::denied(format!("{} is no {role} of {}", caller.describe(), self.inner.site))
            .hint("sign in as an administrator of the site, without a VO"))
    }
}
