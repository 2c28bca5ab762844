//! Sets of three credentials (certificate, SSH certificate, JWT) for many clients.

use crate::Result;
use crate::bench::figure::{Figure, Reach};
use crate::bench::memory::processor_seconds;
use crate::bench::peers::openssl;
use crate::bench::samples::Samples;
use crate::bench::suite::{Run, Sheet, even_start, per_second};
use crate::bench::world::World;

/// Clients at once, each with a connection that it keeps.
const CLIENTS: usize = 16;
/// Requests of all clients in one repetition.
const REQUESTS: usize = 3200;

/// What `openssl ca` signs in a second, if that is wanted.
pub(super) fn peer(run: &Run, wanted: bool, sheet: &mut Sheet) -> Result<Option<Samples>> {
    if !(wanted && run.peers) {
        return Ok(None);
    }
    even_start()?;
    openssl::measure(run, REQUESTS, sheet.say)
}

/// Sets by the clock, and by the processor time of the core: the clients use the same processors.
pub(super) fn measure(world: &World, peer: Option<&Samples>, sheet: &mut Sheet) -> Result<()> {
    let mut by_time = Vec::new();
    let ours = sheet.repeat(|| {
        let before = processor_seconds(&world.site.core, "xosd")?;
        let timing = world.load("issue-sets", (CLIENTS, REQUESTS), &[])?;
        let used = processor_seconds(&world.site.core, "xosd")? - before;
        let sets = u32::try_from(timing.each_ns.len()).map_or(f64::INFINITY, f64::from);
        by_time.push(sets / used);
        Ok(per_second(&timing))
    })?;
    let name = format!("sets of three credentials, {CLIENTS} API clients");
    let figure = Figure::new(name, &ours, "/s").reach(Reach::AtLeast(2000.0));
    sheet.add(figure.beside("openssl ca, certificates alone", peer), &ours);
    let by_time = Samples::new(by_time);
    sheet.add(Figure::new("  in a second of the core's processor time", &by_time, "/s"), &by_time);
    Ok(())
}
