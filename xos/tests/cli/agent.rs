//! Debian's `oidc-agent` as a foreign client of a real core: by another device, with refresh and
//! revocation, over the real port.

use crate::world::{Core, PASSWORD, Person};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;
use xos_api::cda::{
    DecideDevice, DeviceWish, GetUserInfo, OAuth, OAuthError, Password, Secret, ShowDevice, SignIn,
};
use xos_net::{Client, Proof, Trust};

/// What stands before the code in what `oidc-gen` says.
const CODE: &str = "enter the code: ";

/// A running `oidc-agent` with a home folder.
struct Agent {
    home: TempDir,
    socket: String,
    pid: String,
}

impl Agent {
    /// Starts one. `None`, and why, where it cannot run.
    fn start() -> Option<Agent> {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".oidc-agent")).unwrap();
        // Its errors are not for a pipe, which the daemon would hold.
        let mut command = Command::new("oidc-agent");
        command.env("HOME", home.path()).stdin(Stdio::null()).stderr(Stdio::null());
        let said = match command.output() {
            Ok(out) => String::from_utf8(out.stdout).unwrap(),
            Err(e) => {
                println!("skipped: no oidc-agent: {e}");
                return None;
            }
        };
        let value = |name: &str| -> String {
            let (_, rest) = said.split_once(name).unwrap_or_else(|| panic!("{name} in {said}"));
            rest.split(';').next().unwrap().to_owned()
        };
        Some(Agent { socket: value("OIDC_SOCK="), pid: value("OIDCD_PID="), home })
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env("HOME", self.home.path()).stdin(Stdio::null());
        command.env("OIDC_SOCK", &self.socket).env("OIDCD_PID", &self.pid);
        command.env("PASSPHRASE", "of the agent's own file");
        command
    }

    fn well(&self, program: &str, args: &[&str]) -> String {
        let out = self.command(program, args).output().unwrap();
        let (said, aside) = (String::from_utf8_lossy(&out.stdout), out.stderr);
        assert!(out.status.success(), "{args:?}: {said}{}", String::from_utf8_lossy(&aside));
        said.trim().to_owned()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let ended = self.command("oidc-agent", &["--kill"]).output();
        if !ended.is_ok_and(|out| out.status.success()) {
            println!("the agent {} did not end", self.pid);
        }
    }
}

/// The site's root, as a foreign program is given it.
fn root(core: &Core) -> PathBuf {
    let text = std::fs::read_to_string(core.dir().join("state/ca/root.pem")).unwrap();
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let (_, rest) = text.split_once(begin).unwrap();
    let (body, _) = rest.split_once(end).unwrap();
    let path = core.dir().join("root.crt");
    std::fs::write(&path, format!("{begin}{body}{end}\n")).unwrap();
    path
}

/// The core's API, for somebody and for nobody.
struct Api {
    runtime: tokio::runtime::Runtime,
    trust: Trust,
}

impl Api {
    fn of(core: &Core) -> Api {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let discovered = runtime.block_on(xos_net::discover::discover(&core.address));
        let trust = Trust::new();
        trust.add(discovered.unwrap().0).unwrap();
        Api { runtime, trust }
    }

    fn client(&self, proof: &Proof) -> Client {
        Client::new("rennes".parse().unwrap(), &self.trust, proof).unwrap()
    }

    /// What the console does when ada types the code and says yes.
    fn approve(&self, code: &str) {
        let sign_in = SignIn {
            user: "ada".into(),
            password: Password(PASSWORD.into()),
            audience: None,
            memberships: false,
        };
        let user_code = code.to_owned();
        self.runtime.block_on(async {
            let signed_in = self.client(&Proof::None).call(sign_in).await.unwrap();
            let ada = self.client(&Proof::Token(signed_in.token.token.into()));
            let asked = ada.call(ShowDevice { user_code: user_code.clone() }).await.unwrap();
            let DeviceWish::Client(asked) = asked else { panic!("{asked:?}") };
            assert_eq!((asked.client.as_str(), asked.vos.len()), ("oidc-agent", 1));
            let vo = Some(asked.vos[0].vo.clone());
            ada.call(DecideDevice { user_code, allow: true, vo }).await.unwrap();
        });
    }

