//! Jobs described in files: TOML, JSON, or JSDL.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use xos_aem::order::{self, Wrong};
use xos_api::aem::{JobSpec, TaskSpec};
use xos_base::config::place;
use xos_base::{Error, JobId, SiteId, VoId};

/// Longest job file, in bytes.
pub const JOB_FILE_MAX: u64 = 8 * 1024 * 1024;

/// A job as a file describes it: as it is submitted, but VO and name may come from elsewhere.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFile {
    /// The VO; absent: that of the command line.
    #[serde(default)]
    pub vo: Option<VoId>,
    /// What lists show; absent: the file's name.
    #[serde(default)]
    pub name: Option<String>,
    /// Jobs that must have succeeded before.
    #[serde(default)]
    pub after_jobs: Vec<JobId>,
    /// The sites that may run it.
    #[serde(default)]
    pub sites: Vec<SiteId>,
    /// What to run.
    pub tasks: Vec<TaskSpec>,
}

/// Reads the job file at `path`; what kind it is, its name says. A file that names no VO is for
/// `vo`, when that is known already.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] with `path:line:column` and what is wrong there.
pub fn read(path: &Path, vo: Option<&VoId>) -> Result<JobFile, Error> {
    let shown = path.display().to_string();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|f| f.take(JOB_FILE_MAX + 1).read_to_end(&mut bytes));
    let unread = |e: &dyn Display| Error::invalid(format!("cannot read the job file {shown}: {e}"));
    read.map_err(|e| unread(&e))?;
    // Looked at first: a text that is cut off may end within a character.
    if bytes.len() as u64 > JOB_FILE_MAX {
        return Err(Error::too_large(format!("{shown} is over {JOB_FILE_MAX} bytes")).hint(
            "put data on the VO's volume and name its path, or submit the job in parts (`--after`)",
        ));
    }
    let text = String::from_utf8(bytes).map_err(|e| unread(&e.utf8_error()))?;
    let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let mut job = parse(&kind.to_ascii_lowercase(), &shown, &text, vo)?;
    if job.name.is_none() {
        job.name = path.file_stem().map(|n| n.to_string_lossy().into_owned());
    }
    Ok(job)
}

fn parse(kind: &str, path: &str, text: &str, vo: Option<&VoId>) -> Result<JobFile, Error> {
    let job = described(kind, path, text, vo)?;
    // The core looks too, but does not know the file.
    if let Some(second) = twice(&job.tasks) {
        let place = shown(path, text, name_of(kind, text, second));
        let name = job.tasks.get(second).map_or("", |t| t.name.as_str());
        return Err(Error::invalid(format!("{place}: another task is called {name:?} already"))
            .hint("give each task of a job its own name"));
    }
    order::check(&job.tasks).map_err(|wrong| {
        let place = shown(path, text, place_of(kind, text, &wrong));
        Error { message: format!("{place}: {}", wrong.error.message), ..wrong.error }
    })?;
    Ok(job)
}

/// A place in a file, where it is known, as `path:line:column`.
fn shown(path: &str, text: &str, at: Option<usize>) -> String {
    match at.map(|at| place(text, at)) {
        Some((line, column)) => format!("{path}:{line}:{column}"),
        None => path.to_owned(),
    }
}

/// The first task that has the name of one before it.
fn twice(tasks: &[TaskSpec]) -> Option<usize> {
    let mut seen = HashSet::new();
    tasks.iter().position(|t| !seen.insert(t.name.as_str()))
}

/// Where a task's name stands in a file: only what is needed to find it.
#[derive(Deserialize)]
struct Names<T> {
    tasks: Vec<Named<T>>,
}

#[derive(Deserialize)]
struct Named<T> {
    name: T,
}

impl<T> Names<T> {
    fn of(self, task: usize) -> Option<T> {
        self.tasks.into_iter().nth(task).map(|t| t.name)
    }
}

/// Where the name of a task begins, in bytes; JSDL is read without places of names.
fn name_of(kind: &str, text: &str, task: usize) -> Option<usize> {
    match kind {
        "toml" => {
            let names: Names<toml::Spanned<String>> = toml::from_str(text).ok()?;
            Some(names.of(task)?.span().start)
        }
        "json" => {
            let names: Names<&RawValue> = serde_json::from_str(text).ok()?;
            behind(text, names.of(task)?.get())
        }
        _ => None,
    }
}

/// How far a part that borrows from a text stands behind its start.
fn behind(text: &str, part: &str) -> Option<usize> {
    (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize)
}

