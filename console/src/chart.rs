//! Bar charts, drawn by the server as SVG: without a script, and with the numbers in a table
//! beside them.

/// The drawing's width, in its own units.
const WIDTH: u64 = 340;
/// The height of a bar with its label.
const ROW: u32 = 34;
/// Most bars of one chart.
const BARS_MAX: usize = 20;
/// Longest label, in characters.
const LABEL_MAX: usize = 34;

/// What a bar stands for.
pub(crate) struct Part {
    pub(crate) label: String,
    /// The value in words.
    pub(crate) text: String,
    pub(crate) value: u64,
    /// What the value is a part of: drawn behind it.
    pub(crate) of: Option<u64>,
}

/// A chart, ready to be drawn by `chart.html`.
pub(crate) struct Chart {
    /// Names its elements in the page.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// The same in words, for who does not see it.
    pub(crate) desc: String,
    pub(crate) height: u32,
    pub(crate) bars: Vec<Bar>,
}

/// A bar with its place.
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) text: String,
    pub(crate) text_y: u32,
    pub(crate) bar_y: u32,
    pub(crate) width: u64,
    pub(crate) of_width: u64,
}

impl Chart {
    /// A chart of the first [`BARS_MAX`] parts, the longest bar as wide as the drawing.
    pub(crate) fn new(id: &'static str, title: &'static str, parts: Vec<Part>) -> Chart {
        let longest = parts.iter().map(|p| p.value.max(p.of.unwrap_or(0))).max().unwrap_or(0);
        let said: Vec<String> =
            parts.iter().take(BARS_MAX).map(|p| format!("{}: {}", p.label, p.text)).collect();
        let rest = if parts.len() > BARS_MAX { "; the table has the others" } else { "" };
        let desc = format!("{}{rest}.", said.join("; "));
        let bar = |(row, p): (u32, Part)| Bar {
            label: cut(&p.label),
            text: p.text,
            text_y: row * ROW + 12,
            bar_y: row * ROW + 17,
            width: width(p.value, longest),
            of_width: width(p.of.unwrap_or(0), longest),
        };
        let bars: Vec<Bar> = (0..).zip(parts.into_iter().take(BARS_MAX)).map(bar).collect();
        let height = u32::try_from(bars.len()).unwrap_or(0) * ROW;
        Chart { id, title, desc, height, bars }
    }
}

/// As wide as `value` is of `longest`; what is not nothing is seen.
fn width(value: u64, longest: u64) -> u64 {
    if value == 0 || longest == 0 {
        return 0;
    }
    let wide = u128::from(value) * u128::from(WIDTH) / u128::from(longest);
    u64::try_from(wide).unwrap_or(WIDTH).clamp(1, WIDTH)
}

fn cut(label: &str) -> String {
    if label.chars().count() <= LABEL_MAX {
        return label.to_owned();
    }
    let mut short: String = label.chars().take(LABEL_MAX - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(label: &str, value: u64, of: Option<u64>) -> Part {
        Part { label: label.into(), text: value.to_string(), value, of }
    }

    /// If it failed, a bar would leave the drawing, or a little would look like nothing.
    #[test]
    fn bars_stay_within_the_drawing() {
        let parts = vec![
            part("pisa", 1, Some(u64::MAX)),
            part("rennes", u64::MAX, None),
            part(&"x".repeat(80), 0, Some(0)),
        ];
        let chart = Chart::new("load", "Load", parts);
        let widths: Vec<_> = chart.bars.iter().map(|b| (b.width, b.of_width)).collect();
        assert_eq!(widths, [(1, WIDTH), (WIDTH, 0), (0, 0)]);
        assert_eq!(chart.bars[2].label.chars().count(), LABEL_MAX);
        assert!(chart.bars[2].bar_y + 10 <= chart.height);
        assert!(chart.desc.starts_with("pisa: 1; rennes: "), "{}", chart.desc);
    }

    #[test]
    fn of_many_parts_the_first_are_drawn() {
        let many = (0..30).map(|i| part(&i.to_string(), i, None)).collect();
        let chart = Chart::new("load", "Load", many);
        assert_eq!(chart.bars.len(), BARS_MAX);
        assert!(chart.desc.ends_with("the table has the others."), "{}", chart.desc);
        assert!(Chart::new("load", "Load", Vec::new()).bars.is_empty());
    }
}
