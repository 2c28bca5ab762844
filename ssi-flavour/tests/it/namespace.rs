//! Pid and mount namespaces with an init that reaps.

use std::io::{BufRead, BufReader, PipeReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use xos_ssi::driver::Cell;

const PYTHON: &str = "/usr/bin/python3";
/// A /run as a real machine's: CRIU keeps its cache on nothing else.
const RUN: &str = "mount -t tmpfs -o mode=755 tmpfs /run; exec \"$@\"";
const INIT: &str = include_str!("init.py");

/// A pid and mount namespace: what is in it dies with it.
pub struct Namespace {
    unshare: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Its init, as seen from here.
    pub cell: Cell,
    /// Where programs write that are started with `-`.
    pub output: PipeReader,
}

impl Namespace {
    /// One whose first pid is the one after `base`; else why there is none.
    pub fn new(base: i32) -> Result<Namespace, String> {
        if !rustix::process::getuid().is_root() {
            return Err("needs root".into());
        }
        if !Path::new(PYTHON).exists() {
            return Err(format!("no {PYTHON}"));
        }
        let (output, writer) = std::io::pipe().unwrap();
        let mut unshare = Command::new("unshare")
            .args(["--fork", "--pid", "--mount", "--mount-proc", "--kill-child=SIGKILL", "--"])
            .args(["/bin/sh", "-ec", RUN, "sh", PYTHON, "-c", INIT, &base.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(writer)
            .spawn()
            .expect("unshare of util-linux");
        let orders = unshare.stdin.take().unwrap();
        let mut answers = BufReader::new(unshare.stdout.take().unwrap());
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        if line.trim() != "ready" {
            unshare.wait().unwrap();
            return Err(format!(
                "no namespaces here: {}",
                std::io::read_to_string(output).unwrap()
            ));
        }
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let init = std::fs::read_to_string(children).unwrap();
        let cell = Cell { pid: init.trim().parse().unwrap(), own_net: false };
        Ok(Namespace { unshare, orders, answers, cell, output })
    }

    /// Starts a program that writes to the file `out`, or `-`; returns its pid in here.
    pub fn start(&mut self, out: &str, words: &[&str]) -> i32 {
        let words = words.join("\t").replace('\n', "\x1f");
        writeln!(self.orders, "{out}\t{words}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }

    /// The pid from here of the process that has `pid` in there.
    pub fn outer(&self, pid: i32) -> Option<i32> {
        let namespace = |process: &Path| std::fs::read_link(process.join("ns/pid")).ok();
        let own = namespace(Path::new(&format!("/proc/{}", self.cell.pid)));
        let all = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        let mut same = all.filter(|process| {
            let status = std::fs::read_to_string(process.join("status")).unwrap_or_default();
            let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let inner = pids.and_then(|pids| pids.split_whitespace().next_back()?.parse().ok());
            inner == Some(pid) && own.is_some() && namespace(process) == own
        });
        same.find_map(|process| process.file_name()?.to_str()?.parse().ok())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let killed = self.unshare.kill().and_then(|()| self.unshare.wait());
        if let Err(e) = killed {
            println!("left behind: {e}");
        }
    }
}
