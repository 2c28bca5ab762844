//! A tree that CRIU makes is kept by CRIU until it was looked at: all of its files are open then,
//! and none of its own code has run yet. CRIU asks by a script, when it has restored all and before
//! it lets go of the tree (criu(8), `--action-script`), and ends the tree when the script fails.

use super::error::DriverError;
use super::run::Run;
use nix::unistd::{Uid, fchown};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsFd;
use std::sync::mpsc::Sender;

/// The script's name in the folder of a run.
const SCRIPT: &str = "gate";

/// This side of what the script asks.
pub(super) struct Gate {
    asked: PipeReader,
    answer: PipeWriter,
}

impl Gate {
    /// Has a run ask, which is a person's, of this uid.
    pub(super) fn new(run: &mut Run, uid: u32) -> Result<Gate, DriverError> {
        let failed = || DriverError::system("make pipes for CRIU");
        let (asked, asks) = pipe().map_err(failed())?;
        let (answered, answer) = pipe().map_err(failed())?;
        // The script opens them anew.
        for end in [asks.as_fd(), answered.as_fd()] {
            let given = fchown(end, Some(Uid::from_raw(uid)), None);
            given.map_err(|e| failed()(e.into()))?;
        }
        let (asks, answered) = (run.keep(asks.into()), run.keep(answered.into()));
        let script = run.script(SCRIPT, &script(asks, answered))?;
        run.arguments(["--action-script", &script]);
        Ok(Gate { asked, answer })
    }

    /// Waits until CRIU asks or ends, and answers by what `look` finds, which is told before.
    pub(super) fn serve(
        mut self,
        look: impl FnOnce() -> Result<(), DriverError>,
        tell: &Sender<Result<(), DriverError>>,
    ) {
        if self.asked.read_exact(&mut [0]).is_err() {
            // It ended before.
            return;
        }
        let found = look();
        let answer = if found.is_ok() { "yes\n" } else { "no\n" };
        // Nobody waits when CRIU was broken off.
        let _gone = tell.send(found);
        let _gone = self.answer.write_all(answer.as_bytes());
    }
}

/// CRIU has a script inherit nothing: it takes the descriptors from CRIU itself, its parent.
fn script(asks: i32, answered: i32) -> String {
    format!(
        "#!/bin/sh\n\
         [ \"$CRTOOLS_SCRIPT_ACTION\" = post-restore ] || exit 0\n\
         echo >/proc/$PPID/fd/{asks} &&\n\
         read -r answer </proc/$PPID/fd/{answered} && [ \"$answer\" = yes ]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};
    use std::sync::mpsc::channel;
    use tempfile::TempDir;

    /// A parent that holds the pipes, as CRIU does, and its script.
    fn asking(action: &str) -> (Gate, Child, TempDir) {
        let (asked, asks) = pipe().unwrap();
        let (answered, answer) = pipe().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(SCRIPT);
        std::fs::write(&file, script(1, 0)).unwrap();
        // It is not its parent's last command, which would become it.
        let text = format!("/bin/sh {}; exit $?", file.display());
        let child = Command::new("/bin/sh")
            .args(["-c", &text])
            .env("CRTOOLS_SCRIPT_ACTION", action)
            .stdin(answered)
            .stdout(asks)
            .spawn()
            .unwrap();
        (Gate { asked, answer }, child, dir)
    }

    #[test]
    fn only_what_was_found_good_goes_on() {
        // wrong: a tree would be its person's before anybody looked at it
        for good in [true, false] {
            let (gate, mut child, _dir) = asking("post-restore");
            let (tell, told) = channel();
            let found = || if good { Ok(()) } else { Err(DriverError::Gone { pid: 7 }) };
            gate.serve(found, &tell);
            assert_eq!(child.wait().unwrap().success(), good);
            assert_eq!(told.try_recv().unwrap().is_ok(), good);
        }
    }

    #[test]
    fn nobody_is_asked_at_other_times() {
        // wrong: CRIU would wait before there is a tree, for ever
        let (gate, mut child, _dir) = asking("pre-restore");
        let (tell, told) = channel();
        gate.serve(|| Ok(()), &tell);
        assert!(child.wait().unwrap().success() && told.try_recv().is_err());
    }
}
