//! The form that submits a job of one task.

use super::sign_in::kindly;
use crate::command_line::words;
use crate::fields::Fields;
use crate::view::{Frame, page_with};
use crate::visit::{Shown, Stop, Visit, done};
use askama::Template;
use xos_api::aem::{
    Array, DEFAULT_CPU_MILLI, DEFAULT_MEMORY_BYTES, JobSpec, NAME_MAX, Resources, TaskSpec,
};
use xos_base::{Error, VoId};

const MIB: u64 = 1024 * 1024;

#[derive(Template)]
#[template(path = "submit.html")]
struct View {
    frame: Frame,
    vo: String,
    name: String,
    command: String,
    array: String,
    cpus: String,
    memory: String,
    minutes: String,
    name_max: usize,
    trouble: Option<String>,
}

/// The empty form.
pub(crate) async fn show(visit: Visit) -> Shown {
    let vo: Option<VoId> = visit.query.id_if("vo")?;
    let view = View {
        frame: Frame::of(&visit, "Submit a job", "submit").await,
        vo: vo.map(|v| v.to_string()).unwrap_or_default(),
        name: String::new(),
        command: String::new(),
        array: String::new(),
        cpus: crate::view::cpus_text(u64::from(DEFAULT_CPU_MILLI)),
        memory: (DEFAULT_MEMORY_BYTES / MIB).to_string(),
        minutes: String::new(),
        name_max: NAME_MAX,
        trouble: None,
    };
    page_with(200, &view)
}

/// Submits; when it does not go, the form comes back with what was typed and why.
pub(crate) async fn submit(visit: Visit) -> Shown {
    let submitted = match read(&visit.form) {
        Ok(spec) => {
            let vo = spec.vo.clone();
            let answer = visit.submit(spec).await;
            answer.map(|s| (vo, s.job))
        }
        Err(e) => Err(Stop::Failed(e)),
    };
    let e = match submitted {
        Ok((vo, job)) => {
            return done(&visit, format!("/vo/{vo}/job/{job}"), format!("Job {job} is submitted."));
        }
        Err(Stop::Failed(e)) => e,
        Err(stop) => return Err(stop),
    };
    let text = |name: &str| visit.form.raw(name).to_owned();
    let view = View {
        frame: Frame::of(&visit, "Submit a job", "submit").await,
        vo: text("vo"),
        name: text("name"),
        command: text("command"),
        array: text("array"),
        cpus: text("cpus"),
        memory: text("memory"),
        minutes: text("minutes"),
        name_max: NAME_MAX,
        trouble: Some(kindly(&e)),
    };
    page_with(e.kind.http_status(), &view)
}

/// The job that the form describes.
fn read(form: &Fields) -> Result<JobSpec, Error> {
    if form.text("vo").is_empty() {
        return Err(Error::invalid("no VO is chosen").hint("choose the VO whose share it uses"));
    }
    let argv = words(form.raw("command"))?;
    let array = match form.text("array") {
        "" => Array::single(),
        text => text.parse().map_err(|e| Error::invalid(format!("array: {e}")))?,
    };
    let name = match form.text("name") {
        "" => short_name(&argv[0]),
        name => name.to_owned(),
    };
    let task = TaskSpec {
        name: "main".into(),
        argv,
        array,
        resources: resources(form)?,
        ..TaskSpec::default()
    };
    let vo = form.id("vo")?;
    Ok(JobSpec { vo, name, tasks: vec![task], after_jobs: Vec::new(), sites: Vec::new() })
}

fn resources(form: &Fields) -> Result<Resources, Error> {
    let mut r = Resources::default();
    if let Some(cpus) = form.number::<f64>("cpus", "processors")? {
        let milli = (cpus * 1000.0).round();
        if !(1.0..=f64::from(u32::MAX)).contains(&milli) {
            return Err(Error::invalid("processors: the number is out of range"));
        }
        // In range, and whole after rounding.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let milli = milli as u32;
        r.cpu_milli = milli;
    }
    if let Some(mib) = form.number::<u64>("memory", "memory")? {
        r.memory_bytes = mib
            .checked_mul(MIB)
            .ok_or_else(|| Error::invalid("memory: the number is out of range"))?;
    }
    r.wall_time_s = form.number::<u64>("minutes", "time")?.map(|m| m.saturating_mul(60));
    Ok(r)
}

/// The program's own name, cut to what a job's name may have.
fn short_name(program: &str) -> String {
    let name = program.rsplit('/').next().filter(|n| !n.is_empty()).unwrap_or("job");
    let mut out = String::new();
    for c in name.chars().filter(|c| !xos_base::text::hidden(*c)) {
        if out.len() + c.len_utf8() > NAME_MAX {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_becomes_a_job() {
        let form = Fields::parse(
            b"vo=demo.rennes&command=/bin/echo+'a+b'&array=0-3&cpus=0.5&memory=64&minutes=2",
        );
        let spec = read(&form.unwrap()).unwrap();
        assert_eq!((spec.name.as_str(), spec.tasks.len()), ("echo", 1));
        let task = &spec.tasks[0];
        assert_eq!(task.argv, ["/bin/echo", "a b"]);
        assert_eq!((task.array.len(), task.resources.cpu_milli), (4, 500));
        assert_eq!(
            (task.resources.memory_bytes, task.resources.wall_time_s),
            (64 * MIB, Some(120))
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let refused = |text: &str| read(&Fields::parse(text.as_bytes()).unwrap()).unwrap_err();
        for (form, word) in [
            ("command=a", "VO"),
            ("vo=x&command=a", "VO"),
            ("vo=a.b&command=", "program"),
            ("vo=a.b&command=a&array=x", "array"),
            ("vo=a.b&command=a&cpus=-1", "processors"),
            ("vo=a.b&command=a&cpus=NaN", "processors"),
            ("vo=a.b&command=a&cpus=1e99", "processors"),
            ("vo=a.b&command=a&memory=18446744073709551615", "memory"),
            ("vo=a.b&command=a&minutes=x", "time"),
        ] {
            let e = refused(form);
            assert!(e.message.contains(word), "{form}: {e}");
        }
    }
}
