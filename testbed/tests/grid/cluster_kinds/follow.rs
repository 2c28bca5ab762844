//! A program that counts, and whoever follows it.

use std::sync::mpsc::{Receiver, RecvTimeoutError};

use xos_testbed::{Exit, Process, Stdio};

use crate::cluster::{CLUSTER, tree};
use crate::manual::terminal::reader;
use crate::world::{COMMAND_MAX, VOLUME, World, soon};

/// How many lines of each counter show that a program goes on.
const MORE: usize = 10;

/// A program of milo's, followed from its first byte on: each of its counters writes lines of its
/// name and a number, from 0, until a file is there.
pub struct Followed<'a> {
    w: &'a World,
    counters: &'a [&'a str],
    stop: String,
    /// Its number in the cluster.
    pub tree: u64,
    /// The pid of its first process.
    pub pid: String,
    process: Process,
    shown: Receiver<String>,
    text: String,
}

impl<'a> Followed<'a> {
    /// Runs it on a node with more options, and waits until all of it counts. `name` is no other
    /// one's.
    pub fn begin(
        w: &'a World,
        name: &str,
        options: &[&str],
        argv: &[&str],
        counters: &'a [&'a str],
    ) -> Followed<'a> {
        let stop = stop_file(name);
        let told = format!("STOP={stop}");
        let head = ["--json", "cluster", "run", CLUSTER, "--cwd", VOLUME, "-E", &told];
        let run = w.xos(&w.milo, &[&head[..], options, &["--"], argv].concat()).json();
        let number = run["tree"].as_u64().expect("a number");
        let pid = run["pid"].as_i64().expect("a pid").to_string();
        let text = number.to_string();
        let attach = ["cluster", "attach", CLUSTER, text.as_str()];
        let attach = w.milo.command("xos").args(attach).stdio(Stdio::Piped);
        let mut process = w.laptop().spawn(&attach).unwrap();
        let shown = reader(process.stdout.take().expect("a pipe"));
        let text = String::new();
        let mut one = Followed { w, counters, stop, tree: number, pid, process, shown, text };
        one.goes_on();
        one
    }

    /// Waits until each counter has written more; none has missed or repeated a number.
    #[track_caller]
    pub fn goes_on(&mut self) {
        let before = self.counts();
        while self.counts().iter().zip(&before).any(|(now, before)| *now < before + MORE) {
            match self.shown.recv_timeout(COMMAND_MAX) {
                Ok(more) => self.text.push_str(&more),
                Err(e) => panic!("{}: {e}, after {}", self.what(), self.text),
            }
        }
    }

    fn counts(&self) -> Vec<usize> {
        self.counters.iter().map(|name| counted(&self.text, name)).collect()
    }

    /// Where it is.
    pub fn node(&self) -> String {
        let t = tree(self.w, &self.w.milo, self.tree);
        assert_eq!(t["pid"].to_string(), self.pid, "{t}");
        t["node"].as_str().expect("a node").to_owned()
    }

    /// Has it move, and waits until it has gone on there.
    #[track_caller]
    pub fn moves_to(&mut self, node: &str) {
        self.w.xos(&self.w.milo, &["cluster", "migrate", CLUSTER, &self.pid, node]).ok();
        assert_eq!(self.node(), node);
        self.goes_on();
    }

    /// Has it end; all that it wrote.
    #[track_caller]
    pub fn end(mut self) -> String {
        self.w.xsub(&self.w.milo, &["--on", "pisa", "--", "touch", &self.stop]).ok();
        loop {
            match self.shown.recv_timeout(COMMAND_MAX) {
                Ok(more) => self.text.push_str(&more),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(e) => panic!("{} does not end: {e}, after {}", self.what(), self.text),
            }
        }
        let exit = self.process.wait(COMMAND_MAX).unwrap();
        assert_eq!(exit, Exit::Code(0), "{}: {}", self.what(), self.text);
        // Nothing is lost or there twice to the last line.
        self.counts();
        soon("it ended", || {
            let t = tree(self.w, &self.w.milo, self.tree);
            (t["state"] == "ended").then_some(())
        });
        self.text
    }

    fn what(&self) -> String {
        format!("tree {}", tree(self.w, &self.w.milo, self.tree))
    }
}

/// The file that ends a program.
pub fn stop_file(name: &str) -> String {
    format!("{VOLUME}/{name}.stop")
}

/// How many lines a counter has written, all in order; the last line may not be whole yet.
#[track_caller]
pub fn counted(text: &str, name: &str) -> usize {
    let whole = text.rfind('\n').map_or("", |at| &text[..at]);
    let own = whole.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let mut count = 0;
    for number in own {
        assert_eq!(number.trim_end(), count.to_string(), "lost or doubled by {name}: {text}");
        count += 1;
    }
    count
}
