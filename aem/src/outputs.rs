//! Short outputs on their way to whoever watches. Not kept over a restart: the node has them.

use std::collections::{HashMap, VecDeque};
use xos_api::aem::{INLINE_OUTPUT_MAX, InlineOutput};
use xos_base::UnitId;

/// Most bytes kept, of base64 and what holds it.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest output as base64, both streams together.
const TEXT_MAX: usize = INLINE_OUTPUT_MAX.div_ceil(3) * 4 + 8;

/// A unit under one attempt: another attempt writes something else.
pub(crate) type Run = (UnitId, u16);

/// The newest short outputs.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    map: HashMap<Run, InlineOutput>,
    order: VecDeque<Run>,
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
    pub(crate) fn put(&mut self, run: Run, output: InlineOutput) {
        let text = |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
        let fits = text_size(&output) <= TEXT_MAX && text(&output.stdout) && text(&output.stderr);
        if !fits || self.map.contains_key(&run) {
            return;
        }
        self.bytes += size(&output);
        self.order.push_back(run.clone());
        self.map.insert(run, output);
        while self.bytes > BYTES_MAX
            && let Some(old) = self.order.pop_front()
        {
            if let Some(o) = self.map.remove(&old) {
                self.bytes -= size(&o);
            }
        }
    }

    /// The output, when it is still here.
    pub(crate) fn of(&self, unit: UnitId, attempt: u16) -> Option<&InlineOutput> {
        self.map.get(&(unit, attempt))
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
            o.put((job.unit(i), 0), InlineOutput { stdout, stderr: String::new() });
        }
        assert!(o.bytes <= BYTES_MAX && o.map.len() == o.order.len());
        assert!(o.of(job.unit(0), 0).is_none() && o.of(job.unit(1999), 0).is_some());
        for i in 0..100_000 {
            o.put((job.unit(10_000 + i), 0), InlineOutput::default());
        }
        assert!(o.map.len() <= BYTES_MAX / ENTRY, "outputs of no length fill the memory");
        let stdout = "A".repeat(TEXT_MAX + 1);
        o.put((job.unit(5000), 0), InlineOutput { stdout, stderr: String::new() });
        assert!(o.of(job.unit(5000), 0).is_none(), "a node could fill the core's memory");
    }

    /// If it failed, whoever watched a unit that was run again would be shown what the attempt that
    /// failed had written.
    #[test]
    fn each_attempt_has_its_own_output() {
        let mut o = Outputs::default();
        let unit = || "1.rennes:0".parse::<UnitId>().unwrap();
        let of = |text: &str| InlineOutput { stdout: text.into(), stderr: String::new() };
        o.put((unit(), 0), of("YmFk"));
        o.put((unit(), 1), of("Z29vZA=="));
        assert_eq!(o.of(unit(), 1), Some(&of("Z29vZA==")));
        assert_eq!(o.of(unit(), 2), None);
    }
}
