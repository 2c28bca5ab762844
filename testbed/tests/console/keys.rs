//! Whoever has no mouse gets everywhere, and sees where they are.

use crate::browser::Page;
use serde_json::json;

/// Most presses on one page.
const PRESSES_MAX: u64 = 400;
/// After so many presses it is looked whether everything was reached.
const LOOK_AFTER: u64 = 8;

/// Lists what can be acted on, and notes what the focus comes to; of boxes of which one can be
/// chosen, the keys lead to one. Its result is how many there are.
const WATCH: &str = "(() => {
    const all = 'a[href], button, input:not([type=hidden]), select, textarea, summary,'
        + ' [tabindex=\"0\"]';
    const usable = (e) => !e.disabled && e.ariaHidden !== 'true' && e.checkVisibility({ visibilityProperty: true });
    const wanted = new Set([...document.querySelectorAll(all)].filter(usable));
    const alike = (a, b) => a === b || (a.type === 'radio' && b.type === 'radio'
        && a.name === b.name && a.form === b.form);
    const unseen = new Set();
    document.addEventListener('focusin', ({ target }) => {
        for (const one of wanted) if (alike(one, target)) wanted.delete(one);
        const style = getComputedStyle(target);
        const marked = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
        if (!marked && target.id !== 'main') unseen.add(target);
    });
    window.xosKeys = { wanted, unseen };
    return wanted.size;
})()";

/// What no key leads to, and what has the focus without a sign of it.
const LEFT: &str = "(() => {
    const list = (what, set) => [...set].map((e) => what + ': ' + e.outerHTML.slice(0, 160));
    return [...list('no key leads to it', xosKeys.wanted),
        ...list('nobody sees that it has the focus', xosKeys.unseen)];
})()";

/// Goes through the page, just opened, from its beginning to its end; what is wrong with it.
pub fn walk(page: &Page) -> Vec<String> {
    page.in_front();
    let count = page.eval(WATCH).as_u64().expect("a number");
    // A date's field takes several.
    for pressed in 1..=(3 * count + LOOK_AFTER).min(PRESSES_MAX) {
        page.press("Tab");
        if pressed % LOOK_AFTER == 0 && page.eval("xosKeys.wanted.size") == json!(0) {
            break;
        }
    }
    let left = page.eval(LEFT);
    let left = left.as_array().expect("a list").iter();
    left.map(|l| l.as_str().unwrap_or_default().to_owned()).collect()
}