/// Where a task's `after` stands in a file: only what is needed to find a name of it.
#[derive(Deserialize)]
struct Places<T> {
    tasks: Vec<After<T>>,
}

#[derive(Deserialize)]
struct After<T> {
    #[serde(default = "Vec::new")]
    after: Vec<T>,
}

impl<T> Places<T> {
    fn of(self, wrong: &Wrong) -> Option<T> {
        self.tasks.into_iter().nth(wrong.task)?.after.into_iter().nth(wrong.after)
    }
}

/// Where a name begins that is wrongly waited for, in bytes; JSDL is read without places of names.
fn place_of(kind: &str, text: &str, wrong: &Wrong) -> Option<usize> {
    match kind {
        "toml" => {
            let places: Places<toml::Spanned<String>> = toml::from_str(text).ok()?;
            Some(places.of(wrong)?.span().start)
        }
        "json" => {
            let places: Places<&RawValue> = serde_json::from_str(text).ok()?;
            behind(text, places.of(wrong)?.get())
        }
        _ => None,
    }
}

fn described(kind: &str, path: &str, text: &str, vo: Option<&VoId>) -> Result<JobFile, Error> {
    match kind {
        "toml" => xos_base::config::parse(path, text)
            .map_err(|e| Error::invalid(e.message).hint("docs/user.md shows job files")),
        "json" => serde_json::from_str(text).map_err(|e| {
            let message = e.to_string();
            let what = message.split(" at line ").next().unwrap_or_default();
            Error::invalid(format!("{path}:{}:{}: {what}", e.line(), e.column()))
                .hint("docs/user.md shows job files")
        }),
        "jsdl" | "xml" => jsdl(path, text, vo),
        _ => Err(Error::invalid(format!("{path} is no job file: its name tells no known kind"))
            .hint("name it .toml, .json, or .jsdl for a JSDL document")),
    }
}

/// A JSDL document names its VO in an element of ours, which others' documents lack.
fn jsdl(path: &str, text: &str, vo: Option<&VoId>) -> Result<JobFile, Error> {
    let spec = xos_aem::jsdl::parse(text, vo).map_err(|e| {
        let hint = match e.problem {
            xos_aem::jsdl::Problem::Missing("VO") => "say in which VO it shall run, by --vo VO",
            _ => "docs/user.md lists what of JSDL is understood",
        };
        let (line, column) = (e.line, e.column);
        let kind = Error::from(e.clone()).kind;
        let what = format!("{path}:{line}:{column}: <{}>: {}", e.element, e.problem);
        Error::new(kind, what).hint(hint)
    })?;
    let JobSpec { vo, name, tasks, after_jobs, sites } = spec;
    Ok(JobFile { vo: Some(vo), name: Some(name), tasks, after_jobs, sites })
}

