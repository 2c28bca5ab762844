//! Whether a job's description can be run at all. Everything that the types do not rule out.

use crate::order;
use std::collections::HashSet;
use xos_api::aem::{
    AFTER_JOBS_MAX, AFTER_MAX, ARGS_MAX, ENV_MAX, JobSpec, NAME_MAX, PATH_MAX, RETRY_MAX,
    Resources, SITES_MAX, STAGES_MAX, STRING_MAX, STRINGS_MAX, Stage, TASKS_MAX, TaskSpec,
    UNITS_MAX,
};
use xos_base::{Error, text};

/// Least processors of a unit, thousandths: the kernel takes no smaller quota.
pub const CPU_MILLI_MIN: u32 = 10;
/// Most processors of a unit, thousandths.
pub const CPU_MILLI_MAX: u32 = 4_096_000;
/// Least memory of a unit, bytes.
pub const MEMORY_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// Most memory of a unit, bytes.
pub const MEMORY_BYTES_MAX: u64 = 1 << 50;
/// Longest wall time, seconds: ten years.
pub const WALL_TIME_S_MAX: u64 = 10 * 366 * 24 * 3600;
/// Longest description of a job as JSON, bytes: with what is added to it it is one record of the
/// journal.
const DESCRIPTION_MAX: usize = 3 * 1024 * 1024;
/// Most names that a message lists.
const NAMES_SHOWN: usize = 10;
/// Longest name of an architecture, bytes.
const ARCH_MAX: usize = 32;

/// Checks a job against every limit.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] or [`xos_base::Kind::TooLarge`]: which part is wrong, and what it
/// may be.
pub fn job(spec: &JobSpec) -> Result<(), Error> {
    name("the job's name", &spec.name)?;
    at_most("tasks", spec.tasks.len(), TASKS_MAX)?;
    if spec.tasks.is_empty() {
        return Err(Error::invalid("the job has no task").hint("give at least a program to run"));
    }
    at_most("jobs to wait for", spec.after_jobs.len(), AFTER_JOBS_MAX)?;
    at_most("sites", spec.sites.len(), SITES_MAX)?;
    let mut units = 0u32;
    let mut seen = HashSet::new();
    for t in &spec.tasks {
        task(t)?;
        if !seen.insert(t.name.as_str()) {
            return Err(Error::invalid(format!("two tasks are called {:?}", t.name)));
        }
        units = units.saturating_add(t.array.len());
    }
    if units > UNITS_MAX {
        return Err(Error::too_large(format!(
            "the job has {units} units, the most is {UNITS_MAX}"
        ))
        .hint("submit it in parts"));
    }
    let whole = serde_json::to_vec(spec)
        .map_err(|e| Error::internal(format!("cannot encode the job's description: {e}")))?;
    if whole.len() > DESCRIPTION_MAX {
        let bytes = whole.len();
        let text = format!("the description takes {bytes} bytes, the most is {DESCRIPTION_MAX}");
        return Err(Error::too_large(text).hint("submit it in parts, or pass less in arguments"));
    }
    order::check(&spec.tasks).map_err(|wrong| wrong.error)
}

/// Checks one task by itself.
///
/// # Errors
/// As [`job`].
pub fn task(t: &TaskSpec) -> Result<(), Error> {
    name("a task's name", &t.name)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !t.name.chars().all(plain) {
        return Err(Error::invalid(format!(
            "the task name {:?} has other characters than letters, digits, '-', '_' and '.'",
            shown(&t.name)
        )));
    }
    let what = |e: Error| Error { message: format!("task {}: {}", t.name, e.message), ..e };
    strings(t).map_err(what)?;
    resources(&t.resources).map_err(what)?;
    for (label, p) in [
        ("the working directory", &t.cwd),
        ("standard input", &t.stdin),
        ("standard output", &t.stdout),
        ("standard error", &t.stderr),
    ] {
        p.as_deref().map_or(Ok(()), |p| path(label, p)).map_err(what)?;
    }
    at_most("tasks to wait for", t.after.len(), AFTER_MAX).map_err(what)?;
    if t.retry > RETRY_MAX {
        return Err(what(Error::too_large(format!("retry is {}, at most {RETRY_MAX}", t.retry))));
    }
    for list in [&t.stage_in, &t.stage_out] {
        at_most("files to stage", list.len(), STAGES_MAX).map_err(what)?;
        list.iter().try_for_each(stage).map_err(what)?;
    }
    Ok(())
}

