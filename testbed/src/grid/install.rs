//! Puts our programs where a site's administrator would.

use super::{BIN, as_user};
use crate::{Cmd, Error, Host, Result};
use std::path::{Path, PathBuf};

/// What a grid needs from the build folder.
const PROGRAMS: [&str; 12] = [
    "xos",
    "xosd",
    "xos-shim",
    "xos-principals",
    "xos-agent",
    "xos-cell",
    "xos-ghost",
    "xos-proc",
    "testbed",
    "spect",
    "libnss_xos.so",
    "libpam_xos.so",
];
/// What a host needs of the machine so that people sign in to it.
pub(super) const LOGIN_NEEDS: [&str; 2] = ["/usr/sbin/sshd", "/usr/sbin/pam-auth-update"];
/// Where sshd takes programs from: folders that are root's alone.
const SBIN: &str = "/usr/local/sbin";
/// What sshd is told, as docs/site-admin.md has it.
const SSHD_CONFIG: &str = include_str!("../../../pam-xos/sshd_config.d/xos.conf");
/// The profile for pam-auth-update(8).
const PAM_CONFIG: &str = include_str!("../../../pam-xos/pam-configs/xos");
/// The names under which `xos` is called.
const TOOLS: [&str; 10] =
    ["xos", "xsub", "xps", "xwait", "xkill", "xout", "krgadm", "migrate", "checkpoint", "restart"];

/// The folder as an absolute path, when every program is there.
pub(super) fn check(programs: &Path) -> Result<PathBuf> {
    let programs = programs.canonicalize().map_err(|e| missing(programs, &e.to_string()))?;
    for name in PROGRAMS {
        if !programs.join(name).is_file() {
            return Err(missing(&programs, &format!("{name} is not there")));
        }
    }
    Ok(programs)
}

fn missing(programs: &Path, why: &str) -> Error {
    let reason = format!("{why}; build the whole workspace first");
    Error::Start { what: format!("programs in {}", programs.display()), reason }
}

/// The `xos` tool under all its names.
pub(super) fn tools(host: &Host, programs: &Path) -> Result<()> {
    let programs = programs.display();
    let mut script = String::from("set -e\n");
    for name in TOOLS {
        script += &format!("ln -sf {programs}/xos {BIN}/{name}\n");
    }
    script += &format!("ln -sf {programs}/spect {BIN}/spect\n");
    host.run(&Cmd::shell(script))?.ok().map(drop)
}

/// An account for somebody who works on this host, with a home of its own. The programs are put
/// beside it when it does not reach the folder where they were built, as one below /root.
pub(super) fn account(host: &Host, programs: &Path, name: &str) -> Result<()> {
    let from = programs.display();
    let user = as_user(name).join(" ");
    let tools = TOOLS[1..].join(" ");
    let script = format!(
        "set -e\n\
         getent group {name} >/dev/null || groupadd {name}\n\
         getent passwd {name} >/dev/null || useradd -M -g {name} -d /home/{name} -s /bin/bash \
         {name}\n\
         mkdir -p /home/{name}\n\
         chown {name}:{name} /home/{name}\n\
         chmod 700 /home/{name}\n\
         if ! setpriv {user} test -x {BIN}/xos; then\n\
         cp --remove-destination {from}/xos {BIN}/xos\n\
         for tool in {tools}; do ln -sf xos {BIN}/$tool; done\n\
         fi\n"
    );
    host.run(&Cmd::shell(script))?.ok().map(drop)
}

/// What a core or node needs: the daemon, and on nodes names of grid accounts.
pub(super) fn daemon(host: &Host, programs: &Path, names: bool) -> Result<()> {
    let from = programs.display();
    let mut script = format!(
        "set -e\nmkdir -p /etc/xos\nln -sf {from}/xosd {BIN}/xosd\nln -sf {from}/xos-shim \
         {BIN}/xos-shim\n"
    );
    if names {
        // Members run it, and may not reach the folder where it was built.
        script += &format!(
            "cp --remove-destination {from}/xos-ghost {BIN}/xos-ghost\n\
             ln -sf xos-ghost {BIN}/xos-sh\n"
        );
        script += &format!(
            "lib=$(dirname \"$(ldconfig -p | sed -n 's/.*=> //p' | grep -m1 libnss_files.so.2)\")\n\
             [ -n \"$lib\" ] && [ -d \"$lib\" ] || lib=/usr/lib/$(uname -m)-linux-gnu\n\
             cp {from}/libnss_xos.so \"$lib/libnss_xos.so.2\"\n\
             sed -i -E 's/^(passwd|group|shadow):.*/\\1: files xos/' /etc/nsswitch.conf\n"
        );
    }
    host.run(&Cmd::shell(script))?.ok().map(drop)
}

/// What runs in clusters and is to move: programs of a folder that all nodes have (`/usr`), where
/// members reach them.
pub(super) fn movable(host: &Host, programs: &Path) -> Result<()> {
    let from = programs.display();
    let script = format!("cp --remove-destination {from}/spect {BIN}/spect\n");
    host.run(&Cmd::shell(script))?.ok().map(drop)
}

/// What a node needs so that people sign in to it: the PAM module, and how sshd is told to take
/// certificates of the grid; as docs/site-admin.md has it.
pub(super) fn login(host: &Host, programs: &Path) -> Result<()> {
    let from = programs.display();
    let script = format!(
        "set -e\n\
         lib=$(dirname \"$(find /usr/lib /lib -name pam_unix.so -print -quit)\")\n\
         cp {from}/libpam_xos.so \"$lib/pam_xos.so\"\n\
         cp {from}/xos-principals {SBIN}/xos-principals\n\
         chown root:root \"$lib/pam_xos.so\" {SBIN}/xos-principals\n\
         cat > /etc/ssh/sshd_config.d/xos.conf <<'END'\n{SSHD_CONFIG}END\n\
         cat > /usr/share/pam-configs/xos <<'END'\n{PAM_CONFIG}END\n\
         DEBIAN_FRONTEND=noninteractive pam-auth-update --package\n\
         rm -f /etc/ssh/ssh_host_*\n\
         ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key\n\
         mkdir -p /run/sshd\n"
    );
    host.run(&Cmd::shell(script))?.ok().map(drop)
}