impl JobFile {
    /// The job as it is submitted.
    pub fn into_spec(self, vo: VoId) -> JobSpec {
        JobSpec {
            vo,
            name: self.name.unwrap_or_else(|| "job".to_owned()),
            tasks: self.tasks,
            after_jobs: self.after_jobs,
            sites: self.sites,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_line_and_column() {
        // Without the place, a person searches a long file for one letter.
        let e =
            parse("toml", "a.toml", "name = \"x\"\n[[tasks]]\nnam = \"t\"\n", None).unwrap_err();
        assert!(e.message.starts_with("a.toml:3:1: unknown field `nam`"), "{e}");
        let e = parse("json", "a.json", "{\n \"tasks\": [{\"name\": 3}]\n}", None).unwrap_err();
        assert!(e.message.starts_with("a.json:2:"), "{e}");
        assert!(!e.message.contains("at line"), "{e}");
        let e = parse("toml", "a.toml", "tasks = [\n", None).unwrap_err();
        assert!(e.message.starts_with("a.toml:"), "{e}");
        assert!(parse("txt", "a.txt", "", None).is_err());
        let e =
            parse("toml", "a.toml", "[[tasks]]\nname=\"t\"\nargv=[\"x\"]\narray=\"3-1\"\n", None);
        assert!(e.unwrap_err().message.starts_with("a.toml:"));
        let e = parse("jsdl", "a.jsdl", "<a>\n<b></a>", None).unwrap_err();
        assert!(e.message.starts_with("a.jsdl:2:"), "{e}");
    }

    /// If it failed, who mistypes the name of one task among many would have to search for it.
    #[test]
    fn a_wrong_name_to_wait_for_has_its_place() {
        let told = |kind, path, text: &str| parse(kind, path, text, None).unwrap_err().to_string();
        let two = "[[tasks]]\nname = \"make\"\nargv = [\"x\"]\n\
                   [[tasks]]\nname = \"merge\"\nargv = [\"x\"]\n";
        let e = told("toml", "a.toml", &format!("{two}after = [\"make\",\n  \"mak\"]\n"));
        let text = "task merge waits for \"mak\", which is no task of the job; \
                    its tasks are: make, merge";
        assert_eq!(e, format!("a.toml:8:3: {text}"));
        let e = told("toml", "a.toml", &format!("{two}after = [\"merge\"]\n"));
        assert!(e.starts_with("a.toml:7:10: task merge waits for itself"), "{e}");
        let json = "{\"tasks\": [{\"name\": \"make\", \"argv\": [\"x\"]},\n \
                    {\"name\": \"merge\", \"argv\": [\"x\"], \"after\": [\"make\", \"mak\"]}]}";
        let column = json.lines().nth(1).unwrap().find("\"mak\"").unwrap() + 1;
        assert_eq!(told("json", "a.json", json), format!("a.json:2:{column}: {text}"));
    }

    /// If it failed, who copies a task and forgets to rename it would have to look for it.
    #[test]
    fn a_name_that_two_tasks_have_is_told_where_the_second_stands() {
        let text = "[[tasks]]\nname = \"make\"\nargv = [\"x\"]\n\
                    [[tasks]]\nargv = [\"y\"]\nname = \"make\"\n";
        let e = parse("toml", "a.toml", text, None).unwrap_err().to_string();
        assert!(e.starts_with("a.toml:6:8: another task is called \"make\" already;"), "{e}");
        let json = "{\"tasks\": [{\"name\": \"make\", \"argv\": [\"x\"]},\n \
                    {\"argv\": [\"y\"], \"name\": \"make\"}]}";
        let column = json.lines().nth(1).unwrap().find("\"make\"").unwrap() + 1;
        let e = parse("json", "a.json", json, None).unwrap_err().to_string();
        assert!(e.starts_with(&format!("a.json:2:{column}: another task")), "{e}");
    }

    #[test]
    fn a_jsdl_document_needs_a_vo_from_somewhere() {
        let text = r#"<JobDefinition xmlns="http://schemas.ggf.org/jsdl/2005/11/jsdl">
            <JobDescription><Application>
              <POSIXApplication xmlns="http://schemas.ggf.org/jsdl/2005/11/jsdl-posix">
                <Executable>/bin/true</Executable>
              </POSIXApplication>
            </Application></JobDescription></JobDefinition>"#;
        let e = parse("jsdl", "a.jsdl", text, None).unwrap_err();
        assert!(e.to_string().contains("--vo"), "{e}");
        let vo = "demo.rennes".parse().unwrap();
        let job = parse("xml", "a.xml", text, Some(&vo)).unwrap();
        assert_eq!(job.tasks[0].argv, ["/bin/true"]);
    }

    #[test]
    fn a_file_is_read_as_it_is_written() {
        let text = "[[tasks]]\nname = \"make\"\nargv = [\"/bin/echo\", \"hi\"]\narray = \"0-3\"\n\
                    [[tasks]]\nname = \"merge\"\nargv = [\"merge\"]\nafter = [\"make\"]\n";
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spect.toml");
        std::fs::write(&path, text).unwrap();
        let spec = read(&path, None).unwrap().into_spec("demo.rennes".parse().unwrap());
        assert_eq!((spec.name.as_str(), spec.tasks.len()), ("spect", 2));
        assert_eq!(spec.tasks[0].array.len(), 4);
        assert!(read(&dir.path().join("missing.toml"), None).is_err());
    }

    /// If it failed, who keeps data in a job file would be told a number and no way out; or, where
    /// the limit falls within a character, that the file is no text.
    #[test]
    fn a_file_over_the_limit_says_where_data_belongs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large.toml");
        std::fs::write(&path, format!("name = \"{}\"\n", "é".repeat(5 << 20))).unwrap();
        let e = read(&path, None).unwrap_err();
        assert_eq!(e.kind.exit_code(), 65, "{e}");
        let e = e.to_string();
        assert!(e.contains("large.toml is over 8388608 bytes") && e.contains("volume"), "{e}");
        std::fs::write(&path, b"name = \"\xff\"\n").unwrap();
        assert_eq!(read(&path, None).unwrap_err().kind, xos_base::Kind::Invalid);
    }
}