fn strings(t: &TaskSpec) -> Result<(), Error> {
    if t.argv.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("there is no program to run"));
    }
    at_most("arguments", t.argv.len(), ARGS_MAX)?;
    at_most("variables", t.env.len(), ENV_MAX)?;
    let mut sum = 0usize;
    for a in &t.argv {
        sum += a.len() + 1;
        string("an argument", a)?;
    }
    for (k, v) in &t.env {
        sum += k.len() + v.len() + 2;
        string("a variable's value", v)?;
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if k.is_empty() || !k.chars().all(word) || k.starts_with(|c: char| c.is_ascii_digit()) {
            let text = format!("{:?} is no name of a variable", shown(k));
            return Err(Error::invalid(text).hint("use letters, digits and '_'"));
        }
        if k.starts_with("XOS_") {
            return Err(Error::invalid(format!("{} is set by XOS itself", shown(k))));
        }
        at_most("bytes in a variable", k.len() + v.len() + 1, STRING_MAX)?;
    }
    at_most("bytes of arguments and variables", sum, STRINGS_MAX)
}

fn string(what: &str, s: &str) -> Result<(), Error> {
    if s.contains('\0') {
        return Err(Error::invalid(format!("{what} holds a NUL byte")));
    }
    at_most(&format!("bytes in {what}"), s.len(), STRING_MAX)
}

fn resources(r: &Resources) -> Result<(), Error> {
    let range = |what: &str, is: u64, min: u64, max: u64, unit: &str| {
        if (min..=max).contains(&is) {
            return Ok(());
        }
        Err(Error::invalid(format!("{what} is {is}{unit}; it goes from {min} to {max}")))
    };
    let (min, max) = (u64::from(CPU_MILLI_MIN), u64::from(CPU_MILLI_MAX));
    range("cpu_milli", r.cpu_milli.into(), min, max, " thousandths of a processor")?;
    range("memory_bytes", r.memory_bytes, MEMORY_BYTES_MIN, MEMORY_BYTES_MAX, " bytes")?;
    if let Some(s) = r.wall_time_s {
        range("wall_time_s", s, 1, WALL_TIME_S_MAX, " s")?;
    }
    if let Some(a) = &r.arch {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if a.is_empty() || a.len() > ARCH_MAX || !a.chars().all(word) {
            return Err(Error::invalid(format!("{:?} is no processor architecture", shown(a)))
                .hint("JSDL's names are x86_64, x86, arm, powerpc, …"));
        }
    }
    Ok(())
}

fn stage(s: &Stage) -> Result<(), Error> {
    inside("a staged file's name", &s.name)?;
    inside("a staged file's place on the volume", s.volume.trim_start_matches('/'))
}

/// A relative path that stays below where it starts.
fn inside(what: &str, p: &str) -> Result<(), Error> {
    path(what, p)?;
    if p.starts_with('/') || p.split('/').any(|part| part == ".." || part == ".") {
        return Err(Error::invalid(format!("{what}, {:?}, leaves its folder", shown(p)))
            .hint("give a relative path without '.' and '..'"));
    }
    Ok(())
}

fn path(what: &str, p: &str) -> Result<(), Error> {
    if p.is_empty() || p.chars().any(text::moves) {
        return Err(Error::invalid(format!(
            "{what}, {:?}, is empty or holds a control character",
            shown(p)
        )));
    }
    at_most(&format!("bytes in {what}"), p.len(), PATH_MAX)
}

fn name(what: &str, s: &str) -> Result<(), Error> {
    if s.is_empty() {
        return Err(Error::invalid(format!("{what} is empty")));
    }
    if s.chars().any(text::moves) {
        return Err(Error::invalid(format!("{what}, {:?}, holds a control character", shown(s)))
            .hint("line breaks and what turns the direction of writing are not allowed in names"));
    }
    if s.chars().any(text::hidden) {
        return Err(Error::invalid(format!("{what}, {:?}, holds what is not shown", shown(s)))
            .hint("names of jobs hold no characters without a width"));
    }
    at_most(&format!("bytes in {what}"), s.len(), NAME_MAX)
}

fn at_most(what: &str, is: usize, max: usize) -> Result<(), Error> {
    if is <= max {
        return Ok(());
    }
    Err(Error::too_large(format!("there are {is} {what}, the most is {max}")))
}

/// A text as it may stand in a message; `{:?}` escapes what is left.
pub(crate) fn shown(s: &str) -> String {
    s.chars().take(64).collect()
}