    fn user_info(&self, token: &str) -> OAuth<serde_json::Map<String, Value>> {
        let ask = GetUserInfo { token: Secret(token.to_owned()) };
        self.runtime.block_on(self.client(&Proof::None).call(ask)).unwrap()
    }
}

fn claims(token: &str) -> Value {
    let body = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap()
}

fn register(ada: &Person) -> String {
    let add = ["site", "client", "add", "oidc-agent", "--redirect", "http://localhost:4242"];
    let add = [&add[..], &["--device", "--scope", "offline_access"]].concat();
    ada.json(&add)["client"]["id"].as_str().unwrap().to_owned()
}

/// Makes an account configuration, ada approving it as another device's.
fn generate(agent: &Agent, core: &Core, client: &str, api: &Api) {
    let issuer = format!("--iss=https://{}", core.address);
    let root = format!("--cp={}", root(core).display());
    let client = format!("--client-id={client}");
    let args = [
        "xos",
        "--flow=device",
        &issuer,
        &root,
        &client,
        "--client-secret=",
        "--scope=openid profile wlcg.groups offline_access",
        "--pw-env=PASSPHRASE",
        "--prompt=none",
        "--confirm-default",
    ];
    let mut child = agent
        .command("oidc-gen", &args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = String::new();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let code = lines.by_ref().map(Result::unwrap).find_map(|line| {
        log.push_str(&line);
        line.split_once(CODE).map(|(_, code)| code.trim().to_owned())
    });
    api.approve(&code.unwrap_or_else(|| panic!("oidc-gen shows no code: {log}")));
    // Else it would block once the pipe is full.
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success(), "{log}{}", rest.join("\n"));
}

/// If it failed, programs that people have already could not use the grid's sign-in.
#[test]
fn oidc_agent_signs_in_refreshes_and_gives_back() {
    let Some(agent) = Agent::start() else { return };
    let core = Core::start();
    let ada = core.signed_in("ada");
    ada.well(&["vo", "found", "demo", "--title", "Demonstration"]);
    let client = register(&ada);
    let api = Api::of(&core);
    generate(&agent, &core, &client, &api);

    let token = agent.well("oidc-token", &["xos"]);
    let said = claims(&token);
    assert_eq!(said["iss"], format!("https://{}", core.address));
    assert_eq!((&said["sub"], &said["client_id"]), (&json!("ada@rennes"), &json!(client)));
    assert_eq!(said["wlcg.groups"], json!(["/demo.rennes"]));
    match api.user_info(&token) {
        OAuth::Granted(about) => assert_eq!(about["preferred_username"], "ada"),
        OAuth::Refused(why) => panic!("{why:?}"),
    }
    // Each use gives the next refresh token, which it keeps.
    let second = agent.well("oidc-token", &["--force-new", "xos"]);
    let third = agent.well("oidc-token", &["--force-new", "xos"]);
    assert!(token != second && second != third, "no new token came");
    assert_eq!(claims(&third)["sub"], "ada@rennes");

    agent.well("oidc-gen", &["-d", "xos", "--pw-env=PASSPHRASE", "--prompt=none", "--confirm-yes"]);
    for token in [&token, &third] {
        match api.user_info(token) {
            OAuth::Refused(why) => assert_eq!(why.error, OAuthError::InvalidToken),
            OAuth::Granted(about) => panic!("it was given back, and tells {about:?}"),
        }
    }
    // The client is gone: nothing begins any more.
    ada.well(&["site", "client", "remove", &client, "--yes"]);
    assert!(ada.well(&["site", "client", "list"]).contains("No client is registered"));
}
