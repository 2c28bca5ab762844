//! Who gets which credential: pure rules.

use crate::registry::NodeKey;
use std::time::Duration;
use xos_api::cda::{IssueTicket, LINK_AGE_MAX_S, Work};
use xos_api::vom::MembershipNow;
use xos_base::membership::Group;
use xos_base::{
    Error, GroupName, JobId, Kind, Membership, Millis, NodeId, PersonId, RoleName, SiteId, VoId,
};
use xos_net::caller::CLOCK_SKEW_S;
use xos_net::{Caller, Principal};

/// The right to a credential of one person.
#[derive(Debug)]
pub(crate) struct PersonGrant {
    pub(crate) person: PersonId,
    /// When they signed in.
    pub(crate) signed_in: Millis,
    /// When the right ends.
    pub(crate) until: Millis,
}

impl PersonGrant {
    /// The same right as a member of `vo`, which lets its credentials be given and renewed for some
    /// time after the sign-in: the shorter of what it and this site say counts. It counts only if
    /// the member was not suspended since they signed in: whoever holds that sign-in may be a
    /// thief.
    pub(crate) fn within(
        self,
        vo: &VoId,
        member: &MembershipNow,
        now: Millis,
    ) -> Result<PersonGrant, Error> {
        let signed_in = self.signed_in;
        // Proofs say the second.
        if member.suspended.is_some_and(|at| signed_in.secs() < at.secs()) {
            return Err(Error::unauthenticated(format!(
                "you signed in before you were suspended in {vo}"
            ))
            .hint("sign in again with `xos login`"));
        }
        let until = self.until.min(signed_in.plus(member.renewal()));
        if until <= now {
            return Err(Error::unauthenticated(format!(
                "you signed in at {signed_in}: too long ago for {vo}, which renewed until {until}"
            ))
            .hint("sign in again with `xos login`"));
        }
        Ok(PersonGrant { until, ..self })
    }
}

/// Who asks for further credentials: their own time of sign-in decides, for `chain` after it.
fn chain_of(caller: &Caller, chain: Duration, now: Millis) -> Result<PersonGrant, Error> {
    let person = caller.person()?;
    let signed_in = caller.signed_in().ok_or_else(|| {
        Error::denied("nothing further is issued for a narrowed certificate or a member's token")
            .hint("sign in with `xos login`")
    })?;
    chain_from(person, signed_in, chain, now)
}

/// What follows from a sign-in, for `chain` after it.
///
/// # Errors
/// [`xos_base::Kind::Denied`] when it lies ahead, [`xos_base::Kind::Unauthenticated`] when it is
/// too long ago.
pub(crate) fn chain_from(
    person: PersonId,
    signed_in: Millis,
    chain: Duration,
    now: Millis,
) -> Result<PersonGrant, Error> {
    if signed_in > now.plus(Duration::from_secs(CLOCK_SKEW_S)) {
        return Err(Error::unauthenticated("the proof says that you sign in only later")
            .hint("the clock of the site that signed you in is wrong"));
    }
    let until = signed_in.plus(chain);
    if until <= now {
        return Err(Error::unauthenticated(format!("you signed in at {signed_in}: too long ago"))
            .hint("sign in again with `xos login`"));
    }
    Ok(PersonGrant { person, signed_in, until })
}

/// The right to a new token of a person of `site`. Only the person's own token is a proof for it:
/// a certificate is the person in one VO, and a token of the person all that they are.
pub(crate) fn may_renew_token(
    caller: &Caller,
    site: &SiteId,
    session: Duration,
    now: Millis,
) -> Result<PersonGrant, Error> {
    let grant = chain_of(caller, session, now)?;
    if !matches!(caller.principal(), Principal::Person(_)) {
        return Err(Error::denied("a certificate of a VO gives no token of its person")
            .hint("sign in with `xos login`"));
    }
    if grant.person.site() != *site {
        return Err(Error::denied(format!("{} is not of site {site}", grant.person))
            .hint(format!("renew the token at site {}", grant.person.site())));
    }
    Ok(grant)
}

/// The right of a person of `site` to change what they sign in by: they signed in a moment ago, so
/// that a session left open is not enough.
pub(crate) fn may_link(caller: &Caller, site: &SiteId, now: Millis) -> Result<PersonGrant, Error> {
    let grant = may_renew_token(caller, site, Duration::from_secs(LINK_AGE_MAX_S), now);
    grant.map_err(|e| match e.kind {
        Kind::Unauthenticated => {
            Error::unauthenticated("for this you must have signed in within the last five minutes")
                .hint("sign in again, then do it at once")
        }
        _ => e,
    })
}

