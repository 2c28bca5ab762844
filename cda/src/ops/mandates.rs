//! Mandates: this member wants this job, or to sign in to this node. Tickets: this node may act for
//! this member.

use crate::audit::Asker;
use crate::state::spent::{Once, Spending};
use crate::{Inner, policy};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::time::Duration;
use xos_api::audit::Event;
use xos_api::cda::{
    IssueClusterMandate, IssueLoginMandate, IssueMandate, IssueTicket, IssueVouchedMandate,
    IssuedTicket, Mandate, MandateProof, TICKET_LIFE_MAX_S, TicketClaims, Work,
};
use xos_api::vom::{MembershipOf, WhoServes};
use xos_base::{Error, Membership, Millis, SiteId, VoId};
use xos_net::caller::TokenClaims;
use xos_net::sign::Kind;
use xos_net::submission;
use xos_net::ticket::verify_mandate;
use xos_net::{Caller, Principal};

/// What a proof shows.
struct Proved {
    /// The membership as it was signed.
    credential: Membership,
    /// What is spent: the submission's nonce, the token's id.
    once: Once,
    /// The digest that the person signed, if they signed one.
    digest: Option<String>,
}

/// For whom a ticket is, in which VO, and for what.
fn under(event: &mut Event, mandate: &Mandate) {
    (event.person, event.vo) =
        (Some(mandate.membership.person.clone()), Some(mandate.membership.vo.clone()));
    let work = match &mandate.work {
        Work::Job { job, .. } => format!("job {job}"),
        Work::Login { .. } => "login".to_owned(),
        Work::Cluster { cluster } => format!("cluster {cluster}"),
    };
    event.on = format!("{}, {work}", event.on);
}

impl Inner {
    pub(crate) async fn issue_mandate(
        &self,
        caller: Caller,
        r: IssueMandate,
    ) -> Result<String, Error> {
        let event = caller.event(self.now(), "issue_mandate");
        let mut event = Event { on: format!("job {}", r.job), vo: Some(r.vo.clone()), ..event };
        let issued = self.issued_mandate(&caller, r, &mut event).await;
        self.told.end(event, issued).await
    }

    async fn issued_mandate(
        &self,
        caller: &Caller,
        r: IssueMandate,
        event: &mut Event,
    ) -> Result<String, Error> {
        let owner = caller.core()?.clone();
        if r.job.site != owner {
            return Err(Error::denied(format!("job {} is not owned by site {owner}", r.job)));
        }
        self.is_home(&r.vo)?;
        let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if r.digest.len() != 64 || !r.digest.bytes().all(hex) {
            return Err(Error::invalid("digest is not 64 hexadecimal digits"));
        }
        let now = self.now();
        let proved = self.proved(&r.proof, &owner, now)?;
        event.person = Some(proved.credential.person.clone());
        if proved.credential.vo != r.vo {
            return Err(Error::denied(format!("the proof is not one for VO {}", r.vo)));
        }
        let membership = self.in_force(&proved.credential).await?;
        if proved.digest.is_some_and(|signed| signed != r.digest) {
            return Err(Error::denied("the person signed another job description"));
        }
        let spending = Spending { once: &proved.once, person: &membership.person, owner: &owner };
        self.spent.spend(spending, &r.job, &r.digest, now)?;
        let work = Work::Job { job: r.job, owner, digest: r.digest };
        self.mandate(work, membership, (now, None))
    }

    pub(crate) async fn issue_login_mandate(
        &self,
        caller: Caller,
        r: IssueLoginMandate,
    ) -> Result<String, Error> {
        let grant = policy::may_log_in(&caller, &r.vo)?;
        self.is_home(&r.vo)?;
        let membership = self.in_force(&grant.credential).await?;
        self.is_served(&r.vo, &r.node.site()).await?;
        let work = Work::Login { node: r.node };
        self.mandate(work, membership, (self.now(), Some(grant.until)))
    }

