//! What the tool prints: tables for people, JSON for programs, notes and questions aside on
//! standard error.

use comfy_table::{Table as Layout, presets};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use xos_base::text::hidden;
use xos_base::{Error, Millis};

/// How a command ended: the exit code, or why it failed.
pub type Outcome = Result<u8, Failure>;

/// Why a command ends early.
#[derive(Debug)]
pub enum Failure {
    /// Something went wrong; the person is told.
    Error(Error),
    /// The person was asked and did not say yes; what therefore did not happen.
    Declined(String),
    /// Whoever read the output has gone (`xos … | head`): nothing is left to say.
    Closed,
}

/// The exit status when the reader of the output has gone: as a shell shows SIGPIPE.
pub const CLOSED_STATUS: u8 = 141;

/// The exit status when the person answered no: nothing is wrong with the command.
pub const DECLINED_STATUS: u8 = 1;

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        Failure::Error(e)
    }
}

impl From<xos_base::ids::IdError> for Failure {
    fn from(e: xos_base::ids::IdError) -> Failure {
        Failure::Error(e.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Failure {
        if e.kind() == std::io::ErrorKind::BrokenPipe {
            return Failure::Closed;
        }
        Failure::Error(Error::unavailable(format!("cannot write the output: {e}")))
    }
}

/// Where output goes, and in which form.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    /// Replies as JSON, one text a line.
    pub json: bool,
    colour: bool,
    err_colour: bool,
    err_terminal: bool,
}

impl Out {
    /// Output to this process's standard streams; `plain` when NO_COLOR asks for no colours.
    pub fn new(json: bool, plain: bool) -> Out {
        let err_terminal = std::io::stderr().is_terminal();
        Out {
            json,
            colour: !plain && !json && std::io::stdout().is_terminal(),
            err_colour: !plain && err_terminal,
            err_terminal,
        }
    }

    /// Whether a progress bar makes sense.
    pub fn progress(&self) -> bool {
        self.err_terminal && !self.json
    }

    /// Prints `value` as JSON, or the text that `text` makes for people.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn show<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json { self.value(value) } else { self.text(&text()) }
    }

    /// Prints `value` as one line of JSON.
    ///
    /// # Errors
    /// As [`Out::show`].
    pub fn value<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(value)
            .map_err(|e| Error::internal(format!("cannot write JSON: {e}")))?;
        line.push(b'\n');
        self.bytes(&line)
    }

    /// Prints text, with a line end behind it when it has none.
    ///
    /// # Errors
    /// As [`Out::show`].
    pub fn text(&self, text: &str) -> Result<(), Failure> {
        let mut painted = paint(text, self.colour);
        if !painted.is_empty() && !painted.ends_with('\n') {
            painted.push('\n');
        }
        self.bytes(painted.as_bytes())
    }

    /// Prints bytes as they are.
    ///
    /// # Errors
    /// As [`Out::show`].
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()?;
        Ok(())
    }

    /// Prints bytes as they are on standard error: what a job wrote there.
    ///
    /// # Errors
    /// As [`Out::show`].
    pub fn error_bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = std::io::stderr().lock();
        out.write_all(bytes)?;
        out.flush()?;
        Ok(())
    }

    /// Says something aside, on standard error; not to programs.
    ///
    /// # Errors
    /// As [`Out::show`].
    pub fn note(&self, text: &str) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        self.error_bytes(format!("{}\n", paint(text, self.err_colour)).as_bytes())
    }

    /// Says on standard error that something did not go as it should.
    ///
    /// # Errors
    /// As [`Out::show`].
    pub fn warn(&self, e: &Error) -> Result<(), Failure> {
        self.report("warning", Style::Busy, e)
    }

    /// Says on standard error why the command failed.
    ///
    /// # Errors
    /// As [`Out::show`].
    pub fn fail(&self, e: &Error) -> Result<(), Failure> {
        self.report("xos", Style::Bad, e)
    }

    fn report(&self, who: &str, style: Style, e: &Error) -> Result<(), Failure> {
        let text = if self.json {
            let key = if style == Style::Bad { "error" } else { "warning" };
            serde_json::json!({ key: e }).to_string()
        } else {
            let mut text = format!("{}: {}", style.mark(who), clean(&e.message));
            if let Some(hint) = &e.hint {
                text.push_str(&format!("\n{:1$}{2}", "", who.len() + 2, clean(hint)));
            }
            paint(&text, self.err_colour)
        };
        self.error_bytes(format!("{text}\n").as_bytes())
    }
}

/// A colour with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As it should be.
    Good,
    /// Went wrong.
    Bad,
    /// Under way, or worth a look.
    Busy,
    /// A heading.
    Head,
}

/// Marks of no width in laid-out text, which become colours at last: texts from outside hold
/// none of them after [`clean`].
const MARKS: [(Style, char, &str); 4] = [
    (Style::Good, '\u{2061}', "\x1b[32m"),
    (Style::Bad, '\u{2062}', "\x1b[31m"),
    (Style::Busy, '\u{2063}', "\x1b[33m"),
    (Style::Head, '\u{2064}', "\x1b[1m"),
];
const MARK_END: char = '\u{2060}';

impl Style {
    /// `text` in this style.
    pub fn mark(self, text: &str) -> String {
        let mark = MARKS.iter().find(|m| m.0 == self).map_or(MARK_END, |m| m.1);
        format!("{mark}{text}{MARK_END}")
    }
}

fn paint(text: &str, colour: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let code = match c {
            MARK_END => "\x1b[0m",
            c => match MARKS.iter().find(|m| m.1 == c) {
                Some(mark) => mark.2,
                None => {
                    out.push(c);
                    continue;
                }
            },
        };
        if colour {
            out.push_str(code);
        }
    }
    out
}

