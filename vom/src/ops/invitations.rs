//! Invitations: made, shown, withdrawn, used.

use super::Vom;
use crate::decide::Command;
use crate::log;
use crate::policy::Action;
use crate::state::{EnrolmentFault, INVITATION_ID_LEN, Violation, Whose, page_size};
use crate::text;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xos_api::Done;
use xos_api::vom::{
    INVITATION_HINT_MAX, InvitationPage, InvitationSecret, InvitationView, Invite, Invited, Join,
    Joined, ListInvitations, LookAtInvitation, WithdrawInvitation,
};
use xos_base::{Error, VoId};
use xos_net::Caller;

/// Most invitations that one person tries in an hour, good or bad.
const TRIES_PER_HOUR: u32 = 20;
/// The same of all people of one other site, which can invent as many as it likes.
const TRIES_PER_SITE_AND_HOUR: u32 = 2000;
/// Longest secret that is looked at, in bytes.
const SECRET_BYTES_MAX: usize = 64;

fn no_invitation() -> Error {
    Violation::from(EnrolmentFault::NoInvitation).into()
}

impl Vom {
    pub(super) async fn invite(&self, caller: Caller, r: Invite) -> Result<Invited, Error> {
        text::lines(&r.hint, INVITATION_HINT_MAX).map_err(|e| Violation::Text("hint", e))?;
        let live = self.home(&r.vo)?;
        // Before anything is kept for somebody who may not invite.
        if let Err(e) = self.authorise(&live, &caller, crate::state::inviting(&r.gives)) {
            return self.refuse(&caller, "invite", &r.vo, e).await;
        }
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|_| Error::internal("the system gives no random bytes"))?;
        let secret = URL_SAFE_NO_PAD.encode(bytes);
        let hash = log::hash(&secret);
        let id: String = hash.chars().take(INVITATION_ID_LEN).collect();
        let (whose, now) = (Whose::Invitation(id.clone()), self.inner.clock.now());
        let hint = match r.hint.trim().is_empty() {
            true => None,
            false => {
                let (registry, hint) = (&self.inner.registry, r.hint.clone());
                Some(registry.keep_private(&r.vo, whose.clone(), hint, now).await?)
            }
        };
        let command = Command::Invite { id: id.clone(), hash, gives: r.gives, hint: hint.clone() };
        let made = self.change(&caller, &r.vo, command).await;
        if made.is_err() {
            self.erase(&r.vo, &whose, hint).await;
        }
        made?;
        let info = live.read().enrolling.invitations.get(&id).map(|i| i.info(&id, r.hint, now));
        let invitation = info.ok_or_else(no_invitation)?;
        Ok(Invited { invitation, secret: InvitationSecret(secret) })
    }

    pub(super) async fn list_invitations(
        &self,
        caller: Caller,
        r: ListInvitations,
    ) -> Result<InvitationPage, Error> {
        let live = self.home(&r.vo)?;
        self.authorise(&live, &caller, Action::Invite)?;
        let (now, size) = (self.inner.clock.now(), page_size(r.limit));
        let (mut page, hints) = live.read().invitation_page(r.after.as_deref(), size, now);
        for (info, hint) in page.invitations.iter_mut().zip(hints) {
            let Some(digest) = hint else { continue };
            info.hint = self.inner.registry.private(&r.vo, &digest).await?.unwrap_or_default();
        }
        Ok(page)
    }

    pub(super) async fn withdraw_invitation(
        &self,
        caller: Caller,
        r: WithdrawInvitation,
    ) -> Result<Done, Error> {
        self.change(&caller, &r.vo, Command::WithdrawInvitation { id: r.invitation }).await
    }

    /// The hash of a secret that somebody tries. Counted, good or bad: nobody guesses for long.
    fn tried(&self, caller: &Caller, vo: &VoId, secret: &str) -> Result<String, Error> {
        let subject = self.inner.subject(caller, vo)?;
        self.home(vo)?;
        let person = subject.person().ok_or_else(|| Error::denied("only persons are invited"))?;
        let one = format!("{person} by invitations");
        let people = format!("people of {} by invitations", person.site());
        let mut whom = vec![(one.as_str(), TRIES_PER_HOUR)];
        if person.site() != self.inner.site {
            whom.push((people.as_str(), TRIES_PER_SITE_AND_HOUR));
        }
        self.limit(&whom)?;
        if secret.len() > SECRET_BYTES_MAX {
            return Err(no_invitation());
        }
        Ok(log::hash(secret))
    }

    pub(super) async fn look_at_invitation(
        &self,
        caller: Caller,
        r: LookAtInvitation,
    ) -> Result<InvitationView, Error> {
        let hash = self.tried(&caller, &r.vo, &r.secret.0)?;
        let subject = self.inner.subject(&caller, &r.vo)?;
        let live = self.home(&r.vo)?;
        let vo = live.read();
        let (id, i) = vo.invitation(&hash).ok_or_else(no_invitation)?;
        let Some(person) = subject.person() else { return Err(no_invitation()) };
        // What it would meet who joined now, without the form.
        vo.usable(id, i, person, self.inner.clock.now())?;
        Ok(InvitationView {
            title: vo.title.clone(),
            description: vo.description.clone(),
            by: i.by.clone(),
            gives: i.gives.clone(),
            at_once: vo.joins_at_once(i, person),
            form: vo.form(),
        })
    }

    pub(super) async fn join(&self, caller: Caller, r: Join) -> Result<Joined, Error> {
        let hash = self.tried(&caller, &r.vo, &r.secret.0)?;
        let live = self.home(&r.vo)?;
        // Nothing is kept for who has no invitation.
        if live.read().invitation(&hash).is_none() {
            return self.refuse(&caller, "join", &r.vo, no_invitation()).await;
        }
        let words = self.words(&caller, &r.vo, r.agreed, r.answers).await?;
        let message = r.message;
        let join = |words| Command::Join { hash, message, words };
        self.change_saying(&caller, &r.vo, words, join).await?;
        let subject = self.inner.subject(&caller, &r.vo)?;
        let Some(person) = subject.person() else { return Err(no_invitation()) };
        if live.read().members.contains_key(person) {
            self.expected_came(&r.vo, person).await;
        } else {
            self.admit_expected(&r.vo, person).await;
        }
        let member = live.read().member_info(person, self.inner.clock.now());
        Ok(Joined { member })
    }
}
