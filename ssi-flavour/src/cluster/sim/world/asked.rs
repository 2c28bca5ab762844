//! What is asked of the controller.

use super::*;

impl World {
    pub(super) fn prove(&mut self) {
        for n in self.numbers(NodeState::Present) {
            if let Some(controller) = &mut self.controller {
                let effects = controller.prove(n, Moves::Yes, 1).unwrap();
                self.perform(effects);
            }
        }
        if !self.rough {
            for n in self.numbers(NodeState::Draining) {
                if let Some(controller) = &mut self.controller {
                    let effects = controller.drain(n, false).unwrap();
                    self.perform(effects);
                }
            }
        }
    }

    pub(super) fn submit(&mut self) {
        let online = self.numbers(NodeState::Online);
        let birth = self.dice.one_of(&online);
        let node = self.dice.one_of(&online);
        let Some(controller) = &mut self.controller else { return };
        let next = controller.state().trees.next();
        assert!(!self.forsaken.contains(&next), "tree {next} is given twice");
        if self.known.len() >= TREES || self.known.contains(&next) {
            return;
        }
        let member = MemberNumber(if self.dice.chance(50) { 7 } else { 8 });
        let owner = Owner { vo: vo(), member, uid: 70_000 + member.0 };
        let restartable = self.dice.chance(70);
        let wish = Wish { owner, restartable, interval: Interval::Best };
        let queued = self.dice.chance(40);
        let young = !queued && !restartable && self.dice.chance(70);
        let (tree, effects) = if queued {
            controller.queue(&wish)
        } else {
            let (Some(birth), Some(node)) = (birth, node) else { return };
            // Who asks there is a program of the node's cell, which there is in a term only.
            if !self.nodes[&birth].up || !self.nodes[&birth].agent.is_in() {
                return;
            }
            let root = *birth.pids().start() + 300;
            let Ok((tree, effects)) = controller.start(root, &wish, birth, node) else { return };
            // The ghost is there before anything is told, and asks again when the controller dies.
            self.births.insert(tree, birth);
            self.nodes.get_mut(&birth).unwrap().ghosts.insert(tree);
            (tree, effects)
        };
        let least = if young { 1 } else { 60 };
        self.goals.insert(tree, least + self.dice.below(400));
        self.known.insert(tree);
        if young {
            self.young.insert(tree, self.t);
        }
        effects.iter().for_each(|e| self.write(e));
        // It is acknowledged: it is on the disk, or its number is.
        if !young || tree.0 > self.given {
            self.stored = self.log.len();
            self.given = self.given.max(tree.0) + u64::from(young);
        }
        self.perform(effects.into_iter().filter(|e| !matches!(e, Effect::Keep(_))).collect());
    }

    /// A node has room for what waits.
    pub(super) fn begin(&mut self) {
        let online = self.numbers(NodeState::Online);
        let birth = self.dice.one_of(&online);
        let node = self.dice.one_of(&online);
        let (Some(birth), Some(node)) = (birth, node) else { return };
        let Some(controller) = &mut self.controller else { return };
        let next = controller.state().trees.queue().next(|_| false).map(|(tree, _)| tree);
        let at = &self.nodes[&birth];
        let Some(tree) = next.filter(|_| at.up && at.agent.is_in()) else { return };
        let root = *birth.pids().start() + 300;
        let Ok(effects) = controller.begin(tree, root, birth, node) else { return };
        assert!(!self.started.contains(&tree), "tree {tree} waits though it was started");
        self.births.insert(tree, birth);
        self.nodes.get_mut(&birth).unwrap().ghosts.insert(tree);
        self.perform(effects);
    }

    pub(super) fn kill_waiting(&mut self) {
        let Some(controller) = &mut self.controller else { return };
        let next = controller.state().trees.queue().next(|_| false).map(|(tree, _)| tree);
        if let Some(tree) = next {
            let effects = controller.end(tree).unwrap();
            self.killed.insert(tree);
            self.perform(effects);
        }
    }

    /// The site serves the VO, or does not for a while; or its share has ended.
    pub(super) fn serve(&mut self, on: bool) {
        let vos = if on { BTreeSet::from([vo()]) } else { BTreeSet::new() };
        let ended = !on && self.dice.chance(30);
        let Some(controller) = &mut self.controller else { return };
        let mut effects = controller.serve(&vos);
        if ended {
            effects.extend(controller.drop_waiting(&vos));
        }
        self.perform(effects);
    }

    /// Nodes fetch checkpoints that others made.
    pub(super) fn copy(&mut self) {
        let now = self.clock();
        let online = self.numbers(NodeState::Online);
        let Some(controller) = &mut self.controller else { return };
        let mut effects = controller.settle(COPIES);
        for tree in controller.thin(COPIES) {
            let Some(to) = self.dice.one_of(&online) else { continue };
            effects.extend(controller.hold(tree, to, now).unwrap_or_default());
        }
        self.perform(effects);
    }

    pub(super) fn migrate(&mut self) {
        let now = self.clock();
        let running = self.trees(|s| *s == TreeState::Running);
        let online = self.numbers(NodeState::Online);
        let (Some(tree), Some(to)) = (self.dice.one_of(&running), self.dice.one_of(&online)) else {
            return;
        };
        let Some(controller) = &mut self.controller else { return };
        if let Ok(effects) = controller.migrate(tree, to, now) {
            self.perform(effects);
        }
    }

    pub(super) fn save(&mut self) {
        let now = self.clock();
        let running = self.trees(|s| *s == TreeState::Running);
        let Some(tree) = self.dice.one_of(&running) else { return };
        let Some(controller) = &mut self.controller else { return };
        if let Ok(effects) = controller.save(tree, now) {
            self.perform(effects);
        }
    }

    pub(super) fn drain(&mut self) {
        let on = self.dice.chance(30);
        let from = if on { NodeState::Online } else { NodeState::Draining };
        let list = self.numbers(from);
        let Some(n) = self.dice.one_of(&list) else { return };
        let Some(controller) = &mut self.controller else { return };
        if let Ok(effects) = controller.drain(n, on) {
            self.perform(effects);
        }
    }

    pub(super) fn restart(&mut self) {
        let now = self.clock();
        let online = self.numbers(NodeState::Online);
        for tree in self.trees(|s| matches!(s, TreeState::Checkpointed { .. })) {
            let Some(to) = self.dice.one_of(&online) else { return };
            let Some(controller) = &mut self.controller else { return };
            if let Ok(effects) = controller.restart(tree, to, now) {
                self.perform(effects);
            }
        }
    }
}
