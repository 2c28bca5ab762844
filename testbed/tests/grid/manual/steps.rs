//! What can be said of a block of a document: where it is typed, and what must come of it.

use super::Hour;

/// Where a block is typed.
#[derive(Clone, Copy)]
pub struct Place {
    /// The machine.
    pub host: &'static str,
    /// The account; root without one.
    pub user: Option<&'static str>,
    /// The folder.
    pub cwd: &'static str,
    /// The site whose administrator reads the text as if it spoke of theirs.
    pub site: &'static str,
}

/// The site of the text.
pub const RENNES: &str = "rennes";

impl Place {
    pub const fn root(host: &'static str, site: &'static str, cwd: &'static str) -> Place {
        Place { host, user: None, cwd, site }
    }

    /// A text as it is read here.
    pub fn read(&self, text: &str) -> String {
        text.replace(RENNES, self.site)
    }
}

/// The folder that site administrators type in.
pub const FILES: &str = "/root/xos-files";
/// The machine from which people work.
pub const LAPTOP: Place = Place::root("laptop", RENNES, FILES);
pub const ALICE: Place = Place { user: Some("alice"), cwd: "/home/alice", ..LAPTOP };

/// A block, known by its heading and its first line.
#[derive(Clone, Copy)]
pub struct Step {
    pub heading: &'static str,
    pub first: &'static str,
    pub at: &'static [Place],
    pub how: How,
    /// What people do before, which no block says.
    pub before: Option<fn(&mut Hour)>,
}

/// What is done with a block.
#[derive(Clone, Copy)]
pub enum How {
    /// Each line is typed; these say more about some of them.
    Typed(&'static [Line]),
    /// As above once all else is done, and why.
    TypedLast(&'static [Line], &'static str),
    /// Its lines come to the end of `/etc/xos/xosd.toml`.
    Added,
    /// The same in a copy, which `xosd check` finds right; why no more is done.
    Checked(&'static str),
    /// Its lines take the place of those of the same database in `/etc/nsswitch.conf`.
    Switch,
    /// Its lines come to the end of a copy of sshd's configuration, which sshd finds right; why no
    /// more is done.
    CheckedBySshd(&'static str),
    /// Another test tries it, and why not this one.
    Elsewhere(&'static str),
}

/// A line of which more is known than that it ends with status 0.
#[derive(Clone, Copy)]
pub struct Line {
    /// What tells it from the block's other lines.
    pub holds: &'static str,
    /// Prompts, and what is typed then.
    pub answers: &'static [(&'static str, &'static str)],
    /// What is typed in place of what the text shows, and why.
    pub reads: &'static [(&'static str, &'static str, &'static str)],
    /// What is shown then.
    pub says: &'static [&'static str],
    /// How it ends.
    pub code: i32,
    /// A name for a word that it shows, and how that begins or, with a space, what stands before.
    pub keeps: Option<(&'static str, &'static str)>,
    /// The text says that it takes a moment: it is typed until it comes out so.
    pub until: bool,
}

impl Line {
    /// A line of which nothing more is known.
    pub const PLAIN: Line =
        Line { holds: "", answers: &[], reads: &[], says: &[], code: 0, keeps: None, until: false };

    pub const fn of(holds: &'static str) -> Line {
        Line { holds, ..Line::PLAIN }
    }

    pub const fn answers(self, answers: &'static [(&'static str, &'static str)]) -> Line {
        Line { answers, ..self }
    }

    pub const fn reads(self, reads: &'static [(&'static str, &'static str, &'static str)]) -> Line {
        Line { reads, ..self }
    }

    pub const fn says(self, says: &'static [&'static str]) -> Line {
        Line { says, ..self }
    }

    pub const fn code(self, code: i32) -> Line {
        Line { code, ..self }
    }

    pub const fn keeps(self, name: &'static str, begins: &'static str) -> Line {
        Line { keeps: Some((name, begins)), ..self }
    }

    pub const fn until(self) -> Line {
        Line { until: true, ..self }
    }
}

/// A block of which is known what is done with it.
pub const fn step(
    heading: &'static str,
    first: &'static str,
    at: &'static [Place],
    how: How,
) -> Step {
    Step { heading, first, at, how, before: None }
}

impl Step {
    pub const fn before(self, before: fn(&mut Hour)) -> Step {
        Step { before: Some(before), ..self }
    }
}

pub const PASSWORD: &str = "correct horse battery";
pub const FIRST: &str = "a first one to be changed";
pub const AGAIN: &str = "The same again: ";
pub const YES: &[(&str, &str)] = &[("[y/N] ", "y")];
pub const OWN_PRINT: (&str, &str, &str) =
    ("sha256:...", "{fingerprint of rennes}", "each root has its own fingerprint");