/// The right to a credential in `vo`.
pub(crate) fn may_enter(
    caller: &Caller,
    vo: &VoId,
    site: &SiteId,
    renewal: Duration,
    now: Millis,
) -> Result<PersonGrant, Error> {
    if vo.site() != *site {
        return Err(Error::invalid(format!("VO {vo} has its home at site {}", vo.site()))
            .hint("ask that site for credentials in it"));
    }
    let grant = chain_of(caller, renewal, now)?;
    match caller.principal() {
        Principal::Person(_) => Ok(grant),
        Principal::Member(m) if m.vo == *vo => Ok(grant),
        _ => Err(Error::denied(format!("a certificate of another VO is no proof for {vo}"))
            .hint("sign in with `xos login`")),
    }
}

/// The right to the mandate of a login.
#[derive(Debug)]
pub(crate) struct LoginGrant {
    /// The membership as the proof says it, narrowed ones too.
    pub(crate) credential: Membership,
    /// When the right ends.
    pub(crate) until: Millis,
}

/// The right to a mandate for logins of a member of `vo`. Only the certificate is a proof for it: a
/// token may lie where its person is not, in a script or with the core of another site.
pub(crate) fn may_log_in(caller: &Caller, vo: &VoId) -> Result<LoginGrant, Error> {
    let m = caller.member()?;
    let end = caller.expires().filter(|_| caller.key().is_some() && caller.token().is_none());
    let until = end.ok_or_else(|| {
        Error::denied("a token is no proof for the mandate of a login")
            .hint("ask with the certificate that `xos login` leaves")
    })?;
    if m.vo != *vo {
        return Err(Error::denied(format!("a certificate of another VO is no proof for {vo}"))
            .hint(format!("sign in to it: `xos login --vo {vo}`")));
    }
    Ok(LoginGrant { credential: m.clone(), until })
}

/// Lets a node ask its own core for a ticket: for itself, under one of its keys that hold.
pub(crate) fn may_have_ticket(
    (node, keys): (&NodeId, &[NodeKey]),
    wanted: &IssueTicket,
    now: Millis,
) -> Result<(), Error> {
    if wanted.node != *node {
        return Err(Error::denied(format!("{node} gets no ticket for {}", wanted.node)));
    }
    let holds = |k: &NodeKey| k.until > now && k.fingerprint.eq_ignore_ascii_case(&wanted.node_key);
    if !keys.iter().any(holds) {
        return Err(Error::denied(format!("node_key is no key of {node}"))
            .hint("name the key of the node's present certificate"));
    }
    Ok(())
}

/// The job that a mandate lets `node` work for; none when it is for logins to that node, or for
/// programs in a cluster of its site.
pub(crate) fn job_of(work: Work, node: &NodeId) -> Result<Option<JobId>, Error> {
    match work {
        Work::Job { job, .. } => Ok(Some(job)),
        Work::Login { node: to } if to == *node => Ok(None),
        // The core asks for those to which it sends a program.
        Work::Cluster { cluster } if cluster.site() == node.site() => Ok(None),
        Work::Cluster { cluster } => {
            Err(Error::denied(format!("the mandate is for programs in {cluster}"))
                .hint("only nodes of its site get tickets by it"))
        }
        Work::Login { node: to } => {
            Err(Error::denied(format!("the mandate is for logins to {to}"))
                .hint("a person who signs in to another node brings a mandate for that one"))
        }
    }
}

/// Whether a node may ask for a ticket by a mandate itself: by that of a login to it alone. What
/// else runs there its core knows, and asks.
pub(crate) fn may_ask_itself(work: Work, node: &NodeId) -> Result<(), Error> {
    let what = match work {
        Work::Login { .. } => return job_of(work, node).map(drop),
        Work::Job { .. } => "a job".to_owned(),
        Work::Cluster { cluster } => format!("programs in {cluster}"),
    };
    Err(Error::denied(format!("{node} gets no ticket for {what} by itself"))
        .hint("its core asks for the tickets of what it has running there"))
}

/// `m` with only the wanted groups and roles. The primary group always stays.
///
/// # Errors
/// [`xos_base::Kind::Denied`] when one is wanted that the member does not have.
pub(crate) fn narrow(
    mut m: Membership,
    groups: Option<&[GroupName]>,
    roles: Option<&[RoleName]>,
) -> Result<Membership, Error> {
    let lacks = |what: &str, name: &str| {
        Error::denied(format!("{} has no {what} {name:?} in {}", m.person, m.vo))
            .hint("ask for what you have, or leave it out for all")
    };
    if let Some(wanted) = groups {
        if let Some(g) = wanted.iter().find(|w| !m.groups.iter().any(|g| g.name == **w)) {
            return Err(lacks("group", g.as_str()));
        }
        let mut kept: Vec<Group> = m.groups.iter().take(1).cloned().collect();
        kept.extend(m.groups.iter().skip(1).filter(|g| wanted.contains(&g.name)).cloned());
        m.groups = kept;
    }
    if let Some(wanted) = roles {
        if let Some(r) = wanted.iter().find(|w| !m.roles.contains(w)) {
            return Err(lacks("role", r.as_str()));
        }
        m.roles.retain(|r| wanted.contains(r));
    }
    Ok(m)
}

