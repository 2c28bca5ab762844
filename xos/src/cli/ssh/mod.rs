//! `xos ssh`, `xos scp`, and what the stock ssh finds after a sign-in.

pub mod agent;
pub mod config;
mod cores;
pub mod include;
pub mod key;
pub mod proxy;
pub mod quote;
mod words;

use super::credential::Credential;
use super::output::{Failure, Outcome};
use super::session::Session;
use config::{As, Where};
use key::{SshCertificate, SshKey};
use serde::Serialize;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use xos_api::node::SshOpening;
use xos_base::{Error, Kind, NodeId, VoId};

/// `xos ssh`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos ssh n1.rennes
  xos ssh n1.rennes -- ls -l
  xos ssh -t n1.rennes top
  xos ssh --vo demo.rennes -N -L 8080:localhost:80 n1.rennes

Options of xos stand first. All else is for the stock ssh, in its own order: options, the node, \
options, the command. Your own ~/.ssh/config counts too. The node is asked first for the name of \
your account there.")]
pub struct SshArgs {
    /// As ssh takes them, with the node, as n1.rennes, where ssh wants the host.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "ARGUMENT"
    )]
    arguments: Vec<OsString>,
}

/// `xos scp`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos scp input.dat n1.rennes:
  xos scp --vo demo.rennes -r n1.rennes:results .

All arguments are for the stock scp. With -r it copies the files that links point to; at a link \
to a folder, as ~/vo is one, it says `not a regular file`, goes on, and ends with 1. \
`rsync -a -e 'xos ssh' n1.rennes:results .` copies links as links, where both have rsync.")]
pub struct ScpArgs {
    /// As scp takes them; files on a node are NODE:PATH.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "ARGUMENT"
    )]
    arguments: Vec<OsString>,
}

/// Becomes the stock ssh.
///
/// # Errors
/// As [`words::node`]; why the node does not let the person in, or ssh could not be started.
pub async fn ssh(s: &Session, args: SshArgs) -> Outcome {
    // The parser takes a first `--` for itself.
    let all: Vec<OsString> = std::env::args_os().collect();
    let before = all.len().checked_sub(args.arguments.len() + 1);
    let ended = before.is_some_and(|at| all[at] == "--");
    let node = words::node(&args.arguments, ended)?;
    let vo = s.ssh_vo().await?;
    let account = account(s, &vo, &node).await?;
    let mut command = stock("ssh", s, vo, account)?;
    command.args(args.arguments);
    Err(instead(command))
}

/// Becomes the stock scp.
///
/// # Errors
/// As [`ssh`]; [`xos_base::Kind::Invalid`] when no node is named, or one account does not do for
/// all of them.
pub async fn scp(s: &Session, args: ScpArgs) -> Outcome {
    let nodes = nodes(&args.arguments);
    let Some((first, others)) = nodes.split_first() else {
        return Err(Error::invalid("no file on a node is named")
            .hint("write it as NODE:PATH, for example n1.rennes:results")
            .into());
    };
    let vo = s.ssh_vo().await?;
    let name = account(s, &vo, first).await?;
    for other in others {
        let theirs = account(s, &vo, other).await?;
        if theirs != name {
            return Err(Error::invalid(format!(
                "your account is {name} on {first} and {theirs} on {other}"
            ))
            .hint("copy in two steps: first to this computer, then from it")
            .into());
        }
    }
    let mut command = stock("scp", s, vo, name)?;
    command.args(args.arguments);
    Err(instead(command))
}

/// The nodes whose files scp is to copy, each once.
fn nodes(arguments: &[OsString]) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> =
        arguments.iter().filter_map(|a| a.to_str()).filter_map(node_of).collect();
    nodes.sort();
    nodes.dedup();
    nodes
}

/// The node in `[user@]node:path` or `scp://[user@]node[:port]/path`.
fn node_of(argument: &str) -> Option<NodeId> {
    let host = match argument.strip_prefix("scp://") {
        Some(rest) => rest.split([':', '/']).next()?,
        None => argument.split_once(':')?.0,
    };
    host.rsplit('@').next()?.parse().ok()
}

