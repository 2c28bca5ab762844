//! `xos job submit`, `xsub`.

use super::file::{self, JobFile};
use super::finish::{Show, finish};
use super::send;
use super::watch::{self, Bar, Ended, Watched};
use crate::cli::output::{Outcome, clean};
use crate::cli::session::Session;
use crate::cli::values;
use std::path::PathBuf;
use xos_api::aem::{Array, ProcessLimits, Resources, Stage, TaskSpec};
use xos_base::{Error, JobId, SiteId, VoId};

const EXAMPLES: &str = "\
Examples:
  xos job submit -- /bin/echo hello
  xos job submit -n phantom -c 2 -m 4G -t 1:30:00 -- ./simulate 42
  xos job submit -a 0-15%4 -o 'out.%i' -- sh -c 'echo $XOS_UNIT_INDEX'
  xos job submit -d --on rennes,pisa --stage-in data/in.bin --stage-out result.png -- ./reconstruct
  xos job submit -f spect.toml

Without -d it waits, prints the output of a single unit (of several it says how to get it), and \
exits with the job's status: 0, or that of its first unit, in order, that did not end well. \
Ctrl-C asks whether to cancel; a second Ctrl-C leaves the job running.";

/// `xos job submit`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Submit {
    /// Submit the job that this file describes (.toml, .json, .jsdl).
    #[arg(short, long, value_name = "FILE", conflicts_with = "command")]
    file: Option<PathBuf>,
    /// What lists show [default: the program's name].
    #[arg(short, long)]
    name: Option<String>,
    /// Run once for each index: 0-15, 1,3,7 or 0-99%4 (four at a time). The program finds its index
    /// in XOS_UNIT_INDEX.
    #[arg(short, long, value_name = "INDICES")]
    array: Option<Array>,
    /// Processors for each run [default: 1].
    #[arg(short, long, value_parser = values::unit_cpus, value_name = "N")]
    cpus: Option<u32>,
    /// Memory for each run, as 2G [default: 256M].
    #[arg(short, long, value_parser = values::size, value_name = "SIZE")]
    memory: Option<u64>,
    /// Longest time for each run, as 90m or 1:30:00.
    #[arg(short, long, value_parser = values::seconds, value_name = "TIME")]
    time: Option<u64>,
    /// Kind of processor, as x86_64 or arm.
    #[arg(long)]
    arch: Option<String>,
    /// How often a run that failed or was lost may be started again.
    #[arg(long, value_name = "N")]
    retry: Option<u16>,
    /// Only in clusters: each run is checkpointed, and goes on from that when its node fails.
    #[arg(long)]
    checkpointable: bool,
    /// Only at these sites.
    #[arg(long, value_name = "SITE", value_delimiter = ',')]
    on: Vec<SiteId>,
    /// Only after these jobs have succeeded.
    #[arg(long, value_name = "JOB", value_delimiter = ',')]
    after: Vec<JobId>,
    /// Copy this file of the VO's volume into the working directory first.
    #[arg(long, value_parser = stage_in, value_name = "VOLUME_PATH[=NAME]")]
    stage_in: Vec<Stage>,
    /// Copy this file from the working directory to the VO's volume afterwards.
    #[arg(long, value_parser = stage_out, value_name = "NAME[=VOLUME_PATH]")]
    stage_out: Vec<Stage>,
    /// Read standard input from this file at the site.
    #[arg(short, long, value_name = "FILE")]
    input: Option<String>,
    /// Write standard output to this file at the site (%j: job, %i: array index).
    #[arg(short, long, value_name = "FILE")]
    output: Option<String>,
    /// Write standard error to this file at the site.
    #[arg(short, long, value_name = "FILE")]
    error: Option<String>,
    /// Working directory on the node, made when it is not there [default: your home there].
    #[arg(short = 'D', long, value_name = "DIR")]
    chdir: Option<String>,
    /// Set a variable for the program.
    #[arg(short = 'E', long, value_parser = values::variable, value_name = "NAME=VALUE")]
    env: Vec<(String, String)>,
    /// Print the job's id and leave.
    #[arg(short, long)]
    detach: bool,
    /// Do not print the job's output at its end.
    #[arg(long)]
    no_output: bool,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    command: Vec<String>,
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn stage_in(text: &str) -> Result<Stage, String> {
    let (volume, name) = text.split_once('=').unwrap_or((text, last_part(text)));
    stage(name, volume)
}

