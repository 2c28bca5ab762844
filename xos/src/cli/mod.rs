//! `xos`: the tool for people, also called as `xsub`, `xps`, `xwait`, `xkill` and `xout`, and as
//! `krgadm`, `migrate`, `checkpoint` and `restart`.
//!
//! A thin client: each command makes typed requests to a core and shows the replies. Each file
//! holds a command's arguments beside what it does.

pub mod account;
pub mod accounts;
pub mod ask;
pub mod audit;
pub mod clients;
pub mod cluster;
pub mod credential;
#[cfg(test)]
mod documents;
pub mod file;
#[cfg(test)]
mod golden;
pub mod home;
pub mod id;
pub mod job;
pub mod kept;
pub mod kerberos;
mod line;
pub mod login;
pub mod member;
pub mod names;
pub mod node;
pub mod oidc;
pub mod output;
mod pages;
pub mod person;
pub mod place;
pub mod reminders;
pub mod renew;
pub mod rules;
pub mod session;
pub mod site;
pub mod sites;
pub mod ssh;
pub mod token;
pub mod values;
pub mod vo;
pub mod why;

use clap::{Parser, Subcommand};
use home::Home;
pub use line::usage;
use line::{arguments, misused, wants_json};
use output::{CLOSED_STATUS, DECLINED_STATUS, Failure, Out, Outcome};
use session::{Around, Session};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use xos_base::when::SystemClock;
use xos_base::{Error, SiteId, VoId};

const EXAMPLES: &str = "\
Examples:
  xos site add core.rennes.example       get to know your site's core
  xos login alice@rennes                 sign in; certificates of your VOs are fetched
  xos job submit -- ./simulate 42        run a program, wait, show its output
  xos job list                           what became of your jobs
  xos ssh n1.rennes                      work on a machine

Short names: xsub = xos job submit, xps = xos job list, xwait = xos job wait, \
xkill = xos job cancel, xout = xos job output. As Kerrighed has them: krgadm, migrate, checkpoint, \
restart.

Exit codes: 0 well, 1 you answered no, or `xos why` found what stands in the way, 64 wrong arguments or request, \
65 too large, 66 not found, 69 no site can do it, 70 a fault of XOS, 73 changed meanwhile or \
exists already, 75 not reachable or busy: try again later, 76 not supported, 77 not allowed, \
78 sign in (again), 79 an audit was tampered with, 130 interrupted, 141 whoever read the output \
has gone. Commands that wait for a job exit with the job's own status; xos cluster run with the \
program's, 255 when that is not known.

Environment: XOS_HOME (folder for keys, default ~/.xos), XOS_VO (VO to act in), \
XOS_CLUSTER (cluster of krgadm, migrate, checkpoint, restart), NO_COLOR.";