/// What `credential` still gives, where `current` is the membership in force: what both say.
///
/// # Errors
/// [`xos_base::Kind::Denied`] when they are not of the same member.
pub(crate) fn still(current: Membership, credential: &Membership) -> Result<Membership, Error> {
    let same = current.vo == credential.vo
        && current.person == credential.person
        && current.number == credential.number;
    if !same {
        return Err(Error::denied(format!(
            "{} is no longer the member of {} that it was signed for",
            credential.person, credential.vo
        )));
    }
    let mut m = current;
    let primary = m.groups.first().cloned();
    m.groups.retain(|g| Some(g) == primary.as_ref() || credential.groups.contains(g));
    m.roles.retain(|r| credential.roles.contains(r));
    Ok(m)
}

/// Whether work that was begun under `signed` may go on, where `current` is the membership in
/// force: nothing that it carries was taken from the member. A site's rule may have let it in for
/// just that.
///
/// # Errors
/// [`xos_base::Kind::Denied`] naming what was taken.
pub(crate) fn carries(current: &Membership, signed: &Membership) -> Result<(), Error> {
    let role = signed.roles.iter().find(|r| !current.roles.contains(r));
    let group = signed.groups.iter().find(|g| !current.groups.contains(g));
    let taken = match (role, group) {
        (Some(role), _) => format!("the role {role}"),
        (None, Some(group)) => format!("the group {}", group.name),
        (None, None) => return Ok(()),
    };
    Err(Error::denied(format!(
        "{} was in {} with {taken} when the job was submitted, and is not any more",
        signed.person, signed.vo
    ))
    .hint("submit the job again"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xos_base::{Epoch, GroupNumber, MemberNumber};

    fn member(groups: &[&str], roles: &[&str]) -> Membership {
        let group = |(i, name): (usize, &&str)| Group {
            name: name.parse().unwrap(),
            number: GroupNumber(u32::try_from(i).unwrap() + 1),
        };
        Membership {
            vo: "demo.rennes".parse().unwrap(),
            person: "alice@rennes".parse().unwrap(),
            number: MemberNumber(1),
            epoch: Epoch(1),
            groups: groups.iter().enumerate().map(group).collect(),
            roles: roles.iter().map(|r| r.parse().unwrap()).collect(),
            expires: None,
        }
    }

    /// If it failed, a job would go on with a role or group that its member lost, or stop when they
    /// lost another one or got one.
    #[test]
    fn work_carries_what_it_was_begun_with() {
        let now = member(&["members", "physics"], &["clerk"]);
        for (groups, roles) in [
            (vec!["members", "physics"], vec!["clerk"]),
            (vec!["members"], vec!["clerk"]),
            (vec!["members", "physics"], vec![]),
            (vec!["members"], vec![]),
        ] {
            assert!(carries(&now, &member(&groups, &roles)).is_ok(), "{groups:?} {roles:?}");
        }
        let lost = carries(&now, &member(&["members"], &["clerk", "pilot"])).unwrap_err();
        assert!(lost.kind == Kind::Denied && lost.message.contains("the role pilot"), "{lost}");
        let lost = carries(&now, &member(&["members", "physics", "press"], &[])).unwrap_err();
        assert!(lost.kind == Kind::Denied && lost.message.contains("the group press"), "{lost}");
    }

    #[test]
    fn narrowing_only_takes_away_and_keeps_the_primary_group() {
        let m = member(&["members", "physics", "press"], &["admin", "owner"]);
        let physics: GroupName = "physics".parse().unwrap();
        let n = narrow(m.clone(), Some(&[physics]), Some(&[])).unwrap();
        assert_eq!(n, member(&["members", "physics"], &[]));
        assert_eq!(narrow(m.clone(), None, None).unwrap(), m);
        let other: GroupName = "chess".parse().unwrap();
        assert!(narrow(m.clone(), Some(&[other]), None).is_err());
        assert!(narrow(m, None, Some(&["boss".parse().unwrap()])).is_err());
    }

    /// If it failed, a node could let another machine, or a disk that it lost, act for people.
    #[test]
    fn a_node_has_tickets_for_itself_and_keys_that_hold() {
        let n1: NodeId = "n1.rennes".parse().unwrap();
        let key = |c: &str, until| NodeKey { fingerprint: c.repeat(64), until: Millis(until) };
        let keys = [key("a", 20), key("b", 10)];
        let asks = |node: &str, key: &str| {
            let mandate = String::new();
            let wanted =
                IssueTicket { mandate, node: node.parse().unwrap(), node_key: key.repeat(64) };
            may_have_ticket((&n1, &keys), &wanted, Millis(10)).is_ok()
        };
        assert!(asks("n1.rennes", "a") && asks("n1.rennes", "A"));
        for (node, key) in [("n1.rennes", "b"), ("n1.rennes", "c"), ("n1.rennes", "")] {
            assert!(!asks(node, key), "{node} with {key}");
        }
        assert!(!asks("n2.rennes", "a") && !asks("n1.pisa", "a"));
        let login = Work::Login { node: n1.clone() };
        assert_eq!(job_of(login.clone(), &n1).unwrap(), None);
        assert!(job_of(login, &"n2.rennes".parse().unwrap()).is_err());
        let cluster = Work::Cluster { cluster: "c1.rennes".parse().unwrap() };
        assert_eq!(job_of(cluster.clone(), &n1).unwrap(), None);
        assert!(job_of(cluster.clone(), &"n1.pisa".parse().unwrap()).is_err());
        let job = Work::Job {
            job: "1.rennes".parse().unwrap(),
            owner: "rennes".parse().unwrap(),
            digest: String::new(),
        };
        assert!(may_ask_itself(Work::Login { node: n1.clone() }, &n1).is_ok());
        for work in [cluster, job, Work::Login { node: "n2.rennes".parse().unwrap() }] {
            assert!(may_ask_itself(work, &n1).is_err());
        }
    }

    /// If it failed, a VO could not have its people sign in more often than the site has, or could
    /// let them go on for longer than the site does.
    #[test]
    fn of_site_and_vo_the_shorter_renewal_counts() {
        let vo: VoId = "demo.rennes".parse().unwrap();
        let within = |renewal_s, now| {
            let person = "alice@rennes".parse().unwrap();
            let grant = PersonGrant { person, signed_in: Millis(1000), until: Millis(9000) };
            let membership = member(&["members"], &[]);
            let now_is = MembershipNow { membership, renewal_s, suspended: None };
            grant.within(&vo, &now_is, Millis(now)).map(|g| g.until)
        };
        assert_eq!(within(4, 4999).unwrap(), Millis(5000));
        assert_eq!(within(60, 4999).unwrap(), Millis(9000));
        let e = within(4, 5000).unwrap_err();
        assert_eq!(e.kind, Kind::Unauthenticated);
        assert!(e.message.contains("demo.rennes") && e.to_string().contains("xos login"), "{e}");
    }

    /// If it failed, who stole a laptop would have new credentials the moment that its owner is
    /// resumed, by the sign-in that lies there; or its owner could not come back.
    #[test]
    fn a_sign_in_from_before_a_suspension_gives_nothing() {
        let vo: VoId = "demo.rennes".parse().unwrap();
        let within = |signed_in, suspended: Option<u64>| {
            let person = "alice@rennes".parse().unwrap();
            let signed_in = Millis(signed_in);
            let grant = PersonGrant { person, signed_in, until: Millis(9000) };
            let membership = member(&["members"], &[]);
            let suspended = suspended.map(Millis);
            let now_is = MembershipNow { membership, renewal_s: 60, suspended };
            grant.within(&vo, &now_is, Millis(5000)).map(|g| g.signed_in)
        };
        for late in [within(1000, Some(2000)), within(4000, Some(5000))] {
            let e = late.unwrap_err();
            assert_eq!(e.kind, Kind::Unauthenticated);
            assert!(e.message.contains("suspended") && e.to_string().contains("xos login"), "{e}");
        }
        assert_eq!(within(3000, Some(2999)).unwrap(), Millis(3000));
        assert_eq!(within(1000, None).unwrap(), Millis(1000));
    }

    #[test]
    fn a_member_who_left_and_came_back_is_another_member() {
        let old = member(&["members"], &[]);
        let mut new = old.clone();
        new.number = MemberNumber(2);
        assert!(still(new, &old).is_err(), "an old mandate must not serve a new membership");
    }

    proptest! {
        /// A ticket never gives what the member does not have now, nor what was not signed for.
        #[test]
        fn still_is_the_intersection(now in 0u8..8, then in 0u8..8) {
            let pick = |bits: u8| -> Vec<&'static str> {
                ["physics", "press", "chess"].into_iter().enumerate()
                    .filter(|(i, _)| bits & (1 << i) != 0).map(|(_, n)| n).collect()
            };
            let named = |bits: u8| {
                let mut m = member(&["members"], &pick(bits));
                for n in pick(bits) {
                    m.groups.push(Group {
                        name: n.parse().unwrap(),
                        number: GroupNumber(100 + u32::from(n.as_bytes()[1])),
                    });
                }
                m
            };
            let both = still(named(now), &named(then)).unwrap();
            prop_assert_eq!(both, named(now & then));
        }
    }
}
