//! Signing in by ssh to a node, beside the same to a machine as Debian installs it, which knows
//! nothing of XOS: OpenSSH's own certificates, and an account that somebody made beforehand.

use super::{IN_A_ROUND, difference, in_turn};
use crate::bench::figure::Figure;
use crate::bench::samples::Samples;
use crate::bench::suite::Sheet;
use crate::bench::world::{SITE, World};
use crate::grid::sshd;
use crate::{Cmd, HostSpec, Result};

/// The machine beside the node, and the account there.
const PLAIN: &str = "plain";
/// Its authority for people and machines, and what is copied from it to the laptop.
const AUTHORITY: &str = "/var/lib/plain-ca";
/// Where that lies on the laptop.
const COPIES: &str = "/home/plain";
/// How much longer a sign-in may take, in milliseconds.
const MORE_MS: f64 = 10.0;

const SETUP: &str = "set -e
umask 077
mkdir -p AUTHORITY /run/sshd
cd AUTHORITY
for key in ca user; do ssh-keygen -q -t ed25519 -N '' -f $key; done
ssh-keygen -q -s ca -I person -n PLAIN -V +1h user.pub
echo \"@cert-authority PLAIN $(cat ca.pub)\" > known_hosts
rm -f /etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
ssh-keygen -q -s ca -h -I machine -n PLAIN -V +1h /etc/ssh/ssh_host_ed25519_key.pub
cat > /etc/ssh/sshd_config.d/plain.conf <<'END'
TrustedUserCAKeys AUTHORITY/ca.pub
HostKey /etc/ssh/ssh_host_ed25519_key
HostCertificate /etc/ssh/ssh_host_ed25519_key-cert.pub
UsePAM yes
END
useradd --create-home --shell /bin/bash PLAIN
";

/// Both in turn, straight to each machine; and to the node through its core.
pub(super) fn measure(world: &World, peers: bool, sheet: &mut Sheet) -> Result<()> {
    let config = format!("/home/{}/.xos/ssh/config", world.person.name);
    let node = format!("n1.{SITE}");
    let address = format!("HostName={SITE}-n1");
    let usual = ["ssh", "-o", "BatchMode=yes", "-o", "ControlMaster=no", "-o", "ControlPath=none"];
    let ours = [usual.as_slice(), &["-F", &config]].concat();
    let alias = format!("HostKeyAlias={node}");
    let straight = ["-o", "ProxyCommand=none", "-o", &address, "-o", &alias, &node, "true"];
    let straight = [ours.as_slice(), &straight].concat();
    let routed = [ours.as_slice(), &[node.as_str(), "true"]].concat();
    if peers {
        start_plain(world)?;
        let plain = plain_argv("true");
        let plain: Vec<&str> = plain.iter().map(String::as_str).collect();
        let ways = [straight, routed, [usual.as_slice(), &plain].concat()];
        let [ours, routed, plain] = in_turn(|way| world.spawn(IN_A_ROUND, &ways[way]))?;
        tell(sheet, &ours, &routed, Some(&plain));
    } else {
        let ways = [straight, routed];
        let [ours, routed] = in_turn(|way| world.spawn(IN_A_ROUND, &ways[way]))?;
        tell(sheet, &ours, &routed, None);
    }
    Ok(())
}

fn tell(sheet: &mut Sheet, ours: &Samples, routed: &Samples, plain: Option<&Samples>) {
    let peer = "OpenSSH's certificates alone";
    let figure = Figure::new("ssh n1 true, straight to the node", ours, "ms");
    sheet.add(figure.beside(peer, plain), ours);
    if let Some(plain) = plain {
        let (figure, more) = difference("  more than OpenSSH alone", ours, plain, MORE_MS);
        sheet.add(figure, &more);
    }
    let figure = Figure::new("ssh n1 true, through the core", routed, "ms");
    sheet.add(figure.beside(peer, plain), routed);
}

/// What a person on the laptop types to run a program on that machine, once it runs.
pub(in crate::bench) fn plain(world: &World, program: &str) -> Result<Vec<String>> {
    start_plain(world)?;
    let usual = ["ssh", "-o", "BatchMode=yes", "-o", "ControlMaster=no"];
    Ok(usual.map(str::to_owned).into_iter().chain(plain_argv(program)).collect())
}

/// Starts the machine beside the node, and gives the person on the laptop what opens it.
fn start_plain(world: &World) -> Result<()> {
    let host = world.grid.testbed().add_host(HostSpec::new(PLAIN)?)?;
    let setup = SETUP.replace("AUTHORITY", AUTHORITY).replace("PLAIN", PLAIN);
    host.run(&Cmd::shell(setup))?.ok()?;
    sshd(&host)?;
    let laptop = world.grid.laptop()?;
    for name in ["user", "user-cert.pub", "known_hosts"] {
        let content = host.read_file(format!("{AUTHORITY}/{name}"))?;
        laptop.write_file(format!("{COPIES}/{name}"), &content, 0o600)?;
    }
    Ok(())
}

/// What ssh is told there, as the configuration that `xos login` writes tells it for nodes.
fn plain_argv(program: &str) -> Vec<String> {
    let mut argv = ["-F", "none", "-i"].map(str::to_owned).to_vec();
    argv.push(format!("{COPIES}/user"));
    for option in [
        format!("CertificateFile={COPIES}/user-cert.pub"),
        "IdentitiesOnly=yes".to_owned(),
        format!("UserKnownHostsFile={COPIES}/known_hosts"),
        "GlobalKnownHostsFile=/dev/null".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        "UpdateHostKeys=no".to_owned(),
    ] {
        argv.extend(["-o".to_owned(), option]);
    }
    argv.extend([format!("{PLAIN}@{PLAIN}"), program.to_owned()]);
    argv
}