/// The person's account on a node, by asking it; with credentials that ssh can use afterwards.
async fn account(s: &Session, vo: &VoId, node: &NodeId) -> Result<String, Error> {
    s.knowing(&node.site())?;
    let mut member = s.member(vo, &vo.site()).await?;
    let good = |c: Option<SshCertificate>| c.filter(|c| s.now() < c.until);
    if good(SshCertificate::read(&s.home, vo)?).is_none() {
        s.issue(vo).await?;
        good(SshCertificate::read(&s.home, vo)?).ok_or_else(|| {
            Error::unsupported(format!("the home site of {vo} gives no SSH certificates"))
                .hint("ask its administrator")
        })?;
    }
    let opening = SshOpening { mandate: None, name_only: true };
    Ok(proxy::open_as(s, &mut member, node, &opening).await?.account)
}

/// A stock program with what it needs for signing in to nodes, before the person's own arguments.
fn stock(program: &str, s: &Session, vo: VoId, account: String) -> Result<Command, Error> {
    let mut command = Command::new(program);
    let who = As { vo, account: Some(account) };
    for (key, value) in config::options(&Where::of(s)?, Some(&who)) {
        command.arg("-o").arg(format!("{key}={value}"));
    }
    Ok(command)
}

/// Goes on as another program; comes back only when that fails.
fn instead(mut command: Command) -> Failure {
    let e = command.exec();
    let program = command.get_program().display();
    Error::unavailable(format!("cannot start {program}: {e}"))
        .hint("install OpenSSH's client; Debian: apt install openssh-client")
        .into()
}

impl Session {
    /// The VO of plain `ssh`: the only one, else that of the last `xos login --vo`.
    ///
    /// # Errors
    /// As [`super::home::Home::read`].
    pub fn default_vo(&self) -> Result<Option<VoId>, Error> {
        let mut vos = self.vos()?;
        if vos.len() <= 1 {
            return Ok(vos.pop());
        }
        let chosen = self.last_login()?.and_then(|l| l.default_vo);
        Ok(chosen.filter(|vo| vos.contains(vo)))
    }

    /// The VO to sign in as a member of: the named one, else that of plain `ssh`.
    ///
    /// # Errors
    /// As [`Session::the_vo`].
    pub async fn ssh_vo(&self) -> Result<VoId, Error> {
        if self.named_vo().is_none()
            && let Some(vo) = self.default_vo()?
        {
            return Ok(vo);
        }
        self.the_vo().await.map_err(|e| match e.kind {
            // Several.
            Kind::Invalid => e.hint(
                "choose one for plain ssh: xos login --vo VO; or for once: xos ssh --vo VO NODE",
            ),
            _ => e,
        })
    }

    /// The person's home folder, when their keys lie in it as usual: then programs of theirs are
    /// told where.
    pub fn usual_home(&self) -> Option<PathBuf> {
        let home = self.around.user_home.as_ref()?;
        (home.join(".xos") == self.home.path()).then(|| home.clone())
    }
}

/// Tells of what did not go well beside the command itself.
fn warn(s: &Session, e: &Error) {
    if s.out.warn(e).is_err() {
        tracing::debug!(error = %e, "nobody is there to be warned");
    }
}

/// New credentials of `vo` are here: the agent takes the key, and ssh's configuration the VO when
/// it is `new`.
pub async fn credential_came(s: &Session, vo: &VoId, new: bool) {
    if new && let Err(e) = config::write(s) {
        warn(s, &e);
    }
    if s.around.agent
        && let Err(e) = give_to_agent(s, vo).await
    {
        warn(s, &e);
    }
}

/// This computer knows other sites than before.
pub fn sites_changed(s: &Session) {
    let written = s.home.vos().and_then(|vos| match vos.is_empty() {
        true => Ok(()),
        false => config::write(s),
    });
    if let Err(e) = written {
        warn(s, &e);
    }
}

async fn give_to_agent(s: &Session, vo: &VoId) -> Result<(), Error> {
    let Some(certificate) = SshCertificate::read(&s.home, vo)? else { return Ok(()) };
    let path = s.home.absolute()?.join(key::key_file(vo));
    agent::add(&path, certificate.until.since(s.now())).await
}

