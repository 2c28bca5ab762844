//! Places for connections: how many there may be, in all and for each who comes, so that a flood
//! from one address, or by one site, does not keep others out.
//!
//! Whoever has not proved to be a machine counts by address: IPv4 whole, IPv6 by its first 64
//! bits, since whoever has one such address has them all. A machine counts by its site, a node by
//! itself too. Who comes is known only after the TLS handshake: before it, only handshakes count,
//! so that strangers do not keep out machines.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xos_base::{Error, NodeId, SiteId};

/// How many connections there may be at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// In all.
    pub all: usize,
    /// Of people and strangers, from one address.
    pub address: usize,
}

impl Most {
    /// Of people and strangers together: the rest is for machines.
    fn strangers(self) -> usize {
        self.all.div_ceil(2)
    }

    /// Of the machines of all other sites together: half of what strangers leave, so that the other
    /// half is this site's.
    fn foreign(self) -> usize {
        (self.all - self.strangers()).div_ceil(2)
    }

    /// Of the machines of one other site, when those of the others have `others`: half of what
    /// they leave.
    fn site(self, others: usize) -> usize {
        self.foreign().saturating_sub(others).div_ceil(2)
    }

    /// Of one node.
    fn node(self) -> usize {
        self.all.div_ceil(16)
    }

    /// Whose TLS handshake is not finished.
    fn handshakes(self) -> usize {
        self.all.div_ceil(8)
    }
}

/// An address may have as many unfinished handshakes as may still come, divided by this, and one in
/// any case: it takes hundreds of addresses to have them all.
const HANDSHAKES_DIVISOR: usize = 64;

/// A machine that a handshake proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Machine {
    /// A site's core.
    Core(SiteId),
    /// A node.
    Node(NodeId),
}

impl Machine {
    fn site(&self) -> SiteId {
        match self {
            Machine::Core(site) => site.clone(),
            Machine::Node(node) => node.site(),
        }
    }
}

/// What an address counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block(IpAddr);

impl Block {
    /// The block of `address`.
    pub fn of(address: IpAddr) -> Block {
        Block(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 => v4,
        })
    }
}

#[derive(Default)]
struct Counts {
    all: usize,
    strangers: usize,
    foreign: usize,
    handshakes: usize,
    addresses: HashMap<Block, Address>,
    sites: HashMap<SiteId, usize>,
    nodes: HashMap<NodeId, usize>,
}

#[derive(Default)]
struct Address {
    open: usize,
    handshakes: usize,
}

/// The places of one port. Cheap to clone.
#[derive(Clone)]
pub struct Places {
    own: SiteId,
    most: Most,
    counts: Arc<Mutex<Counts>>,
}

impl Places {
    /// None is taken yet. The core of `own` is bounded only by the sum.
    pub fn new(own: SiteId, most: Most) -> Places {
        Places { own, most, counts: Arc::default() }
    }

