use std::os::unix::net::UnixListener;
use std::process::{Command, Output};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;
use xos_ssi::ghost::place::{PlaceAnswer, PlaceAsk, SHELL_NAME, SOCKET_VARIABLE, hear};

/// No test waits longer.
const PATIENCE: Duration = Duration::from_secs(120);
const GHOST: &str = env!("CARGO_BIN_EXE_xos-ghost");

/// An agent that answers so, once for each answer; what it was asked.
fn agent(answers: Vec<PlaceAnswer>) -> (TempDir, JoinHandle<Vec<PlaceAsk>>) {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("agent")).unwrap();
    let asked = std::thread::spawn(move || {
        let answer = |answer: PlaceAnswer| {
            let (ask, asked) = hear(listener.accept().unwrap().0, PATIENCE).unwrap();
            asked.answer(&answer).unwrap();
            ask
        };
        answers.into_iter().map(answer).collect()
    });
    (dir, asked)
}

fn run(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = [stdout, stderr].concat();
    (status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn without_a_cluster_a_program_runs_here() {
    // wrong: a makefile that is made for clusters would not work on a single machine
    let ghost = |words: &[&str]| {
        run(Command::new(GHOST).args(words).env_remove(SOCKET_VARIABLE).env("X", "yes"))
    };
    let (code, said) = ghost(&["run", "--", "sh", "-c", "echo $X; exit 7"]);
    assert_eq!((code, said.as_str()), (Some(7), "yes\n"));
    assert_eq!(ghost(&["run", "--", "/no/such/program"]).0, Some(127));
    assert_eq!(ghost(&["run", "--"]).0, Some(2));
    // An agent that is gone starts nothing.
    let (code, said) = run(Command::new(GHOST)
        .args(["run", "--", "echo", "here"])
        .env(SOCKET_VARIABLE, "/no/such/socket"));
    assert_eq!(code, Some(0));
    assert!(said.starts_with("here\n") && said.contains("does not answer"), "{said}");
}

#[test]
fn the_agent_decides_where_a_program_runs() {
    // wrong: what make starts would run with another environment, or where there is no room
    let refused = PlaceAnswer::Refused { why: "the site lets nobody run that".into() };
    let (dir, asked) = agent(vec![PlaceAnswer::Here, refused]);
    let shell = dir.path().join(SHELL_NAME);
    std::os::unix::fs::symlink(GHOST, &shell).unwrap();
    let make = |command: &str| {
        let socket = dir.path().join("agent");
        run(Command::new(&shell)
            .args(["-c", command])
            .env(SOCKET_VARIABLE, socket)
            .env("X", "a b")
            .current_dir("/usr"))
    };
    assert_eq!(make("echo $X; pwd"), (Some(0), "a b\n/usr\n".to_owned()));
    let (code, said) = make("echo no");
    assert_eq!(code, Some(126));
    assert!(said.contains("lets nobody run that") && !said.contains("no\n"), "{said}");
    let asked = asked.join().unwrap();
    assert_eq!(asked[0].argv, ["/bin/sh", "-c", "echo $X; pwd"]);
    assert_eq!((asked[0].cwd.to_str(), asked[0].terminal), (Some("/usr"), false));
    assert!(asked[0].env.contains(&("X".to_owned(), "a b".to_owned())));
}
