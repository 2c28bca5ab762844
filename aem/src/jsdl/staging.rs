//! `DataStaging` (GFD.136, section 6.5): files between the VO's volume and the working directory.

use super::error::JsdlError;
use super::tree::{Element, Ns};
use xos_api::aem::{Stage, StageMode, TaskSpec};
use xos_base::VoId;

pub(super) fn read(e: &Element, task: &mut TaskSpec, vo: &VoId) -> Result<(), JsdlError> {
    e.no_attributes(&["name"])?;
    let mut f = e.fields()?;
    let name = f.one(Ns::Jsdl, "FileName")?.text()?.to_owned();
    if let Some(fs) = f.maybe(Ns::Jsdl, "FilesystemName")? {
        return Err(fs.cannot("file systems by name are not known: write the whole path"));
    }
    let flag = f.one(Ns::Jsdl, "CreationFlag")?;
    let mode = match flag.text()? {
        "overwrite" => StageMode::Overwrite,
        "append" => StageMode::Append,
        "dontOverwrite" => StageMode::DontOverwrite,
        _ => return Err(flag.value("it is overwrite, append or dontOverwrite")),
    };
    let delete = match f.maybe(Ns::Jsdl, "DeleteOnTermination")? {
        None => false,
        Some(d) => match d.text()? {
            "true" | "1" => true,
            "false" | "0" => false,
            _ => return Err(d.value("it is true or false")),
        },
    };
    let source = f.maybe(Ns::Jsdl, "Source")?;
    let target = f.maybe(Ns::Jsdl, "Target")?;
    f.finish()?;
    if source.is_none() && target.is_none() {
        return Err(e.value("it has neither Source nor Target"));
    }
    for (end, list) in [(source, &mut task.stage_in), (target, &mut task.stage_out)] {
        if let Some(end) = end {
            let volume = place(end, vo)?;
            list.push(Stage { name: name.clone(), volume, mode, delete });
        }
    }
    Ok(())
}

/// A place on the VO's volume: `xtreemfs://<vo>/path`, `/xtreemfs/<vo>/path`, or a path from the
/// volume's root.
fn place(e: &Element, vo: &VoId) -> Result<String, JsdlError> {
    e.no_attributes(&[])?;
    let mut f = e.fields()?;
    let uri = f.one(Ns::Jsdl, "URI")?;
    f.finish()?;
    let text = uri.text()?;
    let of_vo = |rest: &str| {
        let (named, path) = rest.split_once('/').unwrap_or((rest, ""));
        if named == vo.as_str() {
            Ok(path.to_owned())
        } else {
            Err(uri.cannot(format!("only the volume of {vo} can be used")))
        }
    };
    if let Some(rest) = text.strip_prefix("xtreemfs://").or_else(|| text.strip_prefix("/xtreemfs/"))
    {
        return of_vo(rest);
    }
    if text.contains("://") {
        return Err(uri.cannot("write xtreemfs://<vo>/<path>, or a path on the VO's volume"));
    }
    Ok(text.trim_start_matches('/').to_owned())
}
