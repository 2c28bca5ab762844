//! Which proofs already stand for a job, so that one stands for one job only: signed submissions,
//! and members' tokens.
//!
//! A proof is good for twenty minutes at most; two maps, exchanged that often, remember it for at
//! least so long. They are lost with the process: a restart within those minutes lets an owner use
//! a person's fresh proof for a second job of its own.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use xos_api::cda::SUBMISSION_AGE_MAX_S;
use xos_base::{Error, JobId, Millis, PersonId, SiteId};
use xos_net::caller::{CLOCK_SKEW_S, TOKEN_LIFE_MAX_S};
use xos_net::identity::sha256;

/// How many proofs are remembered in one map: about 800 a second, if nobody takes others' part.
#[derive(Clone, Copy)]
struct Most {
    all: usize,
    /// Of jobs that one other site owns.
    owner: usize,
    /// Of one person.
    person: usize,
}

const MOST: Most = Most { all: 1_000_000, owner: 250_000, person: 125_000 };
const PROOF_LIFE_S: u64 =
    if SUBMISSION_AGE_MAX_S > TOKEN_LIFE_MAX_S { SUBMISSION_AGE_MAX_S } else { TOKEN_LIFE_MAX_S };
const TURN: Duration = Duration::from_secs(PROOF_LIFE_S + CLOCK_SKEW_S);

/// What stands for one job only.
pub(crate) enum Once {
    /// The nonce of a signed submission.
    Nonce(String),
    /// The id of a token.
    Token(String),
}

impl Once {
    /// The same for no two proofs of one person.
    fn text(&self) -> String {
        match self {
            Once::Nonce(nonce) => format!("nonce {nonce}"),
            Once::Token(jti) => format!("token {jti}"),
        }
    }
}

/// Whose proof, and the site that owns the job.
pub(crate) struct Spending<'a> {
    pub(crate) once: &'a Once,
    pub(crate) person: &'a PersonId,
    pub(crate) owner: &'a SiteId,
}

type Short = [u8; 16];

#[derive(Default)]
struct Maps {
    current: HashMap<Short, Short>,
    before: HashMap<Short, Short>,
    /// How much of `current` is whose.
    owners: HashMap<SiteId, usize>,
    people: HashMap<PersonId, usize>,
    since: Millis,
}

/// The proofs of the last minutes.
pub(crate) struct Spent {
    own: SiteId,
    most: Most,
    maps: Mutex<Maps>,
}

fn short(text: &str) -> Short {
    let full = sha256(text.as_bytes());
    let mut out = [0; 16];
    out.copy_from_slice(&full[..16]);
    out
}

impl Maps {
    fn turn(&mut self, now: Millis) {
        if now.since(self.since) >= TURN {
            let fresh = now.since(self.since) < TURN * 2;
            let old = std::mem::take(&mut self.current);
            self.before = if fresh { old } else { HashMap::new() };
            self.owners.clear();
            self.people.clear();
            self.since = now;
        }
    }
}

impl Spent {
    /// Nothing is spent yet at the site `own`.
    pub(crate) fn new(own: SiteId) -> Spent {
        Spent { own, most: MOST, maps: Mutex::default() }
    }

