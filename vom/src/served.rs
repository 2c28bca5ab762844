//! This site's own side of its shares: what it offered, and which local numbers belong to which
//! VO. Pure.

use crate::state::{Block, Vo};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use xos_api::vom::{AccountState, ServedVo, Terms, VoState};
use xos_base::accounts::ID_RANGE;
use xos_base::{Error, Millis, SiteId, VoId};

/// How many uids and gids are given to a VO at a time.
pub const BLOCK: u32 = 65_536;
/// Most blocks of one VO.
pub const UID_BLOCKS_MAX: u32 = 16;
/// The first number that is given to VOs, also where an administrator chooses: below lie those of
/// systemd's containers, and PAM takes whoever has one for a local user.
pub const BASE_MIN: u32 = *ID_RANGE.start();
/// The last number that is given to VOs.
pub const BASE_LAST: u32 = *ID_RANGE.end();
/// Most offers to one VO that may wait for an answer.
pub const OFFERS_OPEN_MAX: usize = 16;

/// This site's side of the share of one VO. Kept for good: its numbers are never given again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Served {
    /// The VO.
    pub vo: VoId,
    /// uid = base + member number.
    pub base: u32,
    /// How many numbers belong to the VO.
    pub size: u32,
    /// What was offered, by version: those that wait and the one that may be in force.
    pub offers: BTreeMap<u32, Terms>,
    /// The version of the last offer.
    pub last: u32,
    /// The last version that the VO's home knows of.
    pub told: u32,
    /// The site ended the share.
    pub withdrawn: Option<Withdrawal>,
    /// Why the home did not take the last offer.
    pub refused: Option<String>,
}

/// How a site ended its share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withdrawal {
    /// Why.
    pub reason: String,
    /// The home knows it.
    pub told: bool,
}

/// What is to be done for a share in the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Todo {
    /// Bring the offer to the VO's home.
    Offer(Terms),
    /// Tell the home that offers up to that version are over.
    Withdraw(u32, String),
    /// Follow the VO's log.
    Follow,
    /// Nothing.
    Rest,
}

/// What a VO's home is to this site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// It was heard lately, or is this site.
    Heard,
    /// It was not heard for longer than the lease.
    Lapsed,
    /// It was not heard for the grace as well: what was held ends.
    Lost,
    /// It is trusted no more: nothing of its VOs goes on here.
    Forgotten,
}

impl Served {
    /// A site's side before its first offer.
    pub fn new(vo: VoId, block: Block) -> Served {
        Served {
            vo,
            base: block.base,
            size: block.size,
            offers: BTreeMap::new(),
            last: 0,
            told: 0,
            withdrawn: None,
            refused: None,
        }
    }

    /// The VO's numbers here.
    pub fn block(&self) -> Block {
        Block { base: self.base, size: self.size }
    }

    /// The same with a new offer. `vo` is the VO as known here.
    ///
    /// # Errors
    /// [`xos_base::Kind::Limited`] when too many offers wait.
    pub fn offer(&self, own: &SiteId, vo: Option<&Vo>, mut terms: Terms) -> Result<Served, Error> {
        let mut next = self.clone();
        let in_force = vo.and_then(|v| self.accepted(own, v)).map(|t| t.version);
        // Of the offers before the one in force none can be accepted any more.
        next.offers.retain(|v, _| in_force.is_none_or(|f| *v >= f));
        if next.offers.len() > OFFERS_OPEN_MAX {
            return Err(Error::limited(format!("{OFFERS_OPEN_MAX} offers to {} wait", self.vo))
                .hint("wait for the VO's answer, or withdraw the share"));
        }
        next.last = next.last.saturating_add(1);
        terms.version = next.last;
        next.offers.insert(next.last, terms);
        next.withdrawn = None;
        next.refused = None;
        Ok(next)
    }

    /// The same, ended.
    pub fn withdraw(&self, reason: String) -> Served {
        let mut next = self.clone();
        next.withdrawn = Some(Withdrawal { reason, told: false });
        next.offers.clear();
        next
    }