fn stage_out(text: &str) -> Result<Stage, String> {
    let (name, volume) = text.split_once('=').unwrap_or((text, last_part(text)));
    stage(name, volume)
}

fn stage(name: &str, volume: &str) -> Result<Stage, String> {
    if name.is_empty() || volume.is_empty() || volume.ends_with('/') {
        return Err("name a file on both sides, as data/in.bin=in.bin".into());
    }
    Ok(Stage { name: name.into(), volume: volume.into(), ..Stage::default() })
}

impl Submit {
    /// The job as a file would describe it. `vo` is for files that name none.
    fn described(&self, vo: Option<&VoId>) -> Result<JobFile, Error> {
        let mut job = match &self.file {
            Some(path) => {
                self.refuse_with_file()?;
                file::read(path, vo)?
            }
            None => self.one_task()?,
        };
        if let Some(name) = &self.name {
            job.name = Some(name.clone());
        }
        if !self.on.is_empty() {
            job.sites.clone_from(&self.on);
        }
        job.after_jobs.extend(self.after.iter().cloned());
        Ok(job)
    }

    /// A file says what each task needs; the command line cannot know which task it means.
    fn refuse_with_file(&self) -> Result<(), Error> {
        let given = [
            (self.array.is_some(), "--array"),
            (self.cpus.is_some(), "--cpus"),
            (self.memory.is_some(), "--memory"),
            (self.time.is_some(), "--time"),
            (self.arch.is_some(), "--arch"),
            (self.retry.is_some(), "--retry"),
            (self.checkpointable, "--checkpointable"),
            (!self.stage_in.is_empty(), "--stage-in"),
            (!self.stage_out.is_empty(), "--stage-out"),
            (self.input.is_some(), "--input"),
            (self.output.is_some(), "--output"),
            (self.error.is_some(), "--error"),
            (self.chdir.is_some(), "--chdir"),
            (!self.env.is_empty(), "--env"),
        ];
        match given.iter().find(|(given, _)| *given) {
            Some((_, option)) => {
                Err(Error::invalid(format!("{option} and --file exclude each other"))
                    .hint("write it into the file"))
            }
            None => Ok(()),
        }
    }

    fn one_task(&self) -> Result<JobFile, Error> {
        let program = self.command.first().filter(|p| !p.is_empty()).ok_or_else(|| {
            Error::invalid("what shall run?")
                .hint("name a program after --, for example: xsub -- /bin/echo hello")
        })?;
        if program.starts_with('-') {
            return Err(Error::invalid(format!("unknown option {program}"))
                .hint("`xsub --help` lists all; they stand before the program"));
        }
        let resources =
            Resources { arch: self.arch.clone(), wall_time_s: self.time, ..Resources::default() };
        let task = TaskSpec {
            name: "main".into(),
            argv: self.command.clone(),
            env: self.env.iter().cloned().collect(),
            cwd: self.chdir.clone(),
            stdin: self.input.clone(),
            stdout: self.output.clone(),
            stderr: self.error.clone(),
            array: self.array.clone().unwrap_or_default(),
            after: Vec::new(),
            resources: Resources {
                cpu_milli: self.cpus.unwrap_or(resources.cpu_milli),
                memory_bytes: self.memory.unwrap_or(resources.memory_bytes),
                ..resources
            },
            limits: ProcessLimits::default(),
            retry: self.retry.unwrap_or(0),
            checkpointable: self.checkpointable,
            stage_in: self.stage_in.clone(),
            stage_out: self.stage_out.clone(),
        };
        let name: String = clean(last_part(program)).chars().take(60).collect();
        Ok(JobFile {
            vo: None,
            name: Some(name),
            after_jobs: Vec::new(),
            sites: Vec::new(),
            tasks: vec![task],
        })
    }
}

