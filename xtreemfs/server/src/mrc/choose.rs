//! Which OSDs a new file is striped over.

/// An OSD that serves a volume, as the embedding knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsdStatus {
    /// OSD id.
    pub id: String,
    /// Its site; empty if it has none.
    pub site: String,
    /// Free space, in bytes.
    pub free_bytes: u64,
    /// Space, in bytes.
    pub total_bytes: u64,
}

/// An OSD with less free space than this gets no new files, in bytes.
pub const FREE_BYTES_MIN: u64 = 64 << 20;

/// Picks up to `width` different OSDs, each with a chance in proportion to its free space; `seed`
/// decides. Empty if none has room.
pub fn choose(osds: &[OsdStatus], allowed: &[String], width: usize, seed: u64) -> Vec<String> {
    let serves = |osd: &&OsdStatus| allowed.is_empty() || allowed.contains(&osd.id);
    let roomy = |osd: &&OsdStatus| osd.free_bytes >= FREE_BYTES_MIN;
    let mut left: Vec<&OsdStatus> = osds.iter().filter(serves).filter(roomy).collect();
    left.sort_by(|a, b| a.id.cmp(&b.id));
    left.dedup_by(|a, b| a.id == b.id);
    let mut chosen = Vec::new();
    let mut state = seed;
    while chosen.len() < width && !left.is_empty() {
        let total: u128 = left.iter().map(|osd| u128::from(osd.free_bytes)).sum();
        let mut place = u128::from(next(&mut state)) % total;
        let index = left.iter().position(|osd| {
            let free = u128::from(osd.free_bytes);
            let here = place < free;
            place = place.saturating_sub(free);
            here
        });
        chosen.push(left.swap_remove(index.unwrap_or(0)).id.clone());
    }
    chosen
}

/// SplitMix64 (Steele, Lea, Flood 2014): spreads consecutive seeds evenly.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn osd(id: &str, free_gib: u64) -> OsdStatus {
        let (site, total_bytes) = (String::new(), 100 << 30);
        OsdStatus { id: id.into(), site, free_bytes: free_gib << 30, total_bytes }
    }

    /// New files must go where there is room, in proportion, never twice to the same OSD, and
    /// never to a full one.
    #[test]
    fn by_free_space() {
        let osds = [osd("a", 10), osd("b", 30), osd("full", 0), osd("b", 30)];
        let first = |seed| choose(&osds, &[], 1, seed)[0].clone();
        let b = (0..4000).filter(|&seed| first(seed) == "b").count();
        assert!((2800..3200).contains(&b), "{b} of 4000, expected about 3000");
        let mut both = choose(&osds, &[], 5, 7);
        both.sort();
        assert_eq!(both, ["a", "b"]);
        assert_eq!(choose(&osds, &["a".into()], 5, 7), ["a"]);
        assert!(choose(&[osd("full", 0)], &[], 1, 1).is_empty());
    }
}