/// Use a grid: sign in, run programs at your sites, look after virtual organizations (VOs).
#[derive(Debug, Parser)]
#[command(name = "xos", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Global {
    /// Print JSON, for programs.
    #[arg(long, global = true, help_heading = "Everywhere")]
    json: bool,
    /// Keep keys and sign-ins in this folder [default: ~/.xos].
    #[arg(long, global = true, value_name = "DIR", help_heading = "Everywhere")]
    home: Option<PathBuf>,
    /// Ask this site's core [default: the VO's home, else your site].
    #[arg(long, global = true, value_name = "SITE", help_heading = "Everywhere")]
    site: Option<SiteId>,
    /// Act in this VO [default: the only one you are in].
    #[arg(long, global = true, value_name = "VO", help_heading = "Everywhere")]
    vo: Vec<VoId>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sign in, and get certificates for your VOs.
    Login(login::LoginArgs),
    /// Forget the sign-in and all certificates on this computer.
    #[command(after_help = "Example:\n  xos logout")]
    Logout,
    /// Show who you are, in which VOs, and your credentials until when.
    #[command(after_help = "Examples:\n  xos id\n  xos id --json")]
    Id,
    /// What you sign in by, and the services that you allowed.
    #[command(
        subcommand,
        after_help = "\
Examples:
  xos account list
  xos account link uni
  xos account services"
    )]
    Account(account::Command),
    /// Print a fresh token for services outside XOS.
    Token(token::TokenArgs),
    /// Renew what is due of your credentials, or have that done by itself.
    Renew(renew::RenewArgs),
    /// Sign in to a machine.
    Ssh(ssh::SshArgs),
    /// Copy files from and to a machine.
    Scp(ssh::ScpArgs),
    /// Connect ssh with a machine (ssh runs this).
    #[command(hide = true)]
    SshProxy(ssh::proxy::ProxyArgs),
    /// Submit jobs, watch them, read their output.
    #[command(
        subcommand,
        after_help = "\
Examples:
  xos job submit -- /bin/echo hello
  xos job list
  xos job why 12.rennes"
    )]
    Job(job::Command),
    /// Virtual organizations: join one, run one.
    #[command(
        subcommand,
        after_help = "\
Examples:
  xos vo list
  xos vo apply demo.rennes -m 'working with Alice on the phantom'
  xos vo members demo.rennes"
    )]
    Vo(vo::Command),
    /// Sites: get to know them, exchange trust between them.
    #[command(
        subcommand,
        after_help = "\
Examples:
  xos site add core.rennes.example
  xos site list
  xos site offer pisa --out to-pisa.offer"
    )]
    Site(site::Command),
    /// People of a site, and your password.
    #[command(
        subcommand,
        after_help = "\
Examples:
  xos person passwd
  xos person add alice
  xos person list"
    )]
    Person(person::Command),
    /// Names of accounts at a site.
    #[command(
        subcommand,
        after_help = "\
Examples:
  xos names give demo.rennes alice@rennes alice
  xos names list
  xos names import grid-mapfile --vo demo.rennes --people people.csv --dry-run"
    )]
    Names(names::Command),
    /// What happened at your site, or in a VO at all its sites.
    Audit(audit::AuditArgs),
    /// Machines of a site.
    #[command(
        subcommand,
        after_help = "\
Examples:
  xos node token n1
  xos node list"
    )]
    Node(node::Command),
    /// Clusters: nodes of a site that work as one machine.
    #[command(
        subcommand,
        after_help = "\
Examples:
  xos cluster status
  xos cluster run c1.rennes -- ./simulate 42
  xos cluster ps c1.rennes"
    )]
    Cluster(cluster::Command),
    /// Clusters, by the commands of Kerrighed: krgadm, migrate, checkpoint, restart.
    #[command(
        subcommand,
        hide = true,
        after_help = "\
Examples:
  xos krg nodes status
  xos krg migrate 65432 n2"
    )]
    Krg(cluster::krg::Command),
    /// Your folders on a VO's volume: closed to others, pinned to a site.
    #[command(
        subcommand,
        after_help = "\
Examples:
  xos file close /xtreemfs/demo.rennes/alice
  xos file pin /xtreemfs/demo.rennes/alice
  xos file show /xtreemfs/demo.rennes/alice"
    )]
    File(file::Command),
    /// Why somebody cannot sign in, a job waits, or a file is denied.
    #[command(
        subcommand,
        after_help = "\
Examples:
  xos why login n1.rennes
  xos why job 12.rennes
  xos why file /xtreemfs/demo.rennes/alice/body.spect"
    )]
    Why(why::Command),
}

/// What the surroundings say.
struct Environment {
    xos_home: Option<OsString>,
    home: Option<OsString>,
    xos_vo: Option<String>,
    no_color: bool,
    agent: bool,
}

impl Environment {
    fn of_process() -> Environment {
        let var = |name| std::env::var_os(name).filter(|v| !v.is_empty());
        Environment {
            xos_home: var("XOS_HOME"),
            home: var("HOME"),
            xos_vo: std::env::var("XOS_VO").ok().filter(|v| !v.is_empty()),
            no_color: var("NO_COLOR").is_some(),
            agent: var("SSH_AUTH_SOCK").is_some(),
        }
    }
}

/// The program: what `main` calls.
pub fn main() -> ExitCode {
    log_on_demand();
    let arguments = arguments(std::env::args_os());
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(e) if e.use_stderr() && wants_json(&arguments) => {
            let error = misused(&e);
            let told = Out::new(true, true).fail(&error);
            return ExitCode::from(told.map_or(CLOSED_STATUS, |()| error.kind.exit_code()));
        }
        Err(e) => return usage(&e),
    };
    let environment = Environment::of_process();
    let out = Out::new(cli.global.json, environment.no_color);
    let outcome = session(&cli, &environment, out).and_then(|s| start(&s, cli));
    ExitCode::from(status(out, outcome))
}

/// Tells how a command ended where it did not go well; its exit status.
fn status(out: Out, outcome: Outcome) -> u8 {
    let ended = outcome.or_else(|failure| match failure {
        Failure::Closed => Ok(CLOSED_STATUS),
        Failure::Declined(left) => out.fail(&Error::invalid(left)).map(|()| DECLINED_STATUS),
        Failure::Error(e) => out.fail(&e).map(|()| e.kind.exit_code()),
    });
    // Standard error is closed too: nobody is there to be told.
    ended.unwrap_or(CLOSED_STATUS)
}

