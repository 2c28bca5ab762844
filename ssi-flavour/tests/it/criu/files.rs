//! Files that a program wrote to after it was saved, and then was killed.

use super::*;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::os::unix::fs::symlink;
use xos_ssi::driver::files::{Cut, FilesError, bring_back, flush, record};
use xos_ssi::driver::images::OpenFile;

/// Numbers its lines, in a file that it does not open for appending: CRIU compares its size.
const LOGGER: &str = "
import sys, time
log, n = open(sys.argv[1], 'w'), 0
while True:
    log.write(f'a {n}\\n')
    log.flush()
    n += 1
    time.sleep(0.02)
";

/// A program that was saved, went on writing to its log, and was killed.
struct Killed {
    two: Two,
    log: PathBuf,
    images: PathBuf,
    files: Vec<OpenFile>,
    /// What the log had when the program was saved.
    then: String,
    pid: i32,
}

impl Killed {
    /// Of the shell, which appends, or of a program that does not.
    async fn new(appends: bool) -> Option<Killed> {
        let mut two = Two::new().await?;
        let home = two.path("home");
        std::fs::create_dir(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(OWNER), Some(OWNER)).unwrap();
        let log = two.file("home/log", 0o600);
        let pid = match appends {
            true => two.start(log.to_str().unwrap(), &["/bin/sh", "-c", COUNTER]),
            false => {
                let out = two.file("out", 0o600);
                let words = ["/usr/bin/python3", "-c", LOGGER, log.to_str().unwrap()];
                two.start(out.to_str().unwrap(), &words)
            }
        };
        lines(&log, 10);
        let images = two.folder("images");
        let order = two.dump_order(pid, &images, Leave::Stopped);
        let cell = Some(two.here.cell);
        // As before a move; it writes on.
        flush(order.root, cell, &person(OWNER)).unwrap();
        let mut dumped = two.criu.dump(&order).await.unwrap();
        record(&mut dumped.open_files, order.root, cell, &person(OWNER)).unwrap();
        let files = dumped.open_files.clone();
        let (criu, open_files) = (dumped.version, dumped.open_files);
        let origin = Origin { pid: dumped.pid, owner: OWNER, epoch: 1, criu, open_files };
        two.criu.seal(&images, origin).await.unwrap();
        let then = std::fs::read_to_string(&log).unwrap();
        let group = Pid::from_raw(order.root);
        killpg(group, Signal::SIGCONT).unwrap();
        lines(&log, then.lines().count() + 10);
        killpg(group, Signal::SIGKILL).unwrap();
        let until = Instant::now() + PATIENCE;
        while two.here.outer(pid).is_some() {
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(Killed { two, log, images, files, then, pid })
    }

    fn bring_back(&self) -> Result<Vec<Cut>, FilesError> {
        bring_back(&self.files, Some(self.two.there.cell), &person(OWNER), "7-2")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// That the program is not restarted, for this reason, and its log left as it is.
    #[track_caller]
    fn stays(&self, why: &str) {
        let before = std::fs::read(&self.log).ok();
        let error = self.bring_back().unwrap_err();
        assert!(matches!(error, FilesError::Changed { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains(why) && said.contains(self.log.to_str().unwrap()), "{said}");
        assert_eq!(std::fs::read(&self.log).ok(), before);
    }

    /// That it goes on where it was saved, with each line once; what was cut is where it is said.
    async fn goes_on(&self) {
        let after = self.text();
        let done = self.bring_back().unwrap();
        assert_eq!(self.text(), self.then);
        let [cut] = done.as_slice() else { panic!("{done:?}") };
        assert_eq!((&cut.path, cut.bytes), (&self.log, (after.len() - self.then.len()) as u64));
        assert_eq!(self.then.clone() + &std::fs::read_to_string(&cut.kept).unwrap(), after);
        assert_eq!(self.bring_back().unwrap(), [], "a second look finds all as it was");
        let two = &self.two;
        let restored = two.criu.restore(two.restore_order(&self.images)).await.unwrap();
        assert_eq!(restored.pid, self.pid);
        counts(&lines(&self.log, after.lines().count() + 10), "a ");
    }
}

/// If it failed, each line that a program wrote since its checkpoint would be there twice.
#[tokio::test]
async fn a_log_that_is_appended_to_has_each_line_once() {
    let Some(killed) = Killed::new(true).await else { return };
    killed.goes_on().await;
}

/// If it failed, a program with a log would not be restarted at all.
#[tokio::test]
async fn a_log_whose_size_criu_compares_is_cut_before() {
    let Some(killed) = Killed::new(false).await else { return };
    let two = &killed.two;
    let refused = two.criu.restore(two.restore_order(&killed.images)).await.unwrap_err();
    assert!(refused.to_string().contains("a file changed since"), "{refused}");
    killed.goes_on().await;
}

/// If it failed, a program would go on with files that are not what it takes them for, or what
/// another one wrote would be cut.
#[tokio::test]
async fn files_that_did_not_only_grow_keep_a_program_and_are_named() {
    let Some(killed) = Killed::new(true).await else { return };
    let log = &killed.log;
    let text = killed.text();
    let writer = std::fs::File::options().append(true).open(log).unwrap();
    killed.stays("another program has it open for writing");
    drop(writer);
    let mode = |mode| std::fs::set_permissions(log, PermissionsExt::from_mode(mode)).unwrap();
    mode(0o666);
    killed.stays("others may write it too");
    mode(0o600);
    std::fs::write(log, text.replacen("a 0", "b 0", 1)).unwrap();
    killed.stays("what it had was written over");
    std::fs::write(log, &killed.then[1..]).unwrap();
    killed.stays("and had");
    let kept = log.with_file_name("kept");
    std::fs::write(log, &text).unwrap();
    std::fs::rename(log, &kept).unwrap();
    killed.stays("it is gone");
    // Who may write there would have the person's own rights used on another file.
    symlink(&kept, log).unwrap();
    killed.stays("something else is in its place");
    std::fs::remove_file(log).unwrap();
    std::fs::write(log, &text).unwrap();
    std::os::unix::fs::chown(log, Some(OWNER), Some(OWNER)).unwrap();
    mode(0o600);
    killed.stays("another file is in its place");
    std::fs::rename(&kept, log).unwrap();
    // Where nothing can be kept beside it nothing is cut.
    let home = log.parent().unwrap();
    std::os::unix::fs::chown(home, Some(0), Some(0)).unwrap();
    killed.stays("cannot be kept beside it");
    std::os::unix::fs::chown(home, Some(OWNER), Some(OWNER)).unwrap();
    killed.goes_on().await;
}
