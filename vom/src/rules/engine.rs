//! One side's rules with an index: which of them speak of a request.

use super::book::Book;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use xos_api::policy::{Action, Effect, InVo, Place, Rule, What, Where, Who};
use xos_base::{GroupName, Membership, NodeId, PersonId, RoleName, SiteId, VoId};

/// A question: may somebody do something somewhere?
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// In which VO.
    pub vo: VoId,
    /// Who; absent: somebody whom no rule names.
    pub person: Option<PersonId>,
    /// Their groups.
    pub groups: Vec<GroupName>,
    /// Their roles.
    pub roles: Vec<RoleName>,
    /// What they would do.
    pub action: Action,
    /// Where.
    pub place: Place,
}

impl Asked {
    /// The question about a member.
    pub fn of(member: &Membership, action: Action, place: &Place) -> Asked {
        Asked {
            vo: member.vo.clone(),
            person: Some(member.person.clone()),
            groups: member.groups.iter().map(|g| g.name.clone()).collect(),
            roles: member.roles.clone(),
            action,
            place: place.clone(),
        }
    }
}

/// Those whom no rule of a court tells apart.
#[derive(Default)]
pub(super) struct Class<'a> {
    pub(super) person: Option<&'a PersonId>,
    pub(super) site: Option<SiteId>,
    pub(super) groups: BTreeSet<&'a GroupName>,
    pub(super) roles: BTreeSet<&'a RoleName>,
}

/// What a rule and a request agree in, besides who.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    vo: InVo,
    what: What,
    place: Where,
}

impl Key {
    fn of(rule: &Rule) -> Key {
        Key { vo: rule.vo.clone(), what: rule.what, place: rule.place.clone() }
    }

    /// The keys of the rules that may speak of a request.
    fn all(asked: &Asked) -> Vec<Key> {
        let site = Where::Site(asked.place.site.clone());
        let node = asked.place.node.clone().map(Where::Node);
        let places: Vec<Where> =
            [Some(Where::Any), Some(site), node].into_iter().flatten().collect();
        let mut keys = Vec::with_capacity(12);
        for vo in [InVo::Any, InVo::Vo(asked.vo.clone())] {
            for what in [What::Any, What::Action(asked.action)] {
                let key = |place: &Where| Key { vo: vo.clone(), what, place: place.clone() };
                keys.extend(places.iter().map(key));
            }
        }
        keys
    }
}

/// Rules that differ in name, effect and note only: their places in the list, ascending.
#[derive(Default)]
struct Alike {
    denying: Vec<usize>,
    allowing: Vec<usize>,
}

/// The rules that mean the same people.
#[derive(Default)]
struct Meant(HashMap<Key, Alike>);

#[derive(Default)]
struct Index {
    anyone: Meant,
    people: HashMap<PersonId, Meant>,
    sites: HashMap<SiteId, Meant>,
    groups: HashMap<GroupName, Meant>,
    roles: HashMap<RoleName, Meant>,
}

impl Index {
    fn add(&mut self, at: usize, rule: &Rule) {
        let meant = match rule.who.clone() {
            Who::Anyone => &mut self.anyone,
            Who::Person(p) => self.people.entry(p).or_default(),
            Who::Site(s) => self.sites.entry(s).or_default(),
            Who::Group(g) => self.groups.entry(g).or_default(),
            Who::Role(r) => self.roles.entry(r).or_default(),
        };
        let alike = meant.0.entry(Key::of(rule)).or_default();
        match rule.effect {
            Effect::Deny => alike.denying.push(at),
            Effect::Allow => alike.allowing.push(at),
        }
    }

    /// The rules that speak of a request.
    fn find(&self, asked: &Asked) -> Vec<&Alike> {
        let person = asked.person.as_ref();
        let person_site = person.map(PersonId::site);
        let groups = asked.groups.iter().filter_map(|g| self.groups.get(g));
        let roles = asked.roles.iter().filter_map(|r| self.roles.get(r));
        let meant = [
            Some(&self.anyone),
            person.and_then(|p| self.people.get(p)),
            person_site.and_then(|s| self.sites.get(&s)),
        ];
        let keys = Key::all(asked);
        let meant = meant.into_iter().flatten().chain(groups).chain(roles);
        meant.flat_map(|m| keys.iter().filter_map(move |k| m.0.get(k))).collect()
    }
}

/// The rules of a VO, or of a site, ready to be asked.
pub struct Engine {
    version: u64,
    rules: Vec<Arc<Rule>>,
    index: Index,
    /// The nodes that rules mean.
    nodes: HashSet<NodeId>,
    login_free: bool,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine of version {} with {} rules", self.version, self.rules.len())
    }
}

impl Engine {
    /// The engine of a list of rules.
    pub fn new(book: &Book) -> Engine {
        let rules: Vec<Arc<Rule>> = book.rules().cloned().map(Arc::new).collect();
        let mut index = Index::default();
        for (at, rule) in rules.iter().enumerate() {
            index.add(at, rule);
        }
        let of_login = |r: &&Arc<Rule>| matches!(r.what, What::Any | What::Action(Action::Login));
        let all = |r: &Arc<Rule>| {
            r.effect == Effect::Allow
                && r.who == Who::Anyone
                && r.vo == InVo::Any
                && r.place == Where::Any
        };
        let mut concerned = rules.iter().filter(of_login);
        let denies = concerned.clone().any(|r| r.effect == Effect::Deny);
        let login_free = !denies && concerned.any(all);
        let node = |r: &Arc<Rule>| match &r.place {
            Where::Node(node) => Some(node.clone()),
            _ => None,
        };
        let nodes = rules.iter().filter_map(node).collect();
        Engine { version: book.version, rules, index, nodes, login_free }
    }

    /// The version of the list.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether everybody may log in everywhere.
    pub(crate) fn login_is_free(&self) -> bool {
        self.login_free
    }

    /// Leaves of a class what a rule of this side can tell from others.
    pub(super) fn tell_apart<'a>(&self, asked: &'a Asked, class: &mut Class<'a>) {
        let index = &self.index;
        if let Some(person) = &asked.person {
            if index.people.contains_key(person) {
                class.person = Some(person);
            }
            if !index.sites.is_empty() && index.sites.contains_key(&person.site()) {
                class.site = Some(person.site());
            }
        }
        class.groups.extend(asked.groups.iter().filter(|g| index.groups.contains_key(*g)));
        class.roles.extend(asked.roles.iter().filter(|r| index.roles.contains_key(*r)));
    }

    /// Whether a rule means this very node.
    pub(crate) fn means_node(&self, node: &NodeId) -> bool {
        self.nodes.contains(node)
    }

    /// The rules that can decide: the first that denies, and the first that allows.
    pub(crate) fn deciding(&self, asked: &Asked) -> (Option<&Arc<Rule>>, Option<&Arc<Rule>>) {
        let found = self.index.find(asked);
        let deny = found.iter().filter_map(|a| a.denying.first()).min();
        let allow = found.iter().filter_map(|a| a.allowing.first()).min();
        let rule = |at: Option<&usize>| at.and_then(|at| self.rules.get(*at));
        (rule(deny), rule(allow))
    }

    /// All rules that speak of a request, by name.
    pub fn matching(&self, asked: &Asked) -> Vec<Arc<Rule>> {
        let found = self.index.find(asked);
        let mut at: Vec<usize> =
            found.iter().flat_map(|a| a.denying.iter().chain(&a.allowing)).copied().collect();
        at.sort_unstable();
        at.iter().filter_map(|at| self.rules.get(*at)).cloned().collect()
    }
}