/// XOS_LOG shows what the network code does, for finding faults.
fn log_on_demand() {
    use tracing_subscriber::EnvFilter;
    if let Ok(filter) = EnvFilter::try_from_env("XOS_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
}

fn session(cli: &Cli, environment: &Environment, out: Out) -> Result<Session, Failure> {
    let folder = match (&cli.global.home, &environment.xos_home, &environment.home) {
        (Some(folder), _, _) => folder.clone(),
        (_, Some(folder), _) => folder.into(),
        (_, _, Some(home)) => Path::new(home).join(".xos"),
        _ => {
            return Err(Error::invalid("it is not clear where your keys are: HOME is not set")
                .hint("name the folder with --home")
                .into());
        }
    };
    let vo = match (cli.global.vo.as_slice(), &environment.xos_vo) {
        ([vo], _) => Some(vo.clone()),
        ([], Some(text)) => Some(
            text.parse::<VoId>()
                .map_err(|e| Error::invalid(format!("XOS_VO is set wrongly: {e}")))?,
        ),
        ([], None) => None,
        // Sign-in takes several.
        _ if matches!(cli.command, Command::Login(_)) => None,
        _ => return Err(Error::invalid("name one VO only").into()),
    };
    let around = Around {
        user_home: environment.home.as_ref().map(PathBuf::from),
        account_home: account_home(),
        program: std::env::current_exe().ok(),
        agent: environment.agent,
    };
    let site = cli.global.site.clone();
    let session = Session::new(Home::new(&folder), out, site, vo, Arc::new(SystemClock));
    Ok(session.within(around))
}

/// The home of the account that this process acts by, where there is such an account.
fn account_home() -> Option<PathBuf> {
    match nix::unistd::User::from_uid(nix::unistd::getuid()) {
        Ok(user) => user.map(|u| u.dir),
        Err(error) => {
            tracing::debug!(%error, "the account's home is not known");
            None
        }
    }
}

fn start(session: &Session, cli: Cli) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::internal(format!("cannot start: {e}")))?;
    let outcome = runtime.block_on(run(session, cli));
    // A question that nobody answered must not keep the program.
    runtime.shutdown_background();
    outcome
}

async fn run(s: &Session, cli: Cli) -> Outcome {
    match cli.command {
        Command::Login(args) => login::login(s, args, cli.global.vo).await,
        Command::Logout => login::logout(s).await,
        Command::Id => id::id(s).await,
        Command::Account(command) => account::run(s, command).await,
        Command::Token(args) => token::token(s, args).await,
        Command::Renew(args) => renew::run(s, args).await,
        Command::Ssh(args) => ssh::ssh(s, args).await,
        Command::Scp(args) => ssh::scp(s, args).await,
        Command::SshProxy(args) => ssh::proxy::proxy(s, args).await,
        Command::Job(command) => job::run(s, command).await,
        Command::Vo(command) => vo::run(s, command).await,
        Command::Site(command) => site::run(s, command).await,
        Command::Person(command) => person::run(s, command).await,
        Command::Names(command) => names::run(s, command).await,
        Command::Audit(args) => audit::run(s, args).await,
        Command::Node(command) => node::run(s, command).await,
        Command::Cluster(command) => cluster::run(s, command).await,
        Command::Krg(command) => cluster::krg::run(s, command).await,
        Command::File(command) => file::run(s, command, cli.global.site),
        Command::Why(command) => why::run(s, command).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    /// If it failed, a script could not tell a person's no from arguments that are wrong.
    #[test]
    fn a_no_is_told_apart_from_a_wrong_command() {
        let out = Out::new(false, true);
        assert_eq!(status(out, Ok(3)), 3);
        assert_eq!(status(out, Err(Failure::Declined("nothing was changed".into()))), 1);
        assert_eq!(status(out, Err(Error::invalid("no such name").into())), 64);
        assert_eq!(status(out, Err(Failure::Closed)), 141);
    }

    /// Every command, and every group of commands, says what it is for and shows how it is called.
    /// If it failed, people would have to guess.
    #[test]
    fn every_command_has_help_with_examples() {
        fn walk(command: &clap::Command, path: &str, help: &mut String) {
            let path = format!("{path} {}", command.get_name()).trim().to_owned();
            assert!(command.get_about().is_some(), "{path} says nothing about itself");
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains("Example"), "{path} shows no example");
            for line in after.lines().filter(|l| l.starts_with("  xos ")) {
                let line = line.split("   ").next().unwrap_or(line);
                let words = documents::shell_words(line);
                if let Err(e) = Cli::try_parse_from(&words) {
                    panic!("the example of {path} does not parse: {words:?}: {e}");
                }
            }
            help.push_str(&format!("{path}: {}\n", command.get_about().unwrap_or_default()));
            for sub in command.get_subcommands() {
                walk(sub, &path, help);
            }
        }
        let mut help = String::new();
        walk(&Cli::command(), "", &mut help);
        golden::check("commands.txt", &help);
    }
}