    /// The terms in force: accepted by the VO, and offered here. The home's word alone gives a
    /// VO nothing of this site, and a dissolved VO has nothing.
    pub fn accepted(&self, own: &SiteId, vo: &Vo) -> Option<&Terms> {
        if self.withdrawn.is_some() || vo.dissolved() {
            return None;
        }
        let version = vo.shares.get(own)?.accepted.as_ref()?.version;
        self.offers.get(&version)
    }

    /// What is to be done. `vo` is the VO as known here.
    pub fn todo(&self, own: &SiteId, vo: Option<&Vo>) -> Todo {
        match &self.withdrawn {
            Some(w) if w.told => return Todo::Rest,
            Some(w) => return Todo::Withdraw(self.last, w.reason.clone()),
            None => {}
        }
        if self.told < self.last
            && let Some(terms) = self.offers.get(&self.last)
        {
            return Todo::Offer(terms.clone());
        }
        if self.vo.site() == *own || self.offers.is_empty() {
            return Todo::Rest;
        }
        let share = vo.and_then(|v| v.shares.get(own));
        let over = share
            .is_some_and(|s| s.accepted.is_none() && s.offered.is_none() && s.last >= self.last);
        if over { Todo::Rest } else { Todo::Follow }
    }

    /// What accounts of the VO are worth here at `now`.
    pub fn account_state(&self, own: &SiteId, vo: &Vo, now: Millis, home: Home) -> AccountState {
        let in_force = self.accepted(own, vo).is_some_and(|t| t.until.is_none_or(|end| end > now));
        if !in_force || matches!(home, Home::Forgotten | Home::Lost) {
            AccountState::Ended
        } else if home == Home::Lapsed || vo.state != VoState::Active {
            AccountState::Suspended
        } else {
            AccountState::Active
        }
    }

    /// For readers. `trouble` is what is wrong with the view of the VO here, if something is.
    pub fn info(
        &self,
        own: &SiteId,
        vo: Option<&Vo>,
        now: Millis,
        home: Home,
        trouble: Option<String>,
    ) -> ServedVo {
        let accepted = vo.and_then(|v| self.accepted(own, v)).cloned();
        let state = vo.map_or(AccountState::Ended, |v| self.account_state(own, v, now, home));
        let serving = state == AccountState::Active;
        let in_force = accepted.as_ref().map_or(0, |t| t.version);
        let offered = self.offers.get(&self.last).filter(|t| t.version > in_force).cloned();
        let share = vo.and_then(|v| v.shares.get(own));
        let answered = share.is_some_and(|s| s.last >= self.last && s.offered.is_none());
        let offered = offered.filter(|_| !answered);
        let why = || {
            if let Some(w) = &self.withdrawn {
                return Some(format!("this site withdrew the share: {}", w.reason));
            }
            if let Some(r) = &self.refused {
                return Some(r.clone());
            }
            if self.told < self.last {
                return Some(format!("site {} has not got the offer yet", self.vo.site()));
            }
            if home == Home::Forgotten {
                return Some(format!("site {} is trusted here no more", self.vo.site()));
            }
            if let Some(v) = vo.filter(|v| !v.active()) {
                return v.state.halted().map(|why| format!("{} {why}", v.id));
            }
            if matches!(home, Home::Lapsed | Home::Lost) && vo.is_some() {
                return Some(format!("site {} has not been heard for too long", self.vo.site()));
            }
            if offered.is_some() {
                return Some("the VO has not accepted the offer yet".to_owned());
            }
            let reason = share.and_then(|s| s.reason.clone());
            reason.map(|r| format!("the VO refused or ended the share: {r}"))
        };
        let trouble = trouble.or_else(|| if serving { None } else { why() });
        ServedVo {
            vo: self.vo.clone(),
            base: self.base,
            size: self.size,
            accepted,
            offered,
            serving,
            trouble,
        }
    }
}