/// Names for a message: the first ones, and how many more there are.
pub(crate) fn few<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names = names.map(shown);
    let first: Vec<String> = names.by_ref().take(NAMES_SHOWN).collect();
    let text = first.join(", ");
    match names.count() {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use xos_base::Kind;

    fn with(f: impl FnOnce(&mut JobSpec)) -> Result<(), Error> {
        let mut s = testing::spec(&[("main", "0-3", &[])]);
        f(&mut s);
        job(&s)
    }

    fn message(f: impl FnOnce(&mut JobSpec)) -> String {
        with(f).unwrap_err().to_string()
    }

    #[test]
    fn a_plain_job_passes() {
        assert_eq!(with(|_| {}), Ok(()));
    }

    #[test]
    fn bad_names_are_refused_clearly() {
        // A line break in a name would let a job forge lines in lists and logs.
        let m = message(|s| s.name = "a\nb".into());
        assert!(m.contains(r#""a\nb""#) && m.contains("control character"), "{m}");
        // And what is shown in another order than it stands, or not at all, would forge names.
        for c in ['\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}'] {
            let m = message(|s| s.name = format!("a{c}b"));
            assert!(m.starts_with("the job's name") && !m.contains(c), "{m}");
        }
        assert!(with(|s| s.tasks[0].cwd = Some("a\u{202e}b".into())).is_err());
        assert_eq!(with(|s| s.name = "x".repeat(300)).unwrap_err().kind, Kind::TooLarge);
        assert!(with(|s| s.name.clear()).is_err());
        assert!(with(|s| s.tasks[0].name = "a/b".into()).is_err());
        assert!(with(|s| s.tasks[0].name = "a b".into()).is_err());
        assert!(with(|s| s.name = "ä b".into()).is_ok());
    }

    #[test]
    fn limits_hold() {
        assert!(with(|s| s.tasks.clear()).is_err());
        assert!(with(|s| s.tasks[0].argv.clear()).is_err());
        assert!(with(|s| s.tasks[0].argv.push("a\0b".into())).is_err());
        assert!(with(|s| s.tasks[0].argv = vec!["a".into(); ARGS_MAX + 1]).is_err());
        assert!(with(|s| s.tasks[0].argv.push("a".repeat(STRING_MAX + 1))).is_err());
        assert!(with(|s| s.tasks[0].argv = vec!["a".repeat(100_000); 6]).is_err());
        assert!(with(|s| s.tasks[0].resources.memory_bytes = 0).is_err());
        assert!(with(|s| s.tasks[0].resources.cpu_milli = 0).is_err());
        assert!(with(|s| s.tasks[0].retry = RETRY_MAX + 1).is_err());
        let big = |s: &mut JobSpec| {
            s.tasks[0].array = "0-99999".parse().unwrap();
            let mut other = s.tasks[0].clone();
            other.name = "other".into();
            s.tasks.push(other);
        };
        assert_eq!(with(big).unwrap_err().kind, Kind::TooLarge);
    }

    #[test]
    fn variables_of_xos_and_bad_names_are_refused() {
        for k in ["XOS_VO", "A=B", "", "1A", "A B"] {
            let r = with(|s| {
                s.tasks[0].env.insert(k.into(), "1".into());
            });
            assert!(r.is_err(), "{k:?} was taken");
        }
    }

    #[test]
    fn staged_files_stay_in_their_folders() {
        for (name, volume) in [("../x", "a"), ("a", "b/../../c"), ("/etc/x", "a"), ("a", "")] {
            let r = with(|s| {
                let (name, volume) = (name.to_owned(), volume.to_owned());
                s.tasks[0].stage_in.push(Stage { name, volume, ..Stage::default() });
            });
            assert!(r.is_err(), "{name:?} from {volume:?} was taken");
        }
    }

    #[test]
    fn dependencies_are_known_and_go_one_way() {
        let m = message(|s| s.tasks[0].after.push("other".into()));
        assert!(m.contains("waits for \"other\", which is no task"), "{m}");
        let s = testing::spec(&[("a", "0", &["c"]), ("b", "0", &["a"]), ("c", "0", &["b"])]);
        assert!(job(&s).unwrap_err().message.contains("for itself"));
        let s = testing::spec(&[("a", "0", &[]), ("b", "0", &["a"]), ("c", "0", &["a", "b"])]);
        assert_eq!(job(&s), Ok(()));
        let s = testing::spec(&[("a", "0", &[]), ("a", "0", &[])]);
        assert!(job(&s).is_err());
    }
}
