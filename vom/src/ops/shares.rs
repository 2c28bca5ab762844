//! Shares: offered and ended at the site that gives, recorded and answered at the VO's home.

use super::Vom;
use super::applications::OFFERS_PER_HOUR;
use crate::decide::Command;
use crate::policy::{Action, Subject};
use crate::replica;
use crate::served::{Served, Todo};
use crate::state::Violation;
use crate::text;
use xos_api::Done;
use xos_api::vom::{
    AcceptShare, EndShare, ListShares, OfferShare, REASON_MAX, RecordOffer, RecordWithdrawal,
    RefuseShare, ServedVo, ShareInfo, Terms, WithdrawShare,
};
use xos_base::{Error, SiteId, VoId};
use xos_net::Caller;

/// The right to give or end this site's share.
struct SiteGrant(());

impl Vom {
    fn authorise_site(&self, caller: &Caller) -> Result<SiteGrant, Error> {
        self.site_admin(caller).map(SiteGrant)
    }

    /// Writes the offer down, then brings it to the VO's home: at once if it answers, else in the
    /// background.
    pub(super) async fn offer_share(
        &self,
        caller: Caller,
        r: OfferShare,
    ) -> Result<ServedVo, Error> {
        let offered = match self.authorise_site(&caller) {
            Ok(grant) => self.offer(grant, &r).await,
            Err(e) => Err(e),
        };
        self.noted(&caller, "offer_share", (&r.vo, &r), offered).await?;
        let inner = &self.inner;
        if let Todo::Offer(terms) = inner.todo(&r.vo)
            && let Err(error) = replica::deliver(inner, &r.vo, terms).await
        {
            tracing::warn!(vo = %r.vo, %error, "an offer will be brought later");
            inner.set_trouble(&r.vo, Some(error.to_string()));
        }
        inner.work_for(&r.vo);
        self.served_now(&r.vo)
    }

    async fn offer(&self, _grant: SiteGrant, r: &OfferShare) -> Result<(), Error> {
        let inner = &self.inner;
        let home = r.vo.site();
        if let Some(told) = inner.graves.told(&r.vo) {
            return Err(Error::not_found(told).hint("`xos vo list` shows the VOs that there are"));
        }
        if home != inner.site {
            inner.trust.descriptor(&home)?;
        }
        if (r.cpu_milli == 0 || r.memory_bytes == 0) && r.storage_bytes == 0 {
            return Err(Violation::EmptyShare.into());
        }
        let now = inner.clock.now();
        if r.until.is_some_and(|end| end <= now) {
            return Err(Error::invalid("the share would end in the past"));
        }
        let terms = Terms {
            cpu_milli: r.cpu_milli,
            memory_bytes: r.memory_bytes,
            storage_bytes: r.storage_bytes,
            until: r.until,
            version: 0,
        };
        inner
            .shares
            .change(&inner.registry, &r.vo, |former| {
                let first = match former {
                    Some(s) if r.base.is_some_and(|b| b != s.base) => {
                        return Err(Error::conflict(format!(
                            "the uids of {} begin at {} here, for good",
                            r.vo, s.base
                        ))
                        .hint("leave the base away"));
                    }
                    Some(s) => s.clone(),
                    None => inner.shares.begin(&r.vo, inner.config.uid_blocks, r.base)?,
                };
                let live = inner.vos.one(&r.vo);
                let state = live.as_ref().map(|l| l.read());
                first.offer(&inner.site, state.as_deref(), terms).map(Some)
            })
            .await
    }

    /// Ends the share here at once; the VO's home is told in the background.
    pub(super) async fn withdraw_share(
        &self,
        caller: Caller,
        r: WithdrawShare,
    ) -> Result<Done, Error> {
        let taken = self.take_back(&caller, &r).await;
        self.noted(&caller, "withdraw_share", (&r.vo, &r), taken).await?;
        self.inner.work_for(&r.vo);
        Ok(Done {})
    }

    async fn take_back(&self, caller: &Caller, r: &WithdrawShare) -> Result<(), Error> {
        let _grant = self.authorise_site(caller)?;
        text::lines(&r.reason, REASON_MAX).map_err(|e| Violation::Text("reason", e))?;
        let inner = &self.inner;
        let change = inner.shares.change(&inner.registry, &r.vo, |former| {
            let gives = |s: &&Served| s.withdrawn.is_none() && !s.offers.is_empty();
            let share = former.filter(gives).ok_or_else(|| {
                Error::not_found(format!("site {} gives {} no share", inner.site, r.vo))
            })?;
            Ok(Some(share.withdraw(r.reason.clone())))
        });
        change.await
    }

    /// At the home: a site's core brings its offer.
    pub(super) async fn record_offer(&self, caller: Caller, r: RecordOffer) -> Result<Done, Error> {
        let site = self.speaking_site(&caller, &r.vo)?;
        if site != self.inner.site {
            self.limit(&[(&format!("the core of {site}"), OFFERS_PER_HOUR)])?;
        }
        let command = Command::OfferShare { site, terms: r.terms };
        self.change(&caller, &r.vo, command).await
    }

    /// At the home: a site's core tells that its share has ended. Not limited: it adds nothing to
    /// the log but after an offer, and no site is to be kept from taking back what it gave.
    pub(super) async fn record_withdrawal(
        &self,
        caller: Caller,
        r: RecordWithdrawal,
    ) -> Result<Done, Error> {
        let site = self.speaking_site(&caller, &r.vo)?;
        let command = Command::WithdrawShare { site, version: r.version, reason: r.reason };
        self.change(&caller, &r.vo, command).await
    }

    fn speaking_site(&self, caller: &Caller, vo: &VoId) -> Result<SiteId, Error> {
        match self.inner.subject(caller, vo)? {
            Subject::OwnCore(site) | Subject::Core(site) => Ok(site),
            Subject::Person { person, .. } => {
                Err(Error::denied(format!("{person} is not a site's core"))
                    .hint("offer the share at the giving site: `xos vo share offer`"))
            }
        }
    }

    pub(super) async fn list_shares(
        &self,
        caller: Caller,
        r: ListShares,
    ) -> Result<Vec<ShareInfo>, Error> {
        let live = self.known(&r.vo)?;
        let grant = self.authorise(&live, &caller, Action::SeeShares)?;
        let mut infos = live.read().share_infos();
        // A site sees its own share, not what others give.
        if let Subject::Core(site) = grant.subject() {
            infos.retain(|i| i.site == *site);
        }
        Ok(infos)
    }

    pub(super) async fn accept_share(
        &self,
        caller: Caller,
        r: AcceptShare,
    ) -> Result<ShareInfo, Error> {
        let command = Command::AcceptShare { site: r.site.clone(), version: r.version };
        self.change(&caller, &r.vo, command).await?;
        let info = self.home(&r.vo)?.read().shares.get(&r.site).map(|s| s.info(&r.site));
        info.ok_or_else(|| Violation::NoShare(r.site).into())
    }

    pub(super) async fn refuse_share(&self, caller: Caller, r: RefuseShare) -> Result<Done, Error> {
        let command = Command::RefuseShare { site: r.site, version: r.version, reason: r.reason };
        self.change(&caller, &r.vo, command).await
    }

    pub(super) async fn end_share(&self, caller: Caller, r: EndShare) -> Result<Done, Error> {
        self.change(&caller, &r.vo, Command::EndShare { site: r.site, reason: r.reason }).await
    }
}
