//! Whether a site can run units of a task, and how many now; if not, why.

use crate::state::load::Load;
use xos_api::aem::{ClusterRoom, Pool, Refusal, Resources, ShareRoom, SiteCapacity};
use xos_base::ClusterId;

/// What a site could do for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Units that would start at once.
    pub now: u32,
    /// Units that run at once when nobody else is there.
    pub whole: u32,
}

fn refusal(rule: &str, later: bool, text: String) -> Refusal {
    Refusal { rule: rule.to_owned(), text, later }
}

/// Judges a site's room for units that need `want`, of which `load` (of any size) waits there
/// already.
///
/// # Errors
/// The reason, and whether it may pass: while a node that is large enough may come back, it may.
pub fn judge(
    site: &SiteCapacity,
    share: Option<&ShareRoom>,
    want: &Resources,
    load: Load,
) -> Result<Room, Refusal> {
    if site.pools.iter().all(|p| p.nodes == 0) {
        return Err(refusal("no-nodes", true, "no node is connected there now".to_owned()));
    }
    let arch = want.arch.as_deref();
    let of_arch = |p: &&Pool| arch.is_none_or(|a| a == p.arch);
    let pools: Vec<&Pool> = site.pools.iter().filter(of_arch).filter(|p| p.nodes > 0).collect();
    suits(site, &pools, want).map_err(|never| {
        let mut away = site.pools.iter().filter(of_arch).filter(|p| p.nodes == 0);
        let returns = away.any(|p| {
            p.node_cpu_milli >= want.cpu_milli && p.node_memory_bytes >= want.memory_bytes
        });
        match returns {
            true => {
                refusal("node-away", true, format!("{}; one that would do is away", never.text))
            }
            false => never,
        }
    })?;
    let fit = |cpu: u64, memory: u64| {
        let by_cpu = cpu / u64::from(want.cpu_milli.max(1));
        let by_memory = memory / want.memory_bytes.max(1);
        u32::try_from(by_cpu.min(by_memory)).unwrap_or(u32::MAX)
    };
    let sum =
        |f: fn(&xos_api::aem::Pool) -> u64| pools.iter().fold(0u64, |s, p| s.saturating_add(f(p)));
    let mut now = fit(
        sum(|p| p.cpu_free_milli).saturating_sub(load.cpu_milli),
        sum(|p| p.memory_free_bytes).saturating_sub(load.memory_bytes),
    );
    let whole = fit(sum(|p| p.cpu_milli), sum(|p| p.memory_bytes));
    if let Some(share) = share {
        now = now.min(fit(
            share.cpu_milli.saturating_sub(load.cpu_milli),
            share.memory_bytes.saturating_sub(load.memory_bytes),
        ));
    }
    Ok(Room { now, whole })
}

/// Whether some cluster of a site, or the one that is named, has room for a unit that goes on from
/// an image. What waits at the site does not count: such a unit is not taken to wait there.
///
/// # Errors
/// Why not, and whether it may pass: nodes of a cluster come and go.
pub fn judge_clusters(
    site: &SiteCapacity,
    want: &Resources,
    only: Option<&ClusterId>,
) -> Result<(), Refusal> {
    let named = |c: &&ClusterRoom| only.is_none_or(|cluster| *cluster == c.cluster);
    let arch = want.arch.as_deref();
    let fits = |cpu: u64, memory: u64| {
        cpu >= u64::from(want.cpu_milli.max(1)) && memory >= want.memory_bytes
    };
    let (mut any, mut large) = (false, false);
    for c in site.clusters.iter().filter(named) {
        any = true;
        let like = arch.is_none_or(|a| a == c.arch);
        if !like || !fits(c.node_cpu_milli.into(), c.node_memory_bytes) {
            continue;
        }
        large = true;
        if fits(c.cpu_free_milli, c.memory_free_bytes) {
            return Ok(());
        }
    }
    let name = only.map_or_else(|| "a cluster".to_owned(), |c| format!("cluster {c}"));
    let missing = |what: &str| format!("{name}{what} is not there now");
    Err(match (any, large) {
        (false, _) => refusal("cluster", true, missing("")),
        (true, false) => refusal("cluster", true, missing(" with nodes that would do")),
        (true, true) => refusal("busy", true, missing(" with room for it")),
    })
}

/// Whether any of the connected nodes could run such a unit, were it free.
fn suits(site: &SiteCapacity, pools: &[&Pool], want: &Resources) -> Result<(), Refusal> {
    if pools.is_empty() {
        let here = site.pools.iter().filter(|p| p.nodes > 0);
        let has: Vec<&str> = here.map(|p| p.arch.as_str()).collect();
        let arch = want.arch.as_deref().unwrap_or("");
        let text = format!("{arch} is asked for, its nodes are {}", has.join(", "));
        return Err(refusal("arch", false, text));
    }
    let most_cpu = pools.iter().map(|p| p.node_cpu_milli).max().unwrap_or(0);
    if most_cpu < want.cpu_milli {
        let (asked, has) = (cpus(want.cpu_milli), cpus(most_cpu));
        let text = format!("{asked} processors are asked for, its largest node has {has}");
        return Err(refusal("cpu", false, text));
    }
    let most_memory = pools.iter().map(|p| p.node_memory_bytes).max().unwrap_or(0);
    if most_memory < want.memory_bytes {
        let (asked, has) = (mib(want.memory_bytes), mib(most_memory));
        let text = format!("{asked} of memory is asked for, its largest node has {has}");
        return Err(refusal("memory", false, text));
    }
    Ok(())
}