/// A text from outside as it may stand on a terminal: without what moves the cursor, colours, or
/// turns the direction of writing.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if hidden(c) { '?' } else { c }).collect()
}

/// As [`clean`], keeping line ends.
pub fn clean_lines(text: &str) -> String {
    text.chars().map(|c| if c != '\n' && hidden(c) { '?' } else { c }).collect()
}

/// A table: columns aligned, no lines drawn, the header in capitals.
#[derive(Debug)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(head: &[&'static str]) -> Table {
        Table { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Texts from outside must have gone through [`clean`]; an empty one shows as `-`.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        let dash = |c: String| if c.is_empty() { "-".to_owned() } else { c };
        self.rows.push(cells.into_iter().map(dash).collect());
    }

    /// The table as text; `none` when it has no rows.
    pub fn text(&self, none: &str) -> String {
        if self.rows.is_empty() {
            return none.to_owned();
        }
        let mut layout = Layout::new();
        layout.load_style(presets::NOTHING);
        layout.set_header(self.head.iter().map(|h| Style::Head.mark(h)));
        for row in &self.rows {
            layout.add_row(row);
        }
        for column in layout.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let trimmed: Vec<String> = layout.lines().map(|l| l.trim_end().to_owned()).collect();
        trimmed.join("\n")
    }
}

/// Labels and values below one another; pairs without a value are left out.
pub fn fields(pairs: &[(&str, String)]) -> String {
    let pairs: Vec<_> = pairs.iter().filter(|(_, v)| !v.is_empty()).collect();
    let width = pairs.iter().map(|(k, _)| k.chars().count()).max().unwrap_or(0);
    let indent = format!("\n{:1$}", "", width + 3);
    let line = |(k, v): &&(&str, String)| {
        let gap = " ".repeat(width - k.chars().count());
        format!("{k}:{gap}  {}", v.replace('\n', &indent))
    };
    pairs.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// How many there are: `1 name`, `2 names`.
pub fn count(n: usize, one: &str, more: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { more })
}

/// A list in one cell.
pub fn list<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|i| i.to_string()).collect::<Vec<_>>().join(", ")
}

/// Within so many seconds, times are told by their distance.
const NEAR_S: u64 = 48 * 3600;

/// A point in time as people say it: near ones by distance, others by date (UTC).
pub fn when(t: Millis, now: Millis) -> String {
    let (distance, ahead) = if t > now { (t.since(now), true) } else { (now.since(t), false) };
    let s = distance.as_secs();
    if s >= NEAR_S {
        return date(t);
    }
    let text = span(s);
    if ahead { format!("in {text}") } else { format!("{text} ago") }
}

/// How long something holds that ends at `t`, as a sentence goes on: `for 14 min`, or `until` a
/// date where that is far away or past.
pub fn holds(t: Millis, now: Millis) -> String {
    match t.since(now).as_secs() {
        s @ 1..NEAR_S => format!("for {}", span(s)),
        _ => format!("until {}", date(t)),
    }
}

fn date(t: Millis) -> String {
    t.to_string().chars().take(16).collect::<String>().replace('T', " ")
}

/// A length of time, in its largest units.
pub fn span(s: u64) -> String {
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min", s / 60),
        _ if s < 48 * 3600 && s % 3600 >= 60 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ if s < 48 * 3600 => format!("{} h", s / 3600),
        _ => format!("{} days", s / 86400),
    }
}

/// Bytes in the unit that gives one to four digits.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    let mut unit = "";
    let mut tenths = u128::from(bytes) * 10;
    for next in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = next;
    }
    if unit.is_empty() || tenths % 10 == 0 || tenths >= 1000 {
        format!("{}{unit}", tenths / 10)
    } else {
        format!("{}.{}{unit}", tenths / 10, tenths % 10)
    }
}

/// Thousandths of a processor as a number of processors.
pub fn cpus(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::golden;

    #[test]
    fn a_table_is_aligned_and_plain() {
        let mut t = Table::new(&["VO", "ROLES", "UNTIL"]);
        t.row(["demo.rennes".into(), Style::Good.mark("owner"), String::new()]);
        t.row(["x.pisa".into(), clean("evil\x1b[2J\u{202e}"), "in 3 h".into()]);
        golden::check("table.txt", &(paint(&t.text(""), false) + "\n"));
        assert!(paint(&t.text(""), true).contains("\x1b[32mowner\x1b[0m"));
        assert_eq!(Table::new(&["VO"]).text("none yet"), "none yet");
    }

    #[test]
    fn fields_stand_below_one_another() {
        let text = fields(&[
            ("job", "12.rennes".into()),
            ("empty", String::new()),
            ("description", "two\nlines".into()),
        ]);
        assert_eq!(text, "job:          12.rennes\ndescription:  two\n              lines");
    }

    #[test]
    fn numbers_read_as_people_write_them() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1K"),
            (1536, "1.5K"),
            (2 << 30, "2G"),
            (268_435_456, "256M"),
            (u64::MAX, "15.9E"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!((cpus(1000), cpus(1500), cpus(20)), ("1".into(), "1.5".into(), "0.02".into()));
        let now = Millis::from_secs(1_000_000);
        assert_eq!(when(Millis::from_secs(1_000_000 + 5400), now), "in 1 h 30 min");
        assert_eq!(when(Millis::from_secs(999_999), now), "1 s ago");
        assert_eq!(holds(Millis::from_secs(1_000_000 + 5400), now), "for 1 h 30 min");
        assert_eq!(holds(Millis::from_secs(2_000_000), now), "until 1970-01-24 03:33");
        assert_eq!(holds(Millis::from_secs(0), now), "until 1970-01-01 00:00");
        assert_eq!(when(Millis::from_secs(0), now), "1970-01-01 00:00");
    }
}
