//! How much of a core's memory jobs may take: of one member, of all, of other sites.

use crate::config::Config;
use crate::state::held::Held;
use crate::state::{HostTable, JobTable};
use xos_api::aem::{JobSpec, Refusal};
use xos_base::{Error, Membership, SiteId};

/// Most ended jobs forgotten to make way for one that comes.
const MAKE_WAY_MAX: usize = 64;
/// Of what other members leave of a core's memory one member's open jobs take one part in so many:
/// however many fill their part, something is left for the next.
const MEMBER_PART: u64 = 3;
/// Most events for one owner that it has not acknowledged; beyond it, it gets nothing more run.
const UNHEARD_MAX: usize = 400_000;

/// Whether there is room for a job; gives the ended jobs that make way for it.
///
/// # Errors
/// [`xos_base::Kind::Limited`]: which limit, how much is in use, what can be done.
pub(crate) fn admit(
    table: &JobTable,
    config: &Config,
    member: &Membership,
    spec: &JobSpec,
) -> Result<Vec<u64>, Error> {
    let new = Held::of(spec);
    let mine = table.open_of(member);
    let wait = "wait until some have ended, or cancel some with `xkill`";
    if mine.jobs >= config.jobs_per_member {
        let text = format!(
            "you have {} jobs that have not ended; a member has {} at most",
            mine.jobs, config.jobs_per_member
        );
        let hint = format!("{wait}; or make one job with an array of units");
        return Err(Error::limited(text).hint(hint));
    }
    if mine.units + new.units > config.units_per_member {
        let text = format!(
            "the job has {} units, and your jobs that have not ended have {}; a member's have {} \
             together at most",
            new.units, mine.units, config.units_per_member
        );
        return Err(Error::limited(text).hint(format!("{wait}; or submit fewer units at a time")));
    }
    if mine.bytes + new.bytes > config.job_bytes_per_member {
        let text = format!(
            "the job's description takes {}, and those of your jobs that have not ended take {}; a \
             member's take {} together at most",
            mib(new.bytes),
            mib(mine.bytes),
            mib(config.job_bytes_per_member)
        );
        let hint = format!("{wait}; or keep long arguments in files on the VO's volume");
        return Err(Error::limited(text).hint(hint));
    }
    let open = table.open_of_all();
    let left_units = config.units_max.saturating_sub(open.units.saturating_sub(mine.units));
    let left_bytes = config.job_bytes_max.saturating_sub(open.bytes.saturating_sub(mine.bytes));
    let (units, bytes) = (left_units / MEMBER_PART, left_bytes / MEMBER_PART);
    if mine.units + new.units > units || mine.bytes + new.bytes > bytes {
        let text = format!(
            "this core holds {} units of all members' jobs that have not ended, and {} of \
             descriptions; of what is left one member's may be {units} units and {}",
            open.units,
            mib(open.bytes),
            mib(bytes)
        );
        let hint = "try again when jobs have ended, or submit to another site that serves the VO";
        return Err(Error::limited(text).hint(hint));
    }
    make_way(table, config, new)
}

/// The ended jobs that have to go, oldest first.
fn make_way(table: &JobTable, config: &Config, new: Held) -> Result<Vec<u64>, Error> {
    let mut held = table.held();
    held.add(new);
    let mut ended = table.ended_len();
    let mut go = Vec::new();
    let full = |h: &Held, ended: usize| {
        h.units > config.units_max
            || h.bytes > config.job_bytes_max
            || ended > config.keep_ended_jobs
    };
    for (_, number) in table.ended().take(MAKE_WAY_MAX) {
        if !full(&held, ended) {
            break;
        }
        if let Some(job) = table.job(number) {
            held.sub(Held::of(&job.spec));
        }
        ended -= 1;
        go.push(number);
    }
    if held.units > config.units_max || held.bytes > config.job_bytes_max {
        return Err(Error::limited("this core is making room: it holds too many ended jobs")
            .hint("try again in a moment"));
    }
    Ok(go)
}

/// Whether a host has room for more of other sites' jobs.
///
/// # Errors
/// The reason, for the owner.
pub(crate) fn host(
    table: &HostTable,
    config: &Config,
    owner: &SiteId,
    new: Held,
) -> Result<(), Refusal> {
    let later = |rule: &str, text: String| Refusal { rule: rule.into(), text, later: true };
    let held = table.held_for_others();
    if held.units + new.units > config.units_max || held.bytes + new.bytes > config.job_bytes_max {
        let text = format!(
            "this site holds {} units and {} of descriptions for other sites, nearly the most",
            held.units,
            mib(held.bytes)
        );
        return Err(later("room", text));
    }
    if table.unheard(owner) > UNHEARD_MAX {
        let text = format!("{owner} has not acknowledged what became of its units here");
        return Err(later("unheard", text));
    }
    Ok(())
}

fn mib(bytes: u64) -> String {
    crate::plan::room::mib(bytes)
}

#[cfg(test)]
mod tests;