    /// As for a login, and as long as for a job: what runs in a cluster outlives the sign-in.
    pub(crate) async fn issue_cluster_mandate(
        &self,
        caller: Caller,
        r: IssueClusterMandate,
    ) -> Result<String, Error> {
        let grant = policy::may_log_in(&caller, &r.vo)?;
        self.is_home(&r.vo)?;
        let membership = self.in_force(&grant.credential).await?;
        self.is_served(&r.vo, &r.cluster.site()).await?;
        self.mandate(Work::Cluster { cluster: r.cluster }, membership, (self.now(), None))
    }

    /// Allowed because the core of the person's own site asks: by its word they sign in here, and
    /// so could have asked themselves. It lasts no longer than a certificate would that is given
    /// now, and none is when they signed in too long ago.
    pub(crate) async fn issue_vouched_mandate(
        &self,
        caller: Caller,
        r: IssueVouchedMandate,
    ) -> Result<String, Error> {
        if *caller.core()? != r.person.site() {
            let who = caller.describe();
            return Err(Error::denied(format!("{who} does not speak for {}", r.person)));
        }
        self.is_home(&r.vo)?;
        let member = self.membership(&r.vo, &r.person).await?;
        self.is_served(&r.vo, &r.node.site()).await?;
        let now = self.now();
        let grant = policy::chain_from(r.person, r.signed_in, self.config.renewal(), now)?;
        let grant = grant.within(&r.vo, &member, now)?;
        let limit = grant.until.min(now.plus(Duration::from_secs(self.config.certificate_s)));
        self.mandate(Work::Login { node: r.node }, member.membership, (now, Some(limit)))
    }

    /// Signs a mandate; it ends with the membership, and at `limit`.
    fn mandate(
        &self,
        work: Work,
        membership: Membership,
        (issued, limit): (Millis, Option<Millis>),
    ) -> Result<String, Error> {
        let life = issued.plus(Duration::from_secs(self.config.mandate_s));
        let until = [limit, membership.expires].into_iter().flatten().fold(life, Millis::min);
        self.keys.signer().sign(Kind::Mandate, &Mandate { work, membership, issued, until })
    }

    /// What a credential still gives now.
    async fn in_force(&self, credential: &Membership) -> Result<Membership, Error> {
        let current = self.membership(&credential.vo, &credential.person).await?.membership;
        if credential.epoch < current.epoch {
            return Err(Error::unauthenticated("the membership was narrowed after the sign-in")
                .hint("sign in again and ask again"));
        }
        policy::still(current, credential)
    }

    async fn is_served(&self, vo: &VoId, site: &SiteId) -> Result<(), Error> {
        let serving = self.grid.call(&self.site, WhoServes { vo: vo.clone() }).await?;
        if serving.iter().any(|s| s.site == *site) {
            return Ok(());
        }
        Err(Error::denied(format!("site {site} does not serve VO {vo}"))
            .hint("the site offers a share and the VO accepts it"))
    }

    fn is_home(&self, vo: &VoId) -> Result<(), Error> {
        if vo.site() == self.site {
            return Ok(());
        }
        Err(Error::invalid(format!("VO {vo} has its home at site {}", vo.site()))
            .hint("ask that site"))
    }

    fn proved(&self, proof: &MandateProof, owner: &SiteId, now: Millis) -> Result<Proved, Error> {
        match proof {
            MandateProof::Submission(jws) => {
                let (credential, s) = submission::verify(&self.trust, jws, now)?;
                if s.owner != *owner {
                    return Err(Error::denied(format!(
                        "the job was submitted to site {}, not {owner}",
                        s.owner
                    )));
                }
                Ok(Proved { credential, once: Once::Nonce(s.nonce), digest: Some(s.digest) })
            }
            MandateProof::Token(token) => self.proved_by_token(token, owner, now),
        }
    }

