//! Short outputs on their way to whoever watches. Not kept over a restart: the node has them.

use std::collections::{HashMap, VecDeque};
use xos_api::aem::{INLINE_OUTPUT_MAX, InlineOutput};
use xos_base::UnitId;

/// Most bytes kept, of base64 and what holds it.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest output as base64, both streams together.
const TEXT_MAX: usize = INLINE_OUTPUT_MAX.div_ceil(3) * 4 + 8;

/// The newest short outputs.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    map: HashMap<UnitId, InlineOutput>,
    order: VecDeque<UnitId>,
    bytes: usize,
}

/// What an output takes besides its text.
const ENTRY: usize = 256;

fn text_size(o: &InlineOutput) -> usize {
    o.stdout.len() + o.stderr.len()
}

fn size(o: &InlineOutput) -> usize {
    text_size(o) + ENTRY
}

impl Outputs {
    /// Keeps an output; one that is too long, or no base64 at all, is dropped.
    pub(crate) fn put(&mut self, unit: UnitId, output: InlineOutput) {
        let text = |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
        let fits = text_size(&output) <= TEXT_MAX && text(&output.stdout) && text(&output.stderr);
        if !fits || self.map.contains_key(&unit) {
            return;
        }
        self.bytes += size(&output);
        self.order.push_back(unit.clone());
        self.map.insert(unit, output);
        while self.bytes > BYTES_MAX
            && let Some(old) = self.order.pop_front()
        {
            if let Some(o) = self.map.remove(&old) {
                self.bytes -= size(&o);
            }
        }
    }

    /// The output, when it is still here.
    pub(crate) fn of(&self, unit: &UnitId) -> Option<&InlineOutput> {
        self.map.get(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_stays_bounded() {
        let mut o = Outputs::default();
        let job: xos_base::JobId = "1.rennes".parse().unwrap();
        for i in 0..2000 {
            let stdout = "A".repeat(16_000);
            o.put(job.unit(i), InlineOutput { stdout, stderr: String::new() });
        }
        assert!(o.bytes <= BYTES_MAX && o.map.len() == o.order.len());
        assert!(o.of(&job.unit(0)).is_none() && o.of(&job.unit(1999)).is_some());
        for i in 0..100_000 {
            o.put(job.unit(10_000 + i), InlineOutput::default());
        }
        assert!(o.map.len() <= BYTES_MAX / ENTRY, "outputs of no length fill the memory");
        let stdout = "A".repeat(TEXT_MAX + 1);
        o.put(job.unit(5000), InlineOutput { stdout, stderr: String::new() });
        assert!(o.of(&job.unit(5000)).is_none(), "a node could fill the core's memory");
    }
}