/// Forgets all that is kept for `vo`, the agent's copy too; whether there was a credential.
///
/// # Errors
/// As [`Credential::remove`].
pub async fn forget(s: &Session, vo: &VoId) -> Result<bool, Error> {
    if s.around.agent
        && let Err(e) = take_from_agent(s, vo).await
    {
        warn(s, &e);
    }
    Credential::remove(&s.home, vo)
}

async fn take_from_agent(s: &Session, vo: &VoId) -> Result<(), Error> {
    let Some(kept) = SshKey::kept(&s.home, vo)? else { return Ok(()) };
    let path = s.home.absolute()?.join(key::key_file(vo));
    agent::forget(&path, &kept.public()?).await
}

/// How plain `ssh` learns of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Included {
    /// The line was added now.
    Added,
    /// It was there.
    There,
    /// It was not looked for: the person does not want it, or keeps their keys elsewhere.
    Left,
}

/// After a sign-in: writes ssh's configuration, and has `~/.ssh/config` include it when `wanted`.
///
/// # Errors
/// As [`config::write`] and [`include::add`].
pub fn set_up(s: &Session, wanted: bool) -> Result<Included, Error> {
    config::write(s)?;
    match s.usual_home().filter(|_| wanted) {
        None => Ok(Included::Left),
        Some(home) if include::add(&home)? => Ok(Included::Added),
        Some(_) => Ok(Included::There),
    }
}

/// Why plain ssh does not find what was written for it: it looks in the account's home, whatever
/// HOME says.
pub fn overlooked(s: &Session) -> Option<Error> {
    let home = s.usual_home()?;
    let account = s.around.account_home.as_ref()?;
    if same_folder(&home, account) {
        return None;
    }
    let text = format!(
        "HOME is {}, and the home of your account is {}: plain ssh and scp look there only, and \
         find nothing of this sign-in",
        home.display(),
        account.display()
    );
    Some(Error::conflict(text).hint("use `xos ssh` and `xos scp`, or sign in with your own HOME"))
}

fn same_folder(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// After a sign-out: removes ssh's configuration and the line that includes it.
///
/// # Errors
/// As [`config::remove`] and [`include::remove`].
pub fn take_down(s: &Session) -> Result<(), Error> {
    config::remove(&s.home)?;
    if let Some(home) = s.usual_home() {
        include::remove(&home)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::home::Home;
    use crate::cli::output::Out;
    use crate::cli::session::Around;
    use std::sync::Arc;
    use xos_base::when::SystemClock;

    /// If it failed, the tool would say that plain ssh works where it cannot, as under sudo, or
    /// frighten those for whom it does.
    #[test]
    fn a_home_that_is_not_the_accounts_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let told = |keys: &Path, account: Option<&Path>| {
            let home = Home::new(keys);
            let s = Session::new(home, Out::new(false, true), None, None, Arc::new(SystemClock));
            let around = Around {
                user_home: Some(dir.path().to_owned()),
                account_home: account.map(Path::to_owned),
                ..Around::default()
            };
            overlooked(&s.within(around)).map(|e| e.to_string())
        };
        let keys = dir.path().join(".xos");
        let said = told(&keys, Some(Path::new("/root"))).unwrap();
        assert!(said.contains("/root") && said.contains("xos ssh"), "{said}");
        assert_eq!(told(&keys, Some(dir.path())), None);
        assert_eq!(told(&keys, None), None);
        assert_eq!(told(&dir.path().join("keys"), Some(Path::new("/root"))), None);
    }

    /// If it failed, scp would ask the wrong machine for the account, or none.
    #[test]
    fn the_nodes_of_a_copy_are_found() {
        let found = |line: &str| -> Vec<String> {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            nodes(&words).iter().map(ToString::to_string).collect()
        };
        assert_eq!(found("-r data n1.rennes:"), ["n1.rennes"]);
        assert_eq!(found("n2.pisa:a/b:c n1.rennes:/tmp n2.pisa:d"), ["n1.rennes", "n2.pisa"]);
        assert_eq!(found("scp://n1.rennes:22/file ."), ["n1.rennes"]);
        assert_eq!(found("u1879048194@n1.rennes:file ."), ["n1.rennes"]);
        assert!(found("n1.rennes data.txt ./n1.rennes:x n1.rennes/x:y -on1.rennes:").is_empty());
    }
}
