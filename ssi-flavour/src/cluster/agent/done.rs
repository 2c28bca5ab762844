//! What came of what the agent had its host do.

use super::{Act, Agent, Save, What};
use crate::cluster::messages::{CutFile, End, Fact, Image, TreeId, WHY_CHARS_MAX};
use xos_base::Millis;

impl Agent {
    /// The program was started.
    pub fn started(&mut self, tree: TreeId, epoch: u64) -> Option<Act> {
        let c = self.copy(tree, epoch).filter(|c| c.what == What::Starting)?;
        c.what = What::Running;
        let floor = c.floor;
        self.say(vec![Fact::Runs { tree, epoch, floor }])
    }

    /// A dump was made, and the copy stands still; or it was not, and why.
    pub fn dumped(
        &mut self,
        tree: TreeId,
        epoch: u64,
        attempt: u64,
        done: Result<Image, String>,
    ) -> Vec<Act> {
        let mine = What::Dumping { attempt };
        let Some(c) = self.copy(tree, epoch).filter(|c| c.what == mine) else { return Vec::new() };
        match done {
            Ok(image) => {
                c.what = What::Dumped { attempt, image: image.clone() };
                self.images.insert((tree, image.version));
                if !image.brief.is_empty() {
                    self.brief.insert((tree, image.version));
                }
                let fact = Fact::Dumped { tree, epoch, attempt, image };
                self.say(vec![fact]).into_iter().collect()
            }
            Err(reason) => {
                c.what = What::Running;
                c.floor = attempt;
                c.refused.clone_from(&reason);
                let fact = Fact::Refused { tree, epoch, attempt, reason };
                let mut out = vec![Act::Resume { tree, epoch }];
                out.extend(self.say(vec![fact]));
                out
            }
        }
    }

    /// A copy was made, stopped; or it was not, nothing of it is left, and why.
    pub fn restored(
        &mut self,
        tree: TreeId,
        epoch: u64,
        done: Result<(), String>,
        now: Millis,
    ) -> Option<Act> {
        let c = self.copy(tree, epoch)?;
        let What::Restoring { version } = c.what else { return None };
        let mut facts = c.cut_back(tree);
        facts.push(match done {
            Ok(()) => {
                c.what = What::Restored;
                self.images.insert((tree, version));
                Fact::Restored { tree, epoch }
            }
            Err(reason) => {
                self.not_made((tree, epoch), version, now);
                Fact::NotRestored { tree, epoch, reason }
            }
        });
        self.say(facts)
    }

    /// Files were cut back for a copy that is being made.
    pub fn cut(&mut self, tree: TreeId, epoch: u64, cut: Vec<CutFile>) {
        if let Some(c) = self.copy(tree, epoch) {
            c.cut = cut;
        }
    }

    /// A copy was not made, and will not be as long as files are what they are, and why.
    pub fn barred(&mut self, tree: TreeId, epoch: u64, reason: String, now: Millis) -> Option<Act> {
        let c = self.copy(tree, epoch)?;
        let What::Restoring { version } = c.what else { return None };
        let mut facts = c.cut_back(tree);
        facts.push(Fact::Barred { tree, epoch, reason });
        self.not_made((tree, epoch), version, now);
        self.say(facts)
    }

    /// A copy's output goes to a spool here.
    pub fn spooled(&mut self, tree: TreeId, epoch: u64) -> Option<Act> {
        self.copy(tree, epoch)?.spooled = true;
        // It is the beginning of that now.
        self.written.retain(|(of, _)| *of != tree);
        self.say(vec![Fact::Spooled { tree, epoch }])
    }

    fn not_made(&mut self, (tree, epoch): (TreeId, u64), version: u64, now: Millis) {
        self.copies.remove(&tree);
        // One that it had before stays, in memory only if it was so.
        if !self.images.contains(&(tree, version)) {
            self.brief.remove(&(tree, version));
        }
        self.fence(tree, epoch, now);
    }

    /// A copy was killed.
    pub fn killed(&mut self, tree: TreeId, epoch: u64) -> Option<Act> {
        self.copy(tree, epoch).filter(|c| c.what == What::Dying)?;
        self.copies.remove(&tree);
        self.say(vec![Fact::Gone { tree, epoch }])
    }

    /// A checkpoint is complete, or failed, and why. The copy goes on.
    pub fn saved(
        &mut self,
        tree: TreeId,
        epoch: u64,
        version: u64,
        done: Result<Image, String>,
    ) -> Option<Act> {
        let mine = Some(Save::Making { version });
        let c = self.copy(tree, epoch).filter(|c| c.save == mine)?;
        let fact = match done {
            Ok(image) => {
                c.save = Some(Save::Done { image: image.clone() });
                self.images.insert((tree, version));
                Fact::Saved { tree, epoch, image }
            }
            Err(reason) => {
                c.save = Some(Save::Failed { version, reason: reason.clone() });
                Fact::NotSaved { tree, epoch, version, reason }
            }
        };
        self.say(vec![fact])
    }

    /// The root of a copy ended by itself and all its output was taken; or something else than this
    /// agent killed it.
    pub fn ended(&mut self, tree: TreeId, epoch: u64, end: End) -> Option<Act> {
        self.over(tree, epoch, end, String::new())
    }

    /// The program of a copy is not started here, and why, for its person.
    pub fn not_started(&mut self, tree: TreeId, epoch: u64, end: End, why: &str) -> Option<Act> {
        self.over(tree, epoch, end, why.chars().take(WHY_CHARS_MAX).collect())
    }

    fn over(&mut self, tree: TreeId, epoch: u64, end: End, why: String) -> Option<Act> {
        let c = self.copy(tree, epoch)?;
        let ran = match c.what {
            What::Starting | What::Running | What::Dumping { .. } | What::Dumped { .. } => true,
            What::Restored => false,
            What::Restoring { .. } | What::Ended { .. } | What::Dying => return None,
        };
        c.what = What::Ended { end, ran, why: why.clone() };
        self.say(vec![Fact::Ended { tree, epoch, end, why }])
    }
}
