//! Tells this machine's sshd that the certificates of its host keys are new ones.
//!
//! Up to OpenSSH 9.7 the sshd of each connection reads them from their files (`main`, sshd.c). From
//! 9.8 on the listener reads them when it starts or gets SIGHUP, and hands them to `sshd-session`
//! (`recv_rexec_state`, sshd-session.c): it would show those that it once read until they expire,
//! and after that nobody would know the machine.
//!
//! The signal alone is not sent from here: an sshd that then reads a configuration which somebody
//! is just writing ends. So the way of the machine's service is taken, or what its administrator
//! says.

use crate::programs::{BOOTED, run};
use std::path::Path;
use std::time::Duration;
use xos_base::Error;

/// Where systemd finds services of the machine.
const FOLDERS: [&str; 2] = ["etc/systemd/system", "usr/lib/systemd/system"];
/// What sshd is called there: Debian's name, and that of the others.
const SERVICES: [&str; 2] = ["ssh.service", "sshd.service"];
/// Has a service read its configuration again; one that does not run is no error.
const SYSTEMCTL: [&str; 2] = ["/usr/bin/systemctl", "try-reload-or-restart"];
/// How long the program may take.
const END_MAX: Duration = Duration::from_secs(60);

/// How sshd is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reload {
    /// By this program, an absolute path.
    By {
        /// The program.
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
        /// The section of the configuration where another can be named.
        section: &'static str,
    },
    /// Not at all: the administrator says so.
    No,
    /// Nobody says how; this section of the configuration could.
    Unknown(&'static str),
}

impl Reload {
    /// As `reload_sshd` of `section` says; else as the machine below `root` has it.
    ///
    /// # Errors
    /// [`xos_base::Kind::Invalid`] when the program is not named by an absolute path.
    pub(super) fn open(
        section: &'static str,
        configured: Option<&[String]>,
        root: &Path,
    ) -> Result<Reload, Error> {
        match configured {
            Some([]) => Ok(Reload::No),
            Some([program, ..]) if !Path::new(program).is_absolute() => {
                let text = format!("[{section}] reload_sshd: {program:?} is no absolute path");
                Err(Error::invalid(text)
                    .hint("write it as [\"/usr/bin/systemctl\", \"reload\", \"ssh.service\"]"))
            }
            Some([program, arguments @ ..]) => {
                let (program, arguments) = (program.clone(), arguments.to_vec());
                Ok(Reload::By { program, arguments, section })
            }
            None => Ok(Reload::of_the_machine(section, root)),
        }
    }

    fn of_the_machine(section: &'static str, root: &Path) -> Reload {
        let there = |s: &&str| FOLDERS.iter().any(|f| root.join(f).join(s).exists());
        let found = SERVICES.iter().copied().find(there);
        match found.filter(|_| root.join(BOOTED).is_dir()) {
            Some(service) => {
                let [program, verb] = SYSTEMCTL.map(str::to_owned);
                Reload::By { program, arguments: vec![verb, service.to_owned()], section }
            }
            None => Reload::Unknown(section),
        }
    }

    /// Tells sshd, and waits until that is done.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] with what the program said.
    pub(super) async fn run(&self) -> Result<(), Error> {
        let (program, arguments, section) = match self {
            Reload::By { program, arguments, section } => (program, arguments, section),
            Reload::No => return Ok(()),
            Reload::Unknown(section) => {
                tracing::warn!(
                    "sshd is not told of its new host certificates, and from OpenSSH 9.8 on shows \
                     the former ones: name a command in [{section}] reload_sshd"
                );
                return Ok(());
            }
        };
        let fail = |why: String| {
            let text = format!("sshd may show former host certificates: {program}: {why}");
            Error::unavailable(text).hint(format!("see [{section}] reload_sshd"))
        };
        run(program, arguments, END_MAX).await.map_err(fail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use xos_base::Kind;

    fn words(all: &[&str]) -> Vec<String> {
        all.iter().map(|w| (*w).to_owned()).collect()
    }

    fn by(program: &str, arguments: &[&str]) -> Reload {
        let (program, arguments) = (program.to_owned(), words(arguments));
        Reload::By { program, arguments, section: "ssh_host" }
    }

    /// If it failed, an administrator who says nothing would have machines that nobody knows once
    /// their first certificates expired, or what they say would not count.
    #[test]
    fn sshd_is_told_as_the_administrator_or_else_the_machine_says() {
        let dir = tempfile::tempdir().unwrap();
        let open = |configured: Option<&[&str]>| {
            let configured = configured.map(words);
            Reload::open("ssh_host", configured.as_deref(), dir.path()).map_err(|e| e.kind)
        };
        assert_eq!(open(None), Ok(Reload::Unknown("ssh_host")));
        let units = dir.path().join("usr/lib/systemd/system");
        fs::create_dir_all(&units).unwrap();
        fs::write(units.join("sshd.service"), "").unwrap();
        assert_eq!(open(None), Ok(Reload::Unknown("ssh_host")), "systemd does not run");
        fs::create_dir_all(dir.path().join(BOOTED)).unwrap();
        let told = |service| Ok(by("/usr/bin/systemctl", &["try-reload-or-restart", service]));
        assert_eq!(open(None), told("sshd.service"));
        fs::write(units.join("ssh.service"), "").unwrap();
        assert_eq!(open(None), told("ssh.service"));
        assert_eq!(open(Some(&[])), Ok(Reload::No));
        assert_eq!(open(Some(&["/bin/a", "b c", "d"])), Ok(by("/bin/a", &["b c", "d"])));
        assert_eq!(open(Some(&["systemctl", "reload"])), Err(Kind::Invalid));
    }

    /// If it failed, what went wrong would be taken for done, or a shell would read the words.
    #[tokio::test]
    async fn the_program_is_run_as_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a; b $(c)");
        by("/usr/bin/touch", &[path.to_str().unwrap()]).run().await.unwrap();
        assert!(path.exists());
        Reload::No.run().await.unwrap();
        let why = by("/usr/bin/test", &["-e", "/nowhere"]).run().await.unwrap_err().message;
        assert!(why.contains("exit status: 1"), "{why}");
        let why = by("/nowhere/systemctl", &[]).run().await.unwrap_err().message;
        assert!(why.contains("cannot be run"), "{why}");
    }
}
