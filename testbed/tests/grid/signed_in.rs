//! People on machines: their accounts, ssh, and terminals at which they type.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use xos_testbed::grid::Person;
use xos_testbed::{Cmd, Exit, Host, Process, Signal};

use crate::tool::Said;
use crate::world::{VO, World, sh, soon};

/// How long a program at a terminal may take to end.
const END_MAX: Duration = Duration::from_secs(60);

/// What a person's account is called on every node.
pub fn account(person: &Person) -> String {
    format!("{}.{VO}", person.name)
}

impl World {
    /// Stock ssh as `person` on the laptop, with the configuration that `xos login` wrote.
    pub fn ssh(&self, person: &Person, more: &[&str], node: &str, command: &str) -> Said {
        let config = format!("/home/{}/.xos/ssh/config", person.name);
        let args = [&["-F", &config, "-o", "BatchMode=yes"], more, &[node, command]].concat();
        self.run(person, "ssh", &args)
    }

    /// The same straight to the machine's sshd.
    pub fn ssh_direct(&self, person: &Person, host: &str, node: &str, command: &str) -> Said {
        let name = format!("HostName={host}");
        let machine = node.rsplit('@').next().unwrap();
        let alias = format!("HostKeyAlias={machine}");
        let options = ["-o", "ProxyCommand=none", "-o", &name, "-o", &alias];
        self.ssh(person, &options, node, command)
    }

    /// A node by the name of its host.
    #[track_caller]
    pub fn node(&self, name: &str) -> &Host {
        let found = self.nodes().find(|n| n.name().as_str() == name);
        found.unwrap_or_else(|| panic!("no host {name}"))
    }
}

/// A terminal of a host, by script(1): the test sees what it shows, and types.
pub struct Terminal<'a> {
    host: &'a Host,
    folder: String,
    process: Process,
    /// How much of what it shows was dealt with, in bytes.
    seen: usize,
}

impl<'a> Terminal<'a> {
    /// A new one, at which root starts `command`.
    pub fn open(host: &'a Host, command: &str) -> Terminal<'a> {
        static OPENED: AtomicUsize = AtomicUsize::new(0);
        let folder = format!("/root/terminal.{}", OPENED.fetch_add(1, Ordering::Relaxed));
        // Opened for both, a FIFO never ends.
        let script = format!(
            "mkdir {folder} && cd {folder} && mkfifo keys && \
             exec script -qfe -E always -c 'tty > tty; exec {command}' /dev/null <> keys > screen"
        );
        let process = host.spawn(&Cmd::shell(script)).unwrap();
        Terminal { host, folder, process, seen: 0 }
    }

    /// All that it has shown, but for a character that is not there whole.
    pub fn screen(&self) -> String {
        let shown = self.host.read_file(format!("{}/screen", self.folder)).unwrap_or_default();
        let whole = std::str::from_utf8(&shown).map_or_else(|e| e.valid_up_to(), str::len);
        String::from_utf8_lossy(&shown[..whole]).into_owned()
    }

    /// Waits until `find` finds something in what it shows after what this found last. It says how
    /// many bytes of that are dealt with.
    #[track_caller]
    pub fn shows<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<(T, usize)>) -> T {
        let look = || find(&self.screen()[self.seen..]);
        let (found, length) = soon(&format!("the terminal shows {what}"), look);
        self.seen += length;
        found
    }

    /// Waits for a text; all that was shown from the last one on, with it.
    #[track_caller]
    pub fn says(&mut self, text: &str) -> String {
        self.shows(text, |shown| {
            let end = shown.find(text)? + text.len();
            Some((shown[..end].to_owned(), end))
        })
    }

    /// Types; what nobody reads yet waits.
    pub fn types(&self, text: &str) {
        let keys = Cmd::shell(format!("cat > {}/keys", self.folder)).stdin(text.as_bytes());
        self.host.run(&keys).unwrap().ok().unwrap();
    }

    /// Types what is asked for without being shown.
    #[track_caller]
    pub fn types_hidden(&self, text: &str) {
        let stty = format!("stty -a -F $(cat {}/tty)", self.folder);
        soon("the terminal hides what is typed", || {
            sh(self.host, &stty).contains(" -echo ").then_some(())
        });
        self.types(text);
    }

    /// Waits until its program ends by itself; all that it showed.
    #[track_caller]
    pub fn ended(mut self) -> (Exit, String) {
        let exit = self.process.wait(END_MAX).unwrap();
        (exit, self.screen())
    }
}

impl Drop for Terminal<'_> {
    /// Whoever works at it hangs up.
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.signal(Signal::KILL);
    }
}
