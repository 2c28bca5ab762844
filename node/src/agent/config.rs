//! The section `[node]`.

use serde::Deserialize;
use std::path::PathBuf;

/// The section `[node]`: this machine runs units.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The node's label, unique at its site: 1 to 24 of a-z, 0-9 and '-'.
    pub name: String,
    /// Processors that units may use, in thousandths of one. Default: all of the machine.
    pub cpu_milli: Option<u32>,
    /// Memory that units may use, in bytes. Default: nine tenths of the machine's.
    pub memory_bytes: Option<u64>,
    /// Processes and threads that the units of one job may have on this node at a time, all together.
    /// Who asks for more in each unit has fewer units run at a time, or none. Default: a quarter of
    /// what the kernel can have.
    pub processes: Option<u32>,
    /// Whether the kernel is to move processes between control groups at once, by the mount option
    /// `favordynmods`. Without it the first unit of each job and each session waits for 5 to 15 ms;
    /// with it each fork of this machine costs a little more. Where the kernel does not know or
    /// allow it, it is left. Default true.
    #[serde(default = "default_favor_dynmods")]
    pub favor_dynmods: bool,
    /// Where homes of grid accounts are made. Default `/home/xos`.
    #[serde(default = "default_homes")]
    pub homes: PathBuf,
    /// Members may sign in to this machine.
    pub login: Option<Login>,
    /// The node may be in a cluster of the site.
    pub cluster: Option<Cluster>,
}

fn default_favor_dynmods() -> bool {
    true
}

fn default_homes() -> PathBuf {
    PathBuf::from("/home/xos")
}

/// The section `[node.login]`: members may sign in to this machine, through its sshd and PAM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The shell of grid accounts. Default `/bin/bash`.
    #[serde(default = "default_shell")]
    pub shell: PathBuf,
    /// Where this machine's sshd listens, an address with a port: streams of `xos ssh` go there.
    /// Default `127.0.0.1:22`.
    #[serde(default = "default_sshd")]
    pub sshd: String,
    /// The public host key files that the site certifies. Default: those that are there of
    /// `/etc/ssh/ssh_host_ed25519_key.pub`, `/etc/ssh/ssh_host_ecdsa_key.pub` and
    /// `/etc/ssh/ssh_host_rsa_key.pub`.
    #[serde(default)]
    pub host_keys: Vec<String>,
    /// What has sshd read the certificates of its host keys again after they were renewed: a
    /// program by its absolute path, then its arguments; no shell reads them. It is run as root
    /// and must end within 60 seconds; one that fails is run again a minute later. `[]`: nothing is
    /// run, which is enough up to OpenSSH 9.7. Default: where systemd runs the machine,
    /// `/usr/bin/systemctl try-reload-or-restart` of `ssh.service`, or of `sshd.service` where
    /// there is no such one.
    pub reload_sshd: Option<Vec<String>>,
    /// Only members of these VOs may sign in. Default: of all that the site serves.
    #[serde(default)]
    pub vos: Vec<String>,
    /// Who may not sign in: persons (`mallory@pisa`), and sites (`pisa`) none of whose people may.
    #[serde(default)]
    pub deny: Vec<String>,
    /// Seconds from the end of a person's last session until what still runs of their sessions is
    /// ended; 0: at once. It counts where sessions are in control groups of `xosd`; those of
    /// systemd end as `KillUserProcesses` says. Default: what runs goes on until the membership
    /// ends.
    pub linger_s: Option<u64>,
    /// Processors for all sessions of one person together, in thousandths of one. Where systemd
    /// holds sessions, `xosd` has it limit the person's slice (`CPUQuota`), which it does in
    /// hundredths, rounded up here. Default: no limit.
    pub cpu_milli: Option<u32>,
    /// Memory for all sessions of one person together, in bytes; with a limit they do not swap.
    /// Of systemd's slice `MemoryMax` and `MemorySwapMax`. Default: no limit.
    pub memory_bytes: Option<u64>,
    /// Processes and threads of all sessions of one person together. Of systemd's slice `TasksMax`,
    /// in place of systemd's own. Default: as of one job.
    pub processes: Option<u32>,
    /// Whether people may prove themselves to PAM by a code that they type in the console of their
    /// own site: at a console, for `sudo`; never at sshd or from another machine. Default false.
    #[serde(default)]
    pub device: bool,
    /// Whether people of this site may prove themselves to PAM by the password that they sign in
    /// with. Whoever is root on the machine can see what is typed there and sign in with it
    /// anywhere: say true only where root is trusted with that. Never asked of people of other
    /// sites; not taken where `[cda]` has `passwords = false`, nor of who signs in by a passkey as
    /// well. With `device` people choose. sshd takes it too, unless `PasswordAuthentication no`
    /// forbids that. Default false.
    #[serde(default)]
    pub passwords: bool,
}

/// The section `[node.cluster]`: this node may work in a cluster of its site, once an administrator
/// takes it up (`xos cluster add`). Programs of members then come to it, and leave it, as the core
/// decides.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// The program CRIU, by its absolute path. Default: `criu/criu` beside the folder of `xosd`, else
    /// what `PATH` leads to. Without one, or with one older than 4.2, programs run here and never
    /// move.
    pub criu: Option<PathBuf>,
    /// Folders that have the same content on all nodes of the cluster: programs that use files
    /// elsewhere do not move. Default `/bin`, `/lib`, `/lib32`, `/lib64`, `/sbin`, `/usr` and
    /// `/xtreemfs`.
    pub shared: Vec<PathBuf>,
    /// How long saving or restoring one program may take, in seconds, until it is given up; at most
    /// 21600 counts. The core waits a minute longer. Default 600.
    pub limit_s: u64,
    /// Whether images of programs that move go straight between this node and others of its cluster
    /// where these reach one another: for each one this node then listens on a port that the
    /// system chooses, until who is to have the image has connected, at most for some seconds.
    /// With false, or where a firewall is in between, they go through the core, which takes
    /// longer. Default true.
    pub direct: bool,
    /// Processes and threads that all programs of one person on this node, and their sessions here,
    /// may come to together: beyond that no program of theirs begins another process. A node has
    /// 32768 numbers for all processes of the cluster's programs. 16 at least count. Default 8192.
    pub person_processes: u32,
}

impl Default for Cluster {
    fn default() -> Cluster {
        let shared = ["/bin", "/lib", "/lib32", "/lib64", "/sbin", "/usr", "/xtreemfs"];
        Cluster {
            criu: None,
            shared: shared.map(PathBuf::from).to_vec(),
            limit_s: 600,
            direct: true,
            person_processes: 8192,
        }
    }
}

fn default_shell() -> PathBuf {
    PathBuf::from("/bin/bash")
}

fn default_sshd() -> String {
    "127.0.0.1:22".to_owned()
}
