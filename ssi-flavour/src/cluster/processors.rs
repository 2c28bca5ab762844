//! What the processors of nodes can, in words: which of them a program would miss elsewhere.

use std::collections::BTreeSet;

/// So many words are told; of more their number.
const TOLD_MAX: usize = 6;

/// How the second of two processors differs from the first, for people; empty: by no word.
pub fn differ(first: &str, second: &str) -> String {
    let set = |words: &str| -> BTreeSet<String> {
        words.split_whitespace().map(|word| word.replace(char::is_control, "?")).collect()
    };
    let (first, second) = (set(first), set(second));
    let lacks = list(first.difference(&second));
    let has = list(second.difference(&first));
    match (lacks.as_str(), has.as_str()) {
        ("", "") => String::new(),
        (lacks, "") => format!("without {lacks}"),
        ("", has) => format!("with {has}"),
        (lacks, has) => format!("without {lacks}, with {has}"),
    }
}

fn list<'a>(words: impl Iterator<Item = &'a String>) -> String {
    let words: Vec<&str> = words.map(String::as_str).collect();
    let told = words.iter().take(TOLD_MAX).copied().collect::<Vec<_>>().join(", ");
    match words.len().saturating_sub(TOLD_MAX) {
        0 => told,
        more => format!("{told} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, nobody would know which instruction keeps programs from a node, or a node
    /// could fill terminals.
    #[test]
    fn what_differs_is_named_and_cut() {
        assert_eq!(differ("fpu sse2 avx", "avx fpu sse2"), "");
        assert_eq!(differ("fpu sse2 avx", "fpu sse2"), "without avx");
        let other = differ("fpu xsave-7-832", "fpu pku xsave-e7-2696");
        assert_eq!(other, "without xsave-7-832, with pku, xsave-e7-2696");
        let many: Vec<String> = (0..20).map(|n| format!("w{n:02}")).collect();
        assert_eq!(differ("", &many.join(" ")), "with w00, w01, w02, w03, w04, w05 and 14 more");
        assert_eq!(differ("", "a\u{1b}[2J"), "with a?[2J");
    }
}
