//! From a document to a job.

use super::error::{JsdlError, Problem};
use super::tree::{self, Element, Fields, Ns};
use super::{empty, posix, resources, staging};
use xos_api::aem::{JobSpec, NAME_MAX, TaskSpec};
use xos_base::VoId;

/// Reads a JSDL document. `vo` is for documents that name none.
///
/// The job is not checked against the limits of [`crate::check::job`] yet.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(text: &str, vo: Option<&VoId>) -> Result<JobSpec, JsdlError> {
    let root = tree::read(text)?;
    if root.ns != Ns::Jsdl || root.name != "JobDefinition" {
        return Err(root.error(Problem::NotJsdl));
    }
    root.no_attributes(&["id"])?;
    let mut fields = root.fields()?;
    let description = fields.one(Ns::Jsdl, "JobDescription")?;
    fields.finish()?;
    job(description, vo)
}

fn job(description: &Element, vo: Option<&VoId>) -> Result<JobSpec, JsdlError> {
    description.no_attributes(&[])?;
    let mut fields = description.fields()?;
    let vo = match fields.maybe(Ns::Xos, "VO")? {
        Some(e) => e.parsed("a VO, as in demo.rennes")?,
        None => vo.cloned().ok_or_else(|| description.error(Problem::Missing("VO")))?,
    };
    let mut job = empty(vo);
    if let Some(identification) = fields.maybe(Ns::Jsdl, "JobIdentification")? {
        job.name = name(identification)?;
    }
    for e in fields.many(Ns::Xos, "AfterJob") {
        job.after_jobs.push(e.parsed("a job, as in 12.rennes")?);
    }
    let (task, sites) = task(description, &mut fields, &job.vo, "main")?;
    job.sites = sites;
    job.tasks.push(task);
    for e in fields.many(Ns::Xos, "Task") {
        e.no_attributes(&[])?;
        let mut inner = e.fields()?;
        let number = job.tasks.len() + 1;
        let (task, sites) = self::task(e, &mut inner, &job.vo, &format!("task-{number}"))?;
        if !sites.is_empty() && sites != job.sites {
            return Err(
                e.cannot("sites are chosen for the whole job: name them for the first task")
            );
        }
        inner.finish()?;
        job.tasks.push(task);
    }
    fields.finish()?;
    if job.name.is_empty() {
        job.name = job.tasks.first().map_or_else(String::new, default_name);
    }
    Ok(job)
}

/// The name of the program, as far as it can be a job's name.
fn default_name(task: &TaskSpec) -> String {
    let program = task.argv.first().map_or("", String::as_str);
    let base = program.rsplit('/').find(|s| !s.is_empty()).unwrap_or("job");
    let mut name = String::new();
    for c in base.chars().filter(|c| !xos_base::text::hidden(*c)) {
        if name.len() + c.len_utf8() > NAME_MAX {
            break;
        }
        name.push(c);
    }
    if name.is_empty() { "job".to_owned() } else { name }
}

fn name(e: &Element) -> Result<String, JsdlError> {
    e.no_attributes(&[])?;
    let mut fields = e.fields()?;
    let name = match fields.maybe(Ns::Jsdl, "JobName")? {
        Some(n) => n.text()?.to_owned(),
        None => String::new(),
    };
    // For people only.
    fields.skip(Ns::Jsdl, "Description");
    fields.skip(Ns::Jsdl, "JobAnnotation");
    if let Some(project) = fields.many(Ns::Jsdl, "JobProject").first() {
        return Err(project.cannot("a project is a VO here: name it in xos:VO"));
    }
    fields.finish()?;
    Ok(name)
}

fn task(
    of: &Element,
    fields: &mut Fields<'_>,
    vo: &VoId,
    default: &str,
) -> Result<(TaskSpec, Vec<xos_base::SiteId>), JsdlError> {
    let mut task = TaskSpec { name: default.to_owned(), ..TaskSpec::default() };
    let mut sites = Vec::new();
    if let Some(e) = fields.maybe(Ns::Xos, "TaskName")? {
        task.name = e.text()?.to_owned();
    }
    let application = fields
        .maybe(Ns::Jsdl, "Application")?
        .ok_or_else(|| of.error(Problem::Missing("Application")))?;
    if let Some(e) = fields.maybe(Ns::Jsdl, "Resources")? {
        resources::read(e, &mut task, &mut sites)?;
    }
    posix::application(application, &mut task)?;
    for e in fields.many(Ns::Jsdl, "DataStaging") {
        staging::read(e, &mut task, vo)?;
    }
    if let Some(e) = fields.maybe(Ns::Xos, "Array")? {
        task.array =
            e.text()?.parse().map_err(|e2: xos_api::aem::ArrayError| e.value(e2.to_string()))?;
    }
    for e in fields.many(Ns::Xos, "After") {
        task.after.push(e.text()?.to_owned());
    }
    if let Some(e) = fields.maybe(Ns::Xos, "Retry")? {
        task.retry = e.parsed("a number of times to run again")?;
    }
    if let Some(e) = fields.maybe(Ns::Xos, "Checkpointable")? {
        task.checkpointable = e.parsed("true or false")?;
    }
    Ok((task, sites))
}