    /// A member's token that this site issued for the owner: whoever gave it to the owner wanted
    /// the owner to act, for one job.
    fn proved_by_token(&self, token: &str, owner: &SiteId, now: Millis) -> Result<Proved, Error> {
        let refuse = |why: &str| Error::unauthenticated(format!("the token is no proof: {why}"));
        let claims: TokenClaims = self.trust.verify(Kind::Token, token, &self.site)?;
        if claims.iss != self.site || claims.aud != *owner {
            return Err(refuse("it was issued for another site"));
        }
        if claims.exp <= now.secs() {
            return Err(refuse("it has expired"));
        }
        let text = claims.membership.ok_or_else(|| refuse("it speaks for no member of a VO"))?;
        let der = STANDARD.decode(text).map_err(|_| refuse("it is malformed"))?;
        let m = Membership::from_der(&der).map_err(|e| refuse(&e.to_string()))?;
        if m.person != claims.sub {
            return Err(refuse("it does not fit together"));
        }
        Ok(Proved { credential: m, once: Once::Token(claims.jti), digest: None })
    }

    pub(crate) async fn issue_ticket(
        &self,
        caller: Caller,
        r: IssueTicket,
    ) -> Result<IssuedTicket, Error> {
        let event = caller.event(self.now(), "issue_ticket");
        let mut event = Event { on: format!("node {}", r.node), ..event };
        let issued = match caller.principal() {
            Principal::Node(_) => self.ticket_for_own_node(&caller, r, &mut event).await,
            _ => self.issued_ticket(&caller, r, &mut event).await,
        };
        self.told.end(event, issued).await
    }

    async fn issued_ticket(
        &self,
        caller: &Caller,
        r: IssueTicket,
        event: &mut Event,
    ) -> Result<IssuedTicket, Error> {
        let site = caller.core()?.clone();
        if r.node.site() != site {
            return Err(Error::denied(format!("node {} is not of site {site}", r.node)));
        }
        if r.node_key.len() != 64 || !r.node_key.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::invalid("node_key is not 64 hexadecimal digits"));
        }
        let now = self.now();
        let mandate = verify_mandate(&self.trust, &r.mandate, now)?;
        under(event, &mandate);
        let vo = mandate.membership.vo.clone();
        self.is_home(&vo)?;
        self.is_served(&vo, &site).await?;
        let job = policy::job_of(mandate.work, &r.node)?;
        let signed = &mandate.membership;
        let (person, since) = (signed.person.clone(), Some(signed.epoch));
        let current = self.member_now(MembershipOf { vo, person, since }).await?.membership;
        if job.is_some() {
            // What a login carries its node ends by itself; the person may have other sessions.
            policy::carries(&current, signed)?;
        }
        let m = policy::still(current, signed)?;
        let expires = now
            .plus(Duration::from_secs(TICKET_LIFE_MAX_S))
            .min(mandate.until)
            .min(m.expires.unwrap_or(mandate.until));
        let der = m.to_der().map_err(|e| Error::internal(e.to_string()))?;
        let claims = TicketClaims {
            membership: STANDARD.encode(der),
            node: r.node,
            key: r.node_key.to_ascii_lowercase(),
            job,
            issued: now,
            expires,
        };
        Ok(IssuedTicket { ticket: self.keys.signer().sign(Kind::Ticket, &claims)?, expires })
    }

    /// A node of this site asks for its own right to act for who signs in there. Its core asks the
    /// VO's home for it, which looks at everything else.
    async fn ticket_for_own_node(
        &self,
        caller: &Caller,
        r: IssueTicket,
        event: &mut Event,
    ) -> Result<IssuedTicket, Error> {
        let (node, record) = self.present_node(caller).await?;
        let now = self.now();
        policy::may_have_ticket((&node, &record.value.keys), &r, now)?;
        let mandate = verify_mandate(&self.trust, &r.mandate, now)?;
        under(event, &mandate);
        policy::may_ask_itself(mandate.work, &node)?;
        self.grid.call(&mandate.membership.vo.site(), r).await
    }
}
