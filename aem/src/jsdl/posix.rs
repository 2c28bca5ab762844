//! `Application` and `POSIXApplication` (GFD.136, sections 6.3 and 8).

use super::error::{JsdlError, Problem};
use super::tree::{Element, Fields, Ns};
use xos_api::aem::{DEFAULT_MEMORY_BYTES, TaskSpec};

pub(super) fn application(e: &Element, task: &mut TaskSpec) -> Result<(), JsdlError> {
    e.no_attributes(&[])?;
    let mut fields = e.fields()?;
    // A name is for applications that a site has installed under it; ours are named by program.
    for (name, why) in [
        ("ApplicationName", "name the program in a POSIXApplication's Executable instead"),
        ("ApplicationVersion", "name the program in a POSIXApplication's Executable instead"),
    ] {
        if let Some(e) = fields.maybe(Ns::Jsdl, name)? {
            return Err(e.cannot(why));
        }
    }
    fields.skip(Ns::Jsdl, "Description");
    let posix = fields.one(Ns::Posix, "POSIXApplication")?;
    fields.finish()?;
    posix_application(posix, task)
}

fn posix_application(e: &Element, task: &mut TaskSpec) -> Result<(), JsdlError> {
    e.no_attributes(&["name"])?;
    let mut f = e.fields()?;
    task.argv.push(path(f.one(Ns::Posix, "Executable")?)?);
    for a in f.many(Ns::Posix, "Argument") {
        no_file_system(a)?;
        task.argv.push(a.verbatim()?.to_owned());
    }
    let optional = |f: &mut Fields<'_>, name: &str| -> Result<Option<String>, JsdlError> {
        f.maybe(Ns::Posix, name)?.map(path).transpose()
    };
    task.stdin = optional(&mut f, "Input")?;
    task.stdout = optional(&mut f, "Output")?;
    task.stderr = optional(&mut f, "Error")?;
    task.cwd = optional(&mut f, "WorkingDirectory")?;
    for v in f.many(Ns::Posix, "Environment") {
        no_file_system(v)?;
        v.no_attributes(&["name"])?;
        let name = v.attribute("name").ok_or_else(|| v.value("the attribute name is missing"))?;
        if task.env.insert(name.to_owned(), v.raw_text()?.to_owned()).is_some() {
            return Err(v.value("the variable is set twice"));
        }
    }
    limits(e, &mut f, task)?;
    for (name, why) in [
        ("PipeSizeLimit", "Linux has no limit of a pipe's size for a process"),
        ("UserName", "the account follows from your membership in the VO"),
        ("GroupName", "the groups follow from your membership in the VO"),
    ] {
        if let Some(e) = f.maybe(Ns::Posix, name)? {
            return Err(e.cannot(why));
        }
    }
    f.finish()
}

fn limits(of: &Element, f: &mut Fields<'_>, task: &mut TaskSpec) -> Result<(), JsdlError> {
    let number = |f: &mut Fields<'_>, name: &str| -> Result<Option<u64>, JsdlError> {
        f.maybe(Ns::Posix, name)?.map(|e| e.parsed("a whole number from 0")).transpose()
    };
    let l = &mut task.limits;
    l.file_size = number(f, "FileSizeLimit")?;
    l.core_size = number(f, "CoreDumpLimit")?;
    l.data = number(f, "DataSegmentLimit")?;
    l.locked_memory = number(f, "LockedMemoryLimit")?;
    l.open_files = number(f, "OpenDescriptorsLimit")?;
    l.stack = number(f, "StackSizeLimit")?;
    l.cpu_time_s = number(f, "CPUTimeLimit")?;
    l.virtual_memory = number(f, "VirtualMemoryLimit")?;
    // Linux counts threads and processes together.
    l.processes = match (number(f, "ProcessCountLimit")?, number(f, "ThreadCountLimit")?) {
        (Some(p), Some(t)) if p != t => {
            let text = "ProcessCountLimit and ThreadCountLimit are one limit here: give one value";
            return Err(of.error(Problem::Cannot(text.to_owned())));
        }
        (p, t) => p.or(t),
    };
    task.resources.wall_time_s = number(f, "WallTimeLimit")?;
    if let Some(bytes) = number(f, "MemoryLimit")? {
        let asked = task.resources.memory_bytes;
        if asked != DEFAULT_MEMORY_BYTES && asked != bytes {
            let text = "MemoryLimit and IndividualPhysicalMemory are one value here";
            return Err(of.error(Problem::Cannot(text.to_owned())));
        }
        task.resources.memory_bytes = bytes;
    }
    Ok(())
}

fn no_file_system(e: &Element) -> Result<(), JsdlError> {
    match e.attribute("filesystemName") {
        Some(_) => Err(e.cannot("file systems by name are not known: write the whole path")),
        None => Ok(()),
    }
}

fn path(e: &Element) -> Result<String, JsdlError> {
    no_file_system(e)?;
    let text = e.text()?;
    if text.is_empty() {
        return Err(e.value("it is empty"));
    }
    Ok(text.to_owned())
}
