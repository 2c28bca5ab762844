//! The suite `login`: names of accounts, ssh, PAM, credentials, and `xos login`.

mod credentials;
mod module;
mod names;
mod ssh;

pub use names::{look_up, write_accounts};
pub(super) use ssh::plain;

use super::figure::{Figure, Reach};
use super::machine::load;
use super::samples::Samples;
use super::suite::{Run, Sheet, even_start, millis, one};
use super::within::Timing;
use super::world::{SITE, VO, World};
use super::{Progress, scratch};
use crate::Result;

/// Rounds in which several ways are measured in turn.
const ROUNDS: usize = 10;
/// Runs of one way in a round, those before that are not counted, and how many at once.
const IN_A_ROUND: (usize, usize, usize) = (5, 1, 1);
/// Runs of `xos login`.
const LOGINS: (usize, usize, usize) = (30, 3, 1);

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LoginPart {
    /// Look-ups of accounts.
    Names,
    /// Signing in by ssh.
    Ssh,
    /// The PAM module.
    Pam,
    /// Sets of three credentials for many clients.
    Credentials,
    /// `xos login` with a password.
    Password,
}

/// What is measured, and how often.
#[derive(Clone, Debug)]
pub struct LoginOptions {
    /// Where, and how often.
    pub run: Run,
    /// The parts to be measured; none: all.
    pub parts: Vec<LoginPart>,
}

/// Runs the suite. What happens meanwhile goes to `say`, each measurement's extremes too.
///
/// # Errors
/// The first step that failed; the hosts have ended then too.
pub fn run(options: &LoginOptions, say: Progress) -> Result<Vec<Figure>> {
    let wants = |part: LoginPart| options.parts.is_empty() || options.parts.contains(&part);
    let mut sheet = Sheet::new(&options.run, say);
    if wants(LoginPart::Names) {
        even_start()?;
        names::measure(&options.run, &mut sheet)?;
    }
    let in_grid =
        [LoginPart::Ssh, LoginPart::Pam, LoginPart::Credentials, LoginPart::Password].map(wants);
    if in_grid.contains(&true) {
        let peer = credentials::peer(&options.run, in_grid[2], &mut sheet)?;
        even_start()?;
        let scratch = scratch(&options.run.dir)?;
        let dir = scratch.path().join("grid");
        let world = World::start(&dir, &options.run.program, true, sheet.say)?;
        if wants(LoginPart::Ssh) {
            ssh::measure(&world, options.run.peers, &mut sheet)?;
        }
        if wants(LoginPart::Pam) {
            pam(&world, &mut sheet)?;
        }
        if wants(LoginPart::Credentials) {
            credentials::measure(&world, peer.as_ref(), &mut sheet)?;
        }
        if wants(LoginPart::Password) {
            password(&world, &mut sheet)?;
        }
    }
    (sheet.say)(&format!("load at the end {}", load()?));
    Ok(sheet.figures)
}

/// Measures several ways in turn, so that whatever else happens meets all of them alike.
fn in_turn<const N: usize>(mut once: impl FnMut(usize) -> Result<Timing>) -> Result<[Samples; N]> {
    let mut all: [Vec<u64>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (way, each_ns) in all.iter_mut().enumerate() {
            each_ns.extend(once(way)?.each_ns);
        }
    }
    Ok(all.map(|each_ns| millis(&Timing { each_ns, total_ns: 0 })))
}

/// How much longer ours takes, in milliseconds.
fn difference(name: &str, ours: &Samples, peer: &Samples, most_ms: f64) -> (Figure, Samples) {
    let more = one(ours.median() - peer.median());
    (Figure::new(name, &more, "ms").reach(Reach::AtMost(most_ms)), more)
}

/// `pam_xos` asks the node's `xosd`, which opens a session with all that belongs to it.
fn pam(world: &World, sheet: &mut Sheet) -> Result<()> {
    for (service, module) in [("bench-xos", "pam_xos.so"), ("bench-permit", "pam_permit.so")] {
        let text = format!("account required {module}\nsession required {module}\n");
        let path = format!("/etc/pam.d/{service}");
        world.site.nodes[0].write_file(path, text.as_bytes(), 0o644)?;
    }
    let account = format!("{}.{VO}", world.person.name);
    let phases = ["acct_mgmt", "open_session", "close_session"];
    let [ours, peer] = in_turn(|way| {
        let service = ["bench-xos", "bench-permit"][way];
        let argv = [&["pamtester", service, &account], phases.as_slice()].concat();
        world.spawn_on_node(IN_A_ROUND, &argv)
    })?;
    let figure = Figure::new("pamtester: account and session by pam_xos", &ours, "ms");
    sheet.add(figure.beside("pam_permit", Some(&peer)), &ours);
    let (figure, more) = difference("  more than pam_permit", &ours, &peer, 2.0);
    sheet.add(figure, &more);
    Ok(())
}

/// The whole command: sign-in with argon2, the memberships, and three credentials for the VO.
fn password(world: &World, sheet: &mut Sheet) -> Result<()> {
    let person = &world.person;
    let file = format!("/home/{}/password", person.name);
    world.grid.laptop()?.write_file(&file, person.password.as_bytes(), 0o600)?;
    let who = format!("{}@{SITE}", person.name);
    let argv = ["xos", "login", &who, "--password-file", &file];
    let ours = millis(&world.spawn(LOGINS, &argv)?);
    let figure = Figure::new("xos login with a password", &ours, "ms");
    sheet.add(figure.reach(Reach::AtMost(150.0)), &ours);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, one way's times would be taken for another's, or the difference be reversed.
    #[test]
    fn ways_are_measured_in_turn() {
        let mut order = Vec::new();
        let [fast, slow] = in_turn(|way| {
            order.push(way);
            Ok(Timing { each_ns: vec![if way == 0 { 1_000_000 } else { 4_000_000 }], total_ns: 0 })
        })
        .unwrap();
        assert_eq!(order[..4], [0, 1, 0, 1]);
        assert_eq!((fast.median(), slow.median()), (1.0, 4.0));
        let (figure, _) = difference("more", &slow, &fast, 2.0);
        assert_eq!((figure.value, figure.met), (3.0, Some(false)));
    }
}