/// Runs `xos job submit`.
pub async fn run(s: &Session, args: Submit) -> Outcome {
    // Which VO one is in without naming it, the files at home say; a core is asked only if they
    // do not.
    let known = s.named_vo().cloned().or(s.only_vo()?);
    let mut job = args.described(known.as_ref())?;
    let vo = match (s.named_vo(), job.vo.take()) {
        (None, Some(vo)) => vo,
        _ => s.the_vo().await?,
    };
    let site = s.site_of(&vo);
    let spec = job.into_spec(vo);
    let member = s.member(&spec.vo, &site).await?;
    if args.detach {
        return send::detached(s, member, spec).await;
    }
    let show = Show::of(&spec, args.no_output);
    let (member, events) = send::watched(s, member, spec).await?;
    let bar = Bar::new(s.out);
    let Ended { job, end, member } = match watch::with_interrupt(s, member, &bar, events).await? {
        Watched::Ended(ended) => *ended,
        Watched::Left(status) => return Ok(status),
    };
    bar.hide();
    finish(s, member, &job, end, show).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn submit(line: &[&str]) -> Result<JobFile, String> {
        let words = ["xos", "job", "submit"].iter().chain(line);
        let cli = Cli::try_parse_from(words).map_err(|e| e.to_string())?;
        match cli.command {
            crate::cli::Command::Job(super::super::Command::Submit(args)) => {
                args.described(None).map_err(|e| e.to_string())
            }
            other => Err(format!("{other:?}")),
        }
    }

    /// If it failed, a mistyped option would be sent to a site as the program to run.
    #[test]
    fn an_unknown_option_is_no_program() {
        let refused = submit(&["--aray", "0-3", "--", "true"]).unwrap_err();
        assert!(refused.contains("unknown option --aray"), "{refused}");
        assert!(submit(&["true", "--aray"]).is_ok(), "the program's own");
    }

    #[test]
    fn options_become_a_job() {
        let job = submit(&[
            "-n",
            "sim",
            "-a",
            "0-15%4",
            "-c",
            "1.5",
            "-m",
            "2G",
            "-t",
            "1:30:00",
            "--retry",
            "2",
            "--checkpointable",
            "--on",
            "rennes,pisa",
            "--after",
            "3.rennes",
            "--stage-in",
            "data/in.bin",
            "--stage-out",
            "out.png=results/out.png",
            "-o",
            "out.%i",
            "-E",
            "A=b=c",
            "-D",
            "work",
            "--",
            "./sim",
            "--json",
            "-n",
        ])
        .unwrap();
        let task = &job.tasks[0];
        assert_eq!(task.argv, ["./sim", "--json", "-n"], "the program's options were taken");
        assert_eq!((task.array.len(), task.array.at_once()), (16, Some(4)));
        assert_eq!(task.resources.cpu_milli, 1500);
        assert_eq!(task.resources.memory_bytes, 2 << 30);
        assert_eq!(task.resources.wall_time_s, Some(5400));
        assert_eq!(task.env["A"], "b=c");
        assert_eq!(task.stage_in[0].name, "in.bin");
        assert_eq!(task.stage_out[0].volume, "results/out.png");
        assert_eq!(job.sites.len(), 2);
        assert_eq!(job.after_jobs[0].to_string(), "3.rennes");
        assert_eq!(job.name.as_deref(), Some("sim"));
    }

    #[test]
    fn a_plain_command_needs_no_dashes() {
        let job = submit(&["/bin/echo", "-n", "--", "hello"]).unwrap();
        assert_eq!(job.tasks[0].argv, ["/bin/echo", "-n", "--", "hello"]);
        assert_eq!(job.name.as_deref(), Some("echo"));
        assert_eq!(job.tasks[0].resources, Resources::default());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            &[] as &[&str],
            &["--"],
            &["-a", "3-1", "--", "x"],
            &["-m", "2", "--", "x"],
            &["-t", "90", "--", "x"],
            &["-E", "XOS_JOB=1", "--", "x"],
            &["--stage-in", "a/", "--", "x"],
            &["--after", "rennes", "--", "x"],
            &["-f", "x.toml", "--", "x"],
            &["-f", "x.toml", "-a", "0-3"],
        ] {
            assert!(submit(line).is_err(), "{line:?} was taken");
        }
    }
}