/// Processors for people: `2`, `0.5`.
pub fn cpus(milli: u32) -> String {
    if milli.is_multiple_of(1000) {
        (milli / 1000).to_string()
    } else {
        format!("{}.{:03}", milli / 1000, milli % 1000).trim_end_matches('0').to_owned()
    }
}

/// Memory for people, in MiB or GiB.
pub fn mib(bytes: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    if bytes >= 1024 * MIB && bytes.is_multiple_of(1024 * MIB) {
        format!("{} GiB", bytes / (1024 * MIB))
    } else {
        format!("{} MiB", bytes / MIB)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn pool(arch: &str, nodes: u32, cpu: u32, free: u64) -> Pool {
        Pool {
            arch: arch.into(),
            nodes,
            cpu_milli: u64::from(cpu) * u64::from(nodes),
            cpu_free_milli: free,
            memory_bytes: 8 * GIB * u64::from(nodes),
            memory_free_bytes: 8 * GIB * u64::from(nodes),
            node_cpu_milli: cpu,
            node_memory_bytes: 8 * GIB,
        }
    }

    fn want(cpu_milli: u32, gib: u64, arch: Option<&str>) -> Resources {
        Resources {
            cpu_milli,
            memory_bytes: gib * GIB,
            arch: arch.map(str::to_owned),
            wall_time_s: None,
        }
    }

    /// Each case of the decision, with the sentence that the person reads.
    #[test]
    fn judgements_are_those_of_the_golden_table() {
        let two = SiteCapacity { pools: vec![pool("x86_64", 2, 4000, 3000)], ..Default::default() };
        let mixed = SiteCapacity {
            pools: vec![pool("x86_64", 1, 2000, 2000), pool("arm", 4, 8000, 32_000)],
            ..Default::default()
        };
        let empty = SiteCapacity { pools: vec![pool("x86_64", 0, 0, 0)], ..Default::default() };
        let away = Pool { nodes: 0, cpu_milli: 0, ..pool("arm", 1, 64_000, 0) };
        let blinks = SiteCapacity { pools: vec![two.pools[0].clone(), away], ..Default::default() };
        let share = ShareRoom {
            vo: "demo.rennes".parse().unwrap(),
            cpu_milli: 1500,
            memory_bytes: 64 * GIB,
        };
        let load = Load { units: 2, cpu_milli: 2000, memory_bytes: 2 * GIB };
        let none = Load::default();
        let cases = [
            ("two nodes, 1 cpu", judge(&two, None, &want(1000, 1, None), none)),
            ("two nodes, half a cpu", judge(&two, None, &want(500, 1, None), none)),
            ("two nodes, 7 GiB", judge(&two, None, &want(1000, 7, None), none)),
            ("two nodes, 2 cpus wait", judge(&two, None, &want(1000, 1, None), load)),
            ("two nodes, share of 1.5", judge(&two, Some(&share), &want(1000, 1, None), none)),
            ("two nodes, 5 cpus", judge(&two, None, &want(5000, 1, None), none)),
            ("two nodes, 9 GiB", judge(&two, None, &want(1000, 9, None), none)),
            ("two nodes, arm", judge(&two, None, &want(1000, 1, Some("arm")), none)),
            ("mixed, arm", judge(&mixed, None, &want(1000, 1, Some("arm")), none)),
            (
                "mixed, x86_64 with 4 cpus",
                judge(&mixed, None, &want(4000, 1, Some("x86_64")), none),
            ),
            ("large one away, 5 cpus", judge(&blinks, None, &want(5000, 1, None), none)),
            ("large one away, arm", judge(&blinks, None, &want(1000, 1, Some("arm")), none)),
            ("large one away, 65 cpus", judge(&blinks, None, &want(65_000, 1, None), none)),
            ("large one away, 1 cpu", judge(&blinks, None, &want(1000, 1, None), none)),
            ("no node", judge(&empty, None, &want(1000, 1, None), none)),
            ("nothing known", judge(&SiteCapacity::default(), None, &want(1000, 1, None), none)),
        ];
        let mut text = String::new();
        for (name, verdict) in cases {
            text += &match verdict {
                Ok(r) => format!("{name:26} now {}, whole {}\n", r.now, r.whole),
                Err(r) => {
                    let when = if r.later { "later" } else { "never" };
                    format!("{name:26} {when} [{}] {}\n", r.rule, r.text)
                }
            };
        }
        crate::golden::check("room.txt", &text);
    }
}
