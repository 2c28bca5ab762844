//! Which submissions already stand for a job, so that one stands for one job only.
//!
//! A submission is good for ten minutes; two maps, exchanged that often, remember it for at least
//! so long. They are lost with the process: a restart within those minutes would let an owner use a
//! person's fresh submission for a second job of its own.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use xos_api::cda::SUBMISSION_AGE_MAX_S;
use xos_base::{Error, JobId, Millis, PersonId};
use xos_net::caller::CLOCK_SKEW_S;
use xos_net::identity::sha256;

/// Most submissions remembered in one map: about 800 a second.
pub(crate) const SPENT_MAX: usize = 500_000;
const TURN: Duration = Duration::from_secs(SUBMISSION_AGE_MAX_S + CLOCK_SKEW_S);

#[derive(Default)]
struct Maps {
    current: HashMap<[u8; 16], [u8; 16]>,
    before: HashMap<[u8; 16], [u8; 16]>,
    since: Millis,
}

/// The submissions of the last minutes.
#[derive(Default)]
pub(crate) struct Spent {
    maps: Mutex<Maps>,
}

fn short(text: &str) -> [u8; 16] {
    let full = sha256(text.as_bytes());
    let mut out = [0; 16];
    out.copy_from_slice(&full[..16]);
    out
}

impl Spent {
    /// Lets the submission `nonce` of `person` stand for `job`. The same job again is no error.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] when it stands for another job, [`xos_base::Kind::Limited`] when
    /// too many are remembered.
    pub(crate) fn spend(
        &self,
        nonce: &str,
        person: &PersonId,
        job: &JobId,
        now: Millis,
    ) -> Result<(), Error> {
        let id = short(&format!("{person} {nonce}"));
        let job_id = short(&job.to_string());
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(maps.since) >= TURN {
            let fresh = now.since(maps.since) < TURN * 2;
            let old = std::mem::take(&mut maps.current);
            maps.before = if fresh { old } else { HashMap::new() };
            maps.since = now;
        }
        match maps.current.get(&id).or_else(|| maps.before.get(&id)) {
            Some(known) if *known == job_id => return Ok(()),
            Some(_) => {
                return Err(Error::denied("this submission already stands for another job")
                    .hint("each job needs a submission of its own"));
            }
            None => {}
        }
        if maps.current.len() >= SPENT_MAX {
            return Err(Error::limited("too many jobs were submitted in the last minutes")
                .hint("try again in a few minutes"));
        }
        maps.current.insert(id, job_id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_submission_stands_for_one_job_as_long_as_it_is_good() {
        // Else a hostile owner could run any number of jobs in the name of who submitted one.
        let spent = Spent::default();
        let (alice, bob) = ("alice@rennes".parse().unwrap(), "bob@rennes".parse().unwrap());
        let (one, two) = ("1.rennes".parse().unwrap(), "2.rennes".parse().unwrap());
        let start = Millis(1_000_000_000);
        spent.spend("n", &alice, &one, start).unwrap();
        for minutes in [0, 5, 10] {
            let now = start.plus(Duration::from_secs(60 * minutes));
            spent.spend("n", &alice, &one, now).unwrap();
            assert!(spent.spend("n", &alice, &two, now).is_err(), "after {minutes} minutes");
        }
        spent.spend("n", &bob, &two, start).expect("another person's nonce is another submission");
    }

    #[test]
    fn memory_is_bounded_in_time() {
        let spent = Spent::default();
        let alice = "alice@rennes".parse().unwrap();
        let job = "1.rennes".parse().unwrap();
        let mut now = Millis(1_000_000_000);
        for i in 0..10 {
            spent.spend(&i.to_string(), &alice, &job, now).unwrap();
            now = now.plus(TURN);
        }
        let maps = spent.maps.lock().unwrap();
        assert!(maps.current.len() + maps.before.len() <= 2);
    }
}