    /// Lets a proof stand for `job`, described by `digest`. The same again is no error.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] when it stands for another job, [`xos_base::Kind::Limited`] when
    /// too many are remembered: in all, of that person, or of jobs of that site.
    pub(crate) fn spend(
        &self,
        spending: Spending<'_>,
        job: &JobId,
        digest: &str,
        now: Millis,
    ) -> Result<(), Error> {
        let Spending { once, person, owner } = spending;
        let id = short(&format!("{person} {}", once.text()));
        let meant = short(&format!("{job} {digest}"));
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        maps.turn(now);
        match maps.current.get(&id).or_else(|| maps.before.get(&id)) {
            Some(known) if *known == meant => return Ok(()),
            Some(_) => {
                return Err(Error::denied("this proof already stands for another job")
                    .hint("each job needs a signed submission or a token of its own"));
            }
            None => {}
        }
        let below = |count: usize, most: usize, whose: &str| match count < most {
            true => Ok(()),
            false => Err(Error::limited(format!("too many jobs{whose} in the last minutes"))
                .hint("try again in half an hour")),
        };
        below(maps.current.len(), self.most.all, " were submitted")?;
        let of_person = maps.people.get(person).copied().unwrap_or(0);
        below(of_person, self.most.person, &format!(" of {person} were submitted"))?;
        let of_owner = maps.owners.get(owner).copied().unwrap_or(0);
        if *owner != self.own {
            below(of_owner, self.most.owner, &format!(" were submitted to site {owner}"))?;
        }
        maps.current.insert(id, meant);
        maps.people.insert(person.clone(), of_person + 1);
        maps.owners.insert(owner.clone(), of_owner + 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Millis = Millis(1_000_000_000);

    fn spent(most: Most) -> Spent {
        Spent { own: "rennes".parse().unwrap(), most, maps: Mutex::default() }
    }

    fn spend(s: &Spent, once: &Once, person: &str, job: &str, now: Millis) -> Result<(), Error> {
        let job: JobId = job.parse().unwrap();
        let person = person.parse().unwrap();
        s.spend(Spending { once, person: &person, owner: &job.site }, &job, "ab", now)
    }

    #[test]
    fn one_proof_stands_for_one_job_as_long_as_it_is_good() {
        // Else a hostile owner could run any number of jobs in the name of who submitted one.
        let s = spent(MOST);
        let (nonce, token) = (Once::Nonce("n".into()), Once::Token("n".into()));
        for once in [&nonce, &token] {
            spend(&s, once, "alice@rennes", "1.pisa", START).unwrap();
        }
        for minutes in [0, 5, 10, 20] {
            let now = START.plus(Duration::from_secs(60 * minutes));
            for once in [&nonce, &token] {
                spend(&s, once, "alice@rennes", "1.pisa", now).unwrap();
                let e = spend(&s, once, "alice@rennes", "2.pisa", now).unwrap_err();
                assert_eq!(
                    e.kind,
                    xos_base::Kind::Denied,
                    "{} after {minutes} minutes",
                    once.text()
                );
            }
        }
        spend(&s, &nonce, "bob@rennes", "2.pisa", START)
            .expect("another person's nonce is another submission");
    }

    #[test]
    fn nobody_takes_the_memory_for_others_proofs() {
        // Else one site, or one member, keeps everybody from submitting jobs.
        let s = spent(Most { all: 20, owner: 8, person: 4 });
        let mut n = 0;
        let mut fill = |person: &str, job: &str| {
            let mut taken = 0;
            let mut one = || {
                n += 1;
                spend(&s, &Once::Nonce(n.to_string()), person, job, START)
            };
            while one().is_ok() {
                taken += 1;
                assert!(taken <= 20, "no limit holds");
            }
            taken
        };
        assert_eq!(fill("alice@rennes", "1.pisa"), 4, "of one person");
        let more: usize = (0..5).map(|i| fill(&format!("p{i}@pisa"), "1.pisa")).sum();
        assert_eq!(more, 4, "of one other site's jobs");
        let own: usize = (0..9).map(|i| fill(&format!("p{i}@rennes"), "1.rennes")).sum();
        assert_eq!(own, 12, "the own site's jobs have what is left");
        let later = START.plus(TURN);
        spend(&s, &Once::Nonce("n".into()), "alice@rennes", "1.pisa", later).unwrap();
    }

    #[test]
    fn memory_is_bounded_in_time() {
        let s = spent(MOST);
        let mut now = START;
        for i in 0..10 {
            spend(&s, &Once::Nonce(i.to_string()), "alice@rennes", "1.rennes", now).unwrap();
            now = now.plus(TURN);
        }
        let maps = s.maps.lock().unwrap();
        assert!(maps.current.len() + maps.before.len() <= 2);
        assert_eq!((maps.people.len(), maps.owners.len()), (1, 1));
    }
}