    /// A place for a connection that has just come, whose TLS handshake is to follow.
    ///
    /// # Errors
    /// [`xos_base::Kind::Limited`] naming the limit that is reached.
    pub fn enter(&self, address: IpAddr) -> Result<Place, Error> {
        let block = Block::of(address);
        let most = self.most;
        let mut counts = self.lock();
        below(counts.all, most.all, "connections")?;
        below(counts.handshakes, most.handshakes(), "TLS handshakes")?;
        let share = (most.handshakes() - counts.handshakes).div_ceil(HANDSHAKES_DIVISOR);
        let has = counts.addresses.get(&block).map_or(0, |from| from.handshakes);
        below(has, share, "TLS handshakes of one address")?;
        counts.all += 1;
        counts.handshakes += 1;
        counts.addresses.entry(block).or_default().handshakes += 1;
        drop(counts);
        Ok(Place { places: self.clone(), held: Held::Handshake(block) })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn below(count: usize, most: usize, what: &str) -> Result<(), Error> {
    match count < most {
        true => Ok(()),
        false => Err(Error::limited(format!("{most} {what} are open already"))),
    }
}

#[derive(Clone, Debug)]
enum Held {
    Handshake(Block),
    Stranger(Block),
    Machine(Machine),
}

/// The place of one connection; free again when dropped.
pub struct Place {
    places: Places,
    held: Held,
}

impl Place {
    /// The TLS handshake is finished and proved `machine`, or nothing.
    ///
    /// # Errors
    /// [`xos_base::Kind::Limited`] when there are too many such connections.
    pub fn shaken(&mut self, machine: Option<Machine>) -> Result<(), Error> {
        let Held::Handshake(block) = self.held else { return Ok(()) };
        let Places { own, most, counts } = &self.places;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let next = match machine {
            None => {
                let from = counts.addresses.get(&block).map_or(0, |a| a.open);
                below(counts.strangers, most.strangers(), "connections of people and strangers")?;
                below(from, most.address, "connections from one address")?;
                counts.strangers += 1;
                counts.addresses.entry(block).or_default().open += 1;
                Held::Stranger(block)
            }
            Some(machine) => {
                let site = machine.site();
                let foreign = site != *own;
                if foreign {
                    let open = counts.sites.get(&site).copied().unwrap_or(0);
                    let others = counts.foreign.saturating_sub(open);
                    below(open, most.site(others), "connections of another site's machines")?;
                }
                if let Machine::Node(node) = &machine {
                    let open = counts.nodes.get(node).copied().unwrap_or(0);
                    below(open, most.node(), "connections of one node")?;
                    *counts.nodes.entry(node.clone()).or_default() += 1;
                }
                counts.foreign += usize::from(foreign);
                *counts.sites.entry(site).or_default() += 1;
                Held::Machine(machine)
            }
        };
        counts.finish(block);
        drop(counts);
        self.held = next;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.lock();
        counts.all = counts.all.saturating_sub(1);
        match &self.held {
            Held::Handshake(block) => counts.finish(*block),
            Held::Stranger(block) => counts.leave(*block),
            Held::Machine(machine) => {
                let site = machine.site();
                if site != self.places.own {
                    counts.foreign = counts.foreign.saturating_sub(1);
                }
                lower(&mut counts.sites, &site);
                if let Machine::Node(node) = machine {
                    lower(&mut counts.nodes, node);
                }
            }
        }
    }
}

impl Counts {
    /// One stranger less from `block`.
    fn leave(&mut self, block: Block) {
        self.strangers = self.strangers.saturating_sub(1);
        if let Some(from) = self.addresses.get_mut(&block) {
            from.open = from.open.saturating_sub(1);
        }
        self.tidy(block);
    }

    /// One handshake less from `block`.
    fn finish(&mut self, block: Block) {
        self.handshakes = self.handshakes.saturating_sub(1);
        if let Some(from) = self.addresses.get_mut(&block) {
            from.handshakes = from.handshakes.saturating_sub(1);
        }
        self.tidy(block);
    }

    fn tidy(&mut self, block: Block) {
        if self.addresses.get(&block).is_some_and(|a| a.open == 0 && a.handshakes == 0) {
            self.addresses.remove(&block);
        }
    }
}

fn lower<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(all: usize, address: usize) -> Places {
        Places::new("rennes".parse().unwrap(), Most { all, address })
    }

    /// `machine` is a site's core, or a node when its name has a dot.
    fn shaken(places: &Places, address: &str, machine: Option<&str>) -> Result<Place, Error> {
        let mut place = places.enter(address.parse().unwrap())?;
        place.shaken(machine.map(|m| match m.contains('.') {
            true => Machine::Node(m.parse().unwrap()),
            false => Machine::Core(m.parse().unwrap()),
        }))?;
        Ok(place)
    }

    fn fill(places: &Places, address: &str, machine: Option<&str>) -> Vec<Place> {
        let mut held = Vec::new();
        while let Ok(place) = shaken(places, address, machine) {
            held.push(place);
            assert!(held.len() <= 1000, "no limit holds");
        }
        held
    }

    #[test]
    fn a_block_is_an_ipv4_address_or_64_bits_of_ipv6() {
        let block = |a: &str| Block::of(a.parse().unwrap());
        assert_ne!(block("10.0.0.1"), block("10.0.0.2"));
        assert_eq!(block("::ffff:10.0.0.1"), block("10.0.0.1"));
        assert_eq!(block("2001:db8::1"), block("2001:db8::ffff:1:2"));
        assert_ne!(block("2001:db8::1"), block("2001:db8:0:1::1"));
    }

    #[test]
    fn one_address_leaves_room_for_others_and_strangers_for_machines() {
        let p = places(64, 8);
        let flood = fill(&p, "10.0.0.1", None);
        assert_eq!(flood.len(), 8);
        shaken(&p, "10.0.0.2", None).expect("another address is kept out");
        let e = shaken(&p, "10.0.0.1", None).err().unwrap();
        assert_eq!(e.kind, xos_base::Kind::Limited);
        let all: Vec<_> = (2..100).flat_map(|i| fill(&p, &format!("10.0.0.{i}"), None)).collect();
        assert_eq!(flood.len() + all.len(), 32, "strangers take what is for machines");
        assert!(shaken(&p, "10.0.1.1", None).is_err());
        // All strangers' places are taken: machines come in, also from a stranger's address.
        let node = shaken(&p, "10.0.0.1", Some("n1.rennes")).expect("a flood keeps machines out");
        let pisa = fill(&p, "10.0.1.1", Some("pisa"));
        assert_eq!(pisa.len(), 8);
        let own = fill(&p, "10.0.1.2", Some("rennes"));
        assert_eq!(own.len(), 64 - 8 - 32 - 1);
        drop((all, node, own));
        let rooted = fill(&p, "10.0.1.2", Some("n1.rennes"));
        assert_eq!(rooted.len(), 4, "one node takes the places of others");
        shaken(&p, "10.0.1.2", Some("n2.rennes")).expect("another node is kept out");
    }

    #[test]
    fn other_sites_together_leave_half_of_what_machines_have() {
        // Else four sites that are trusted and turn bad keep the site's own nodes out.
        let p = places(64, 8);
        let strangers: Vec<_> =
            (1..100).flat_map(|i| fill(&p, &format!("10.0.0.{i}"), None)).collect();
        let site = |i: usize| fill(&p, "10.0.1.1", Some(&format!("s{i}")));
        let first = site(0);
        let second = site(1);
        assert_eq!((first.len(), second.len()), (8, 4), "one leaves something to the next");
        let rest: Vec<_> = (2..30).flat_map(site).collect();
        assert_eq!(first.len() + second.len() + rest.len(), 16, "they take what is the own site's");
        let nodes: Vec<_> =
            (0..4).flat_map(|i| fill(&p, "10.0.1.2", Some(&format!("n{i}.rennes")))).collect();
        assert_eq!((strangers.len(), nodes.len()), (32, 16));
        drop((first, second, rest));
        assert_eq!(site(0).len(), 8, "what is dropped is not free again");
        drop(nodes);
        assert_eq!(p.lock().foreign, 0);
    }

    #[test]
    fn handshakes_are_bounded_and_what_is_dropped_is_free_again() {
        let p = places(64, 8);
        let enter = |a: &str| p.enter(a.parse().unwrap());
        let begun = enter("10.0.0.1").unwrap();
        assert!(enter("10.0.0.1").is_err(), "one address takes what is for others' handshakes");
        let more: Vec<_> = (2..9).map(|i| enter(&format!("10.0.0.{i}")).unwrap()).collect();
        assert!(enter("10.0.0.9").is_err(), "handshakes are not bounded together");
        drop((begun, more));
        let large = places(8192, 512);
        let one = |a: &str| {
            let mut held = Vec::new();
            while let Ok(place) = large.enter(a.parse().unwrap()) {
                held.push(place);
                assert!(held.len() <= 1024, "no limit holds");
            }
            held
        };
        let first = one("10.0.0.1");
        assert!(first.len() >= 8, "one address alone has too few: {}", first.len());
        let many: Vec<_> = (2..100).flat_map(|i| one(&format!("10.0.0.{i}"))).collect();
        large.enter("10.0.1.1".parse().unwrap()).expect("some addresses keep others out");
        drop((first, many));
        drop(fill(&p, "10.0.0.1", None));
        drop(fill(&p, "10.0.0.1", Some("pisa")));
        drop(fill(&p, "10.0.0.1", Some("n1.pisa")));
        let counts = p.lock();
        assert_eq!((counts.all, counts.strangers, counts.handshakes), (0, 0, 0));
        let left = (counts.addresses.len(), counts.sites.len(), counts.nodes.len());
        assert_eq!(left, (0, 0, 0), "it grows for ever");
    }
}
