//! How much of a core's memory jobs may take: of one member, of one VO, of all, of other sites.

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
/// The same for one VO: whoever administers it can invent members.
const VO_PART: u64 = 2;
/// The VOs of all other homes together have one part in so many: a home can invent VOs.
const FOREIGN_PART: u64 = 2;
/// Of that part, and of what other homes leave of it, the VOs of one home have one part in so many.
const HOME_PART: u64 = 2;
/// Of what other owners leave of a host's memory one owner's jobs take one part in so many.
pub(crate) const OWNER_PART: u64 = 2;
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
    let mine = table.open().of(member);
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
    share(table, config, member, new)?;
    make_way(table, config, new)
}

/// Units and bytes.
type Room = (u64, u64);

/// One part in `part` of what others leave of `most`; all have `all`, of which `has` are not
/// theirs.
fn part_of(most: Room, all: Held, has: Held, part: u64) -> Room {
    let left = |most: u64, all: u64, has: u64| most.saturating_sub(all.saturating_sub(has)) / part;
    (left(most.0, all.units, has.units), left(most.1, all.bytes, has.bytes))
}

/// Whether a member, their VO and its home have room for a job beside all the others.
fn share(table: &JobTable, config: &Config, member: &Membership, new: Held) -> Result<(), Error> {
    let (open, home) = (table.open(), member.vo.site());
    let (all, most) = (open.all(), (config.units_max, config.job_bytes_max));
    let (mine, of_vo) = (open.of(member), open.of_vo(&member.vo));
    let mut shares = vec![
        ("one member's", mine, part_of(most, all, mine, MEMBER_PART)),
        ("one VO's", of_vo, part_of(most, all, of_vo, VO_PART)),
    ];
    if home != *table.site() {
        let mut foreign = all;
        foreign.sub(open.of_home(table.site()));
        let most = (most.0 / FOREIGN_PART, most.1 / FOREIGN_PART);
        let of_home = open.of_home(&home);
        let room = part_of(most, foreign, of_home, HOME_PART);
        shares.push(("those of VOs of one other site", of_home, room));
    }
    for (whose, has, (units, bytes)) in shares {
        if has.units + new.units > units || has.bytes + new.bytes > bytes {
            let text = format!(
                "this core holds {} units of all members' jobs that have not ended, and {} of \
                 descriptions; of what is left {whose} may be {units} units and {}",
                all.units,
                mib(all.bytes),
                mib(bytes)
            );
            let hint =
                "try again when jobs have ended, or submit to another site that serves the VO";
            return Err(Error::limited(text).hint(hint));
        }
    }
    Ok(())
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
    let (all, has) = (table.held_for_others(), table.held_for(owner));
    let most = (config.units_max, config.job_bytes_max);
    let (units, bytes) = part_of(most, all, has, OWNER_PART);
    if has.units + new.units > units || has.bytes + new.bytes > bytes {
        let text = format!(
            "this site holds {} units and {} of descriptions for {owner}, and so much for all \
             other sites that it takes no more than {units} and {} of one",
            has.units,
            mib(has.bytes),
            mib(bytes)
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
