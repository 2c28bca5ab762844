//! A VO as a file of JSON lines, and the people whom it expects.

use crate::cli::output::{Failure, Outcome, Table, list, when};
use crate::cli::pages;
use crate::cli::session::Session;
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use xos_api::vom::{EXPECT_MAX, ExpectedPage, ExportLine, ExportVo, ForgetExpected, ListExpected};
use xos_base::{Error, PersonId, VoId};

/// `xos vo export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos vo export demo.rennes > demo.jsonl
  xos vo export demo.rennes -o demo.jsonl --log

One JSON object a line: the VO, its groups, members and shares, with --log the signed entries of \
its log, and a last line without which the file was cut. `xos vo import` reads it.")]
pub struct Export {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// Write a new file, which only you can read, instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The entries of its log too.
    #[arg(long)]
    log: bool,
}

/// What an export consists of.
#[derive(Serialize)]
struct Exported {
    vo: VoId,
    lines: u64,
    /// Whether the VO changed while it was exported.
    changed: bool,
}

/// `xos vo expected …`.
#[derive(Debug, clap::Subcommand)]
pub enum Expected {
    /// Show who is admitted as soon as they apply (VO administrators).
    #[command(after_help = "Example:\n  xos vo expected list demo.rennes")]
    List(super::OfVo),
    /// Expect people no longer (VO administrators).
    #[command(after_help = "\
Examples:
  xos vo expected drop demo.rennes bob@pisa
  xos vo expected drop demo.rennes --all")]
    Drop(DropArgs),
}

/// `xos vo expected drop`.
#[derive(Debug, clap::Args)]
pub struct DropArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The people, as bob@pisa.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    people: Vec<PersonId>,
    /// All who are expected.
    #[arg(long)]
    all: bool,
}

/// Writes a VO down.
pub async fn export(s: &Session, args: Export) -> Outcome {
    let Export { of: vo, output, log } = args;
    let client = s.vo_client(&vo).await?;
    let mut file = output.as_deref().map(new_file).transpose()?;
    let mut exported = Exported { vo: vo.clone(), lines: 0, changed: false };
    let (mut after, mut began) = (None, None);
    loop {
        let page = client.call(ExportVo { vo: vo.clone(), after, log }).await?;
        let mut text = Vec::new();
        for line in &page.lines {
            match line {
                ExportLine::Vo { number, .. } => began = Some(*number),
                ExportLine::End { number } => exported.changed = began != Some(*number),
                _ => {}
            }
            let encoded = serde_json::to_vec(line)
                .map_err(|e| Error::internal(format!("cannot write JSON: {e}")))?;
            text.extend(encoded);
            text.push(b'\n');
            exported.lines += 1;
        }
        match &mut file {
            Some(file) => file.write_all(&text).map_err(failed)?,
            None => s.out.bytes(&text)?,
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if exported.changed {
        s.out.warn(
            &Error::conflict(format!("{vo} changed while it was exported"))
                .hint("export it again to have it as it is at one moment"),
        )?;
    }
    if let Some(mut file) = file {
        file.flush().map_err(failed)?;
        file.get_ref().sync_all().map_err(failed)?;
        s.out.show(&exported, || format!("{} lines are written.", exported.lines))?;
    }
    Ok(0)
}

fn new_file(path: &Path) -> Result<BufWriter<std::fs::File>, Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(|e| {
        Error::invalid(format!("cannot make {}: {e}", path.display())).hint("name a new file")
    })?;
    Ok(BufWriter::new(file))
}

fn failed(e: std::io::Error) -> Failure {
    Error::unavailable(format!("the export cannot be written: {e}")).into()
}

/// Runs a command about people who are expected.
pub async fn expected(s: &Session, command: Expected) -> Outcome {
    match command {
        Expected::List(args) => list_expected(s, args.of).await,
        Expected::Drop(args) => drop_expected(s, args).await,
    }
}

async fn list_expected(s: &Session, vo: VoId) -> Outcome {
    let client = s.vo_client(&vo).await?;
    let ask = |after| ListExpected { vo: vo.clone(), after, limit: None };
    let all = pages::all(&client, ask, |page: ExpectedPage| (page.people, page.next)).await?;
    let now = s.now();
    s.out.show(&all, || {
        let mut table = Table::new(&["PERSON", "GROUPS", "ROLES", "ENDS"]);
        for p in &all {
            let ends = p.expires.map(|e| when(e, now)).unwrap_or_default();
            table.row([p.person.to_string(), list(&p.groups), list(&p.roles), ends]);
        }
        table.text("The VO expects nobody; see `xos vo import`.")
    })?;
    Ok(0)
}

async fn drop_expected(s: &Session, args: DropArgs) -> Outcome {
    let DropArgs { of: vo, people, all } = args;
    let client = s.vo_client(&vo).await?;
    let mut count = 0;
    for people in people.chunks(EXPECT_MAX) {
        let ask = ForgetExpected { vo: vo.clone(), people: people.to_vec() };
        client.call(ask).await?;
        count += people.len();
    }
    // Always the first page: what it showed is gone then.
    let mut more = all;
    while more {
        let ask = ListExpected { vo: vo.clone(), after: None, limit: None };
        let page = client.call(ask).await?;
        let people: Vec<PersonId> = page.people.into_iter().map(|p| p.person).collect();
        more = !people.is_empty();
        if more {
            count += people.len();
            client.call(ForgetExpected { vo: vo.clone(), people }).await?;
        }
    }
    s.out.show(&count, || format!("{count} people are expected no longer."))?;
    Ok(0)
}
