//! A build by `make -j24` in a cluster shell, beside the same on one of its nodes.

use super::cluster::{CLUSTER, Cluster, PROGRAM, SHELL, volume};
use crate::bench::failed;
use crate::bench::figure::{Figure, Reach};
use crate::bench::suite::{Sheet, one};
use crate::error::Context as _;
use crate::{Cmd, Result};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Nodes, which have the machine together.
pub(super) const NODES: usize = 4;
/// How many times as fast all of them are to be.
const TIMES: f64 = 3.0;
/// Lines that make has run at once.
const AT_ONCE: &str = "-j24";
/// Files of the program that is built where the kernel's source is missing.
const FILES: usize = 64;
/// Where Debian's source of the kernel is once it was unpacked.
const SOURCES: &str = "/usr/src";
/// What the kernel's build calls that people may not have.
const KERNEL_NEEDS: [&str; 5] = ["make", "gcc", "flex", "bison", "bc"];

/// What is built.
enum Source {
    /// The kernel's `tinyconfig`, out of this folder.
    Kernel(PathBuf),
    /// A program of many files in C, made for this.
    Made,
}

pub(super) fn measure(cluster: &Cluster, sheet: &mut Sheet) -> Result<()> {
    let node = &cluster.world.site.nodes[0];
    let there = |program: &str| -> Result<bool> {
        let found = node.run(&Cmd::shell(format!("command -v {program}")))?;
        Ok(found.exit.is_success())
    };
    for program in ["make", "gcc"] {
        if !there(program)? {
            return Err(failed("building", format!("{program} is not installed")));
        }
    }
    let mut source = Source::Made;
    if let Some(folder) = kernel(Path::new(SOURCES))? {
        let all = KERNEL_NEEDS.into_iter().map(there).collect::<Result<Vec<bool>>>()?;
        if all.into_iter().all(|there| there) {
            source = Source::Kernel(folder);
        }
    }
    let one_s = one_node(cluster, &source)?;
    (sheet.say)(&format!("make on one node: {one_s:.1} s"));
    let all_s = all_nodes(cluster, &source)?;
    tell(sheet, &source, one_s, all_s);
    Ok(())
}

/// A folder with the source of the kernel.
fn kernel(sources: &Path) -> Result<Option<PathBuf>> {
    let what = || format!("listing {}", sources.display());
    let entries = match std::fs::read_dir(sources) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.context(what)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.context(what)?.path();
        // Headers alone have no such folder.
        if path.join("Kbuild").is_file() && path.join("init/main.c").is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found.pop())
}

impl Source {
    /// What it is called in the figures.
    fn name(&self) -> String {
        match self {
            Source::Kernel(folder) => {
                let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
                format!("tinyconfig of {name}")
            }
            Source::Made => format!("{FILES} made-up files in C"),
        }
    }

    /// Makes ready to build in a folder that is not there yet.
    fn prepare(&self, folder: &str) -> String {
        match self {
            Source::Kernel(from) => {
                format!("mkdir {folder} && make -C {} O={folder} tinyconfig", from.display())
            }
            Source::Made => format!("{PROGRAM} within sources --folder {folder} --files {FILES}"),
        }
    }

    /// What is typed in the folder.
    fn make(&self, folder: &str) -> String {
        match self {
            Source::Kernel(from) => format!("make -C {} O={folder} {AT_ONCE}", from.display()),
            Source::Made => format!("make {AT_ONCE}"),
        }
    }
}

/// Runs a line on one node, as a program of the cluster that stays there.
fn on_node(cluster: &Cluster, folder: &str, line: &str) -> Result<()> {
    let run = ["cluster", "run", CLUSTER, "--node", "n1", "--cwd", folder, "--", "sh", "-c", line];
    cluster.xos(&run).map(drop)
}

/// Seconds of the build with all of it on one node.
fn one_node(cluster: &Cluster, source: &Source) -> Result<f64> {
    let folder = format!("{}/one", volume());
    on_node(cluster, &volume(), &source.prepare(&folder))?;
    let begin = Instant::now();
    on_node(cluster, &folder, &source.make(&folder))?;
    Ok(begin.elapsed().as_secs_f64())
}

/// Seconds of the build by a shell whose lines are placed.
fn all_nodes(cluster: &Cluster, source: &Source) -> Result<f64> {
    let folder = format!("{}/all", volume());
    on_node(cluster, &volume(), &source.prepare(&folder))?;
    // Without a cluster to ask, all would run here, and be called a build on many nodes.
    let script = format!(
        "test -n \"$XOS_CLUSTER_SOCKET\" || {{ echo this is no cluster shell >&2; exit 1; }}\n\
         exec {} SHELL={SHELL}",
        source.make(&folder)
    );
    let begin = Instant::now();
    cluster.shell(&folder, &["sh", "-c", &script])?;
    Ok(begin.elapsed().as_secs_f64())
}

fn tell(sheet: &mut Sheet, source: &Source, one_s: f64, all_s: f64) {
    let name = source.name();
    let times = one(one_s / all_s);
    let figure = format!("make {AT_ONCE}, {name}: {NODES} nodes are faster than one");
    sheet.add(Figure::new(figure, &times, "times").reach(Reach::AtLeast(TIMES)), &times);
    let (one_s, all_s) = (one(one_s), one(all_s));
    sheet.add(Figure::new("  on one of these nodes", &one_s, "s"), &one_s);
    sheet.add(Figure::new(format!("  on {NODES} nodes"), &all_s, "s"), &all_s);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::suite::Run;

    /// If it failed, a slower build would be called a faster one, or the synthetic one the kernel.
    #[test]
    fn a_figure_says_what_was_built_and_how_much_faster() {
        let run =
            Run { dir: PathBuf::new(), program: PathBuf::new(), repetitions: 1, peers: false };
        let mut say = |_: &str| {};
        let mut sheet = Sheet::new(&run, &mut say);
        tell(&mut sheet, &Source::Made, 120.0, 60.0);
        let first = &sheet.figures[0];
        assert_eq!((first.value, first.met), (2.0, Some(false)));
        assert!(first.name.contains("made-up") && !first.name.contains("tinyconfig"));
        let kernel = Source::Kernel("/usr/src/linux-source-6.1".into());
        assert_eq!(kernel.name(), "tinyconfig of linux-source-6.1");
    }

    /// If it failed, headers would be taken for the source, or the source not be found.
    #[test]
    fn the_kernel_is_where_its_source_is() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(kernel(&dir.path().join("none")).unwrap(), None);
        let (headers, source) = (dir.path().join("linux-headers"), dir.path().join("linux-source"));
        for folder in [&headers, &source] {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join("Kbuild"), "").unwrap();
        }
        assert_eq!(kernel(dir.path()).unwrap(), None);
        std::fs::create_dir(source.join("init")).unwrap();
        std::fs::write(source.join("init/main.c"), "").unwrap();
        assert_eq!(kernel(dir.path()).unwrap(), Some(source));
    }
}
