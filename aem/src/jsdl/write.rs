//! From a job to a document that [`super::parse`] reads back as the same job.

use super::{JSDL, POSIX, XOS};
use quick_xml::escape::escape;
use std::fmt::Write;
use xos_api::aem::{JobSpec, Resources, Stage, StageMode, TaskSpec};
use xos_base::Error;

struct Doc {
    out: String,
    depth: usize,
    fault: Option<Error>,
}

impl Doc {
    fn open(&mut self, name: &str) {
        self.line(&format!("<{name}>"));
        self.depth += 1;
    }

    fn close(&mut self, name: &str) {
        self.depth -= 1;
        self.line(&format!("</{name}>"));
    }

    fn line(&mut self, text: &str) {
        // Writing into a String cannot fail.
        let _infallible = writeln!(self.out, "{:1$}{text}", "", self.depth * 2);
    }

    /// An element whose text is kept as it stands.
    fn verbatim(&mut self, name: &str, attribute: Option<(&str, &str)>, text: &str) {
        let attribute = match attribute {
            Some((k, v)) => format!(" {k}=\"{}\"", self.escaped(v)),
            None => String::new(),
        };
        let text = self.escaped(text);
        self.line(&format!("<{name}{attribute}>{text}</{}>", name));
    }

    /// An element whose text is read without white space around it.
    fn text(&mut self, name: &str, text: &str) {
        if text.trim() != text {
            let text =
                format!("{text:?} begins or ends with white space, which JSDL does not keep");
            self.fault = Some(Error::invalid(text));
        }
        self.verbatim(name, None, text);
    }

    fn maybe(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    fn number(&mut self, name: &str, value: Option<u64>) {
        if let Some(v) = value {
            self.text(name, &v.to_string());
        }
    }

    fn exact(&mut self, name: &str, value: &str) {
        self.open(name);
        self.text("jsdl:Exact", value);
        self.close(name);
    }

    fn escaped(&mut self, text: &str) -> String {
        let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
        if !text.chars().all(allowed) {
            let text = format!("{text:?} holds a character that XML cannot hold");
            self.fault = Some(Error::invalid(text));
        }
        let mut out = String::new();
        for c in escape(text).chars() {
            match c {
                '\r' | '\n' | '\t' => {
                    let _infallible = write!(out, "&#{};", c as u32);
                }
                // XML 1.1 readers take these for line ends.
                '\u{85}' | '\u{2028}' => {
                    let _infallible = write!(out, "&#{};", c as u32);
                }
                c => out.push(c),
            }
        }
        out
    }
}

/// Writes a job as a JSDL document.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] when a text holds what XML or JSDL cannot hold.
pub fn write(job: &JobSpec) -> Result<String, Error> {
    let mut d = Doc { out: String::new(), depth: 0, fault: None };
    d.line("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    d.line(&format!(
        "<jsdl:JobDefinition xmlns:jsdl=\"{JSDL}\" xmlns:posix=\"{POSIX}\" xmlns:xos=\"{XOS}\">"
    ));
    d.depth += 1;
    d.open("jsdl:JobDescription");
    d.open("jsdl:JobIdentification");
    d.text("jsdl:JobName", &job.name);
    d.close("jsdl:JobIdentification");
    let mut tasks = job.tasks.iter();
    if let Some(first) = tasks.next() {
        task(&mut d, first, job);
    }
    d.text("xos:VO", job.vo.as_str());
    for id in &job.after_jobs {
        d.text("xos:AfterJob", &id.to_string());
    }
    for t in tasks {
        d.open("xos:Task");
        task(&mut d, t, &JobSpec { sites: Vec::new(), ..super::empty(job.vo.clone()) });
        d.close("xos:Task");
    }
    d.close("jsdl:JobDescription");
    d.close("jsdl:JobDefinition");
    match d.fault {
        Some(e) => Err(e),
        None => Ok(d.out),
    }
}

fn task(d: &mut Doc, t: &TaskSpec, job: &JobSpec) {
    d.open("jsdl:Application");
    d.open("posix:POSIXApplication");
    d.text("posix:Executable", t.argv.first().map_or("", String::as_str));
    for a in t.argv.iter().skip(1) {
        d.verbatim("posix:Argument", None, a);
    }
    d.maybe("posix:Input", t.stdin.as_deref());
    d.maybe("posix:Output", t.stdout.as_deref());
    d.maybe("posix:Error", t.stderr.as_deref());
    d.maybe("posix:WorkingDirectory", t.cwd.as_deref());
    for (k, v) in &t.env {
        d.verbatim("posix:Environment", Some(("name", k)), v);
    }
    let l = &t.limits;
    d.number("posix:WallTimeLimit", t.resources.wall_time_s);
    d.number("posix:FileSizeLimit", l.file_size);
    d.number("posix:CoreDumpLimit", l.core_size);
    d.number("posix:DataSegmentLimit", l.data);
    d.number("posix:LockedMemoryLimit", l.locked_memory);
    d.number("posix:OpenDescriptorsLimit", l.open_files);
    d.number("posix:StackSizeLimit", l.stack);
    d.number("posix:CPUTimeLimit", l.cpu_time_s);
    d.number("posix:ProcessCountLimit", l.processes);
    d.number("posix:VirtualMemoryLimit", l.virtual_memory);
    d.close("posix:POSIXApplication");
    d.close("jsdl:Application");
    resources(d, &t.resources, job);
    for (list, end) in [(&t.stage_in, "jsdl:Source"), (&t.stage_out, "jsdl:Target")] {
        for s in list {
            staging(d, s, end, job);
        }
    }
    d.text("xos:TaskName", &t.name);
    if !t.array.is_single() {
        d.text("xos:Array", &t.array.to_string());
    }
    for a in &t.after {
        d.text("xos:After", a);
    }
    if t.retry > 0 {
        d.text("xos:Retry", &t.retry.to_string());
    }
    if t.checkpointable {
        d.text("xos:Checkpointable", "true");
    }
}

fn resources(d: &mut Doc, r: &Resources, job: &JobSpec) {
    d.open("jsdl:Resources");
    if !job.sites.is_empty() {
        d.open("jsdl:CandidateHosts");
        for s in &job.sites {
            d.text("jsdl:HostName", s.as_str());
        }
        d.close("jsdl:CandidateHosts");
    }
    if let Some(arch) = &r.arch {
        d.open("jsdl:CPUArchitecture");
        d.text("jsdl:CPUArchitectureName", arch);
        d.close("jsdl:CPUArchitecture");
    }
    let (whole, part) = (r.cpu_milli / 1000, r.cpu_milli % 1000);
    d.exact("jsdl:IndividualCPUCount", &format!("{whole}.{part:03}"));
    d.exact("jsdl:IndividualPhysicalMemory", &r.memory_bytes.to_string());
    d.close("jsdl:Resources");
}

fn staging(d: &mut Doc, s: &Stage, end: &str, job: &JobSpec) {
    d.open("jsdl:DataStaging");
    d.text("jsdl:FileName", &s.name);
    d.text(
        "jsdl:CreationFlag",
        match s.mode {
            StageMode::Overwrite => "overwrite",
            StageMode::Append => "append",
            StageMode::DontOverwrite => "dontOverwrite",
        },
    );
    d.text("jsdl:DeleteOnTermination", if s.delete { "true" } else { "false" });
    d.open(end);
    d.text("jsdl:URI", &format!("xtreemfs://{}/{}", job.vo, s.volume.trim_start_matches('/')));
    d.close(end);
    d.close("jsdl:DataStaging");
}