/// Finds numbers for a new VO: `blocks` blocks that none of `taken` touches, or `chosen`.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] or [`xos_base::Kind::Conflict`] for a bad choice;
/// [`xos_base::Kind::Unsatisfiable`] when all are given away.
pub fn allocate(
    taken: impl Iterator<Item = Block>,
    blocks: u32,
    chosen: Option<u32>,
) -> Result<Block, Error> {
    let size = BLOCK.saturating_mul(blocks.clamp(1, UID_BLOCKS_MAX));
    let mut taken: Vec<Block> = taken.collect();
    taken.sort_by_key(|b| b.base);
    let end = |b: &Block| u64::from(b.base) + u64::from(b.size);
    // Whole blocks count: the registry guards them by index.
    let first = |n: u64| n / u64::from(BLOCK);
    let touches = |base: u32, b: &Block| {
        let last = u64::from(base) + u64::from(size) - 1;
        first(u64::from(base)) <= first(end(b) - 1) && first(u64::from(b.base)) <= first(last)
    };
    if let Some(base) = chosen {
        if base < BASE_MIN || u64::from(base) + u64::from(size) - 1 > u64::from(BASE_LAST) {
            return Err(Error::invalid(format!(
                "base {base} is not between {BASE_MIN} and {}",
                BASE_LAST - size + 1
            ))
            .hint("leave the base away to have one chosen"));
        }
        return match taken.iter().find(|b| touches(base, b)) {
            Some(b) => Err(Error::conflict(format!(
                "numbers from {base} on meet those of another VO, which begin at {}",
                b.base
            ))),
            None => Ok(Block { base, size }),
        };
    }
    let mut base = u64::from(BASE_MIN);
    for b in &taken {
        if base + u64::from(size) <= u64::from(b.base) / u64::from(BLOCK) * u64::from(BLOCK) {
            break;
        }
        base = base.max(end(b).div_ceil(u64::from(BLOCK)) * u64::from(BLOCK));
    }
    match u32::try_from(base) {
        Ok(base) if u64::from(base) + u64::from(size) - 1 <= u64::from(BASE_LAST) => {
            Ok(Block { base, size })
        }
        _ => Err(Error::unsatisfiable("this site has given all its uids to VOs")
            .hint("lower uid_blocks in the section [vom]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(base: u32, size: u32) -> Block {
        Block { base, size }
    }

    #[test]
    fn no_two_vos_meet() {
        // Two VOs with a common uid would read each other's files.
        let mut taken: Vec<Block> = Vec::new();
        for blocks in [1, 3, 16, 1, 2] {
            let b = allocate(taken.iter().copied(), blocks, None).unwrap();
            for t in &taken {
                assert!(b.base >= t.base + t.size || b.base + b.size <= t.base, "{b:?} {t:?}");
            }
            taken.push(b);
        }
        assert_eq!(taken[0].base, BASE_MIN);
        let e = allocate(taken.iter().copied(), 1, Some(BASE_MIN + 5)).unwrap_err();
        assert_eq!(e.kind, xos_base::Kind::Conflict);
    }

    #[test]
    fn a_gap_is_used_and_the_end_is_kept() {
        let taken = [block(BASE_MIN, BLOCK), block(BASE_MIN + 2 * BLOCK, BLOCK)];
        let b = allocate(taken.into_iter(), 1, None).unwrap();
        assert_eq!(b.base, BASE_MIN + BLOCK);
        let all = [block(BASE_MIN, BASE_LAST - BASE_MIN)];
        assert!(allocate(all.into_iter(), 1, None).is_err());
    }

    /// If it failed, members of a VO would be local users to PAM, whom it lets in unasked.
    #[test]
    fn chosen_bases_stay_within_the_numbers_of_the_grid() {
        let last = BASE_LAST - BLOCK + 1;
        for bad in [0, 1000, 65_534, 100_000, 200_000, BASE_MIN - 1, last + 1, BASE_LAST, u32::MAX]
        {
            let e = allocate([].into_iter(), 1, Some(bad)).unwrap_err();
            assert_eq!(e.kind, xos_base::Kind::Invalid, "{bad}");
        }
        for good in [BASE_MIN, 2_000_000_000, last] {
            assert_eq!(allocate([].into_iter(), 1, Some(good)).unwrap().base, good);
        }
        assert!(allocate([].into_iter(), 2, Some(last)).is_err(), "its second block is beyond");
        // Not aligned: the neighbour must keep off both blocks that it touches.
        let taken = [block(2_000_000_000, BLOCK)];
        for meets in [1_999_962_112, 1_999_962_112 + BLOCK] {
            assert!(allocate(taken.into_iter(), 1, Some(meets)).is_err(), "{meets}");
        }
    }
}
