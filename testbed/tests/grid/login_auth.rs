//! People prove themselves to PAM at a machine, with Debian's own `login`, `su` and `sudo` on
//! terminals: by a code for another device, and by a password.

use std::path::Path;

use xos_testbed::grid::{Person, Site, SiteSpec};
use xos_testbed::{Cmd, Exit, Host};

use crate::signed_in::{Terminal, account};
use crate::tool::{Json, Said, skipped};
use crate::wire::{Answer, Proof, ask};
use crate::world::{COMMAND_MAX, VO, World, sh, soon};

/// What these tests need of the machine beyond what sshd does.
const NEEDS: [&str; 4] = ["/bin/login", "/usr/bin/sudo", "/usr/bin/su", "/usr/bin/script"];
/// Asks a shell who it is for, in a way that does not stand in the question itself.
const WHO: &str =
    "touch ~/vo/$$ && echo \"is=$(id -u):$PWD:$(stat -c %U:%a .):$(stat -c %U ~/vo/$$)\"; exit\n";
/// After so many wrong codes a person has to wait, at the latest.
const GUESSES_MAX: usize = 10;

/// If it failed, people could not work at a machine's console or use `sudo`, or others could in
/// their name: see each step.
#[test]
fn people_prove_themselves_at_a_machine() {
    if !Site::can_be_signed_in_to() || !NEEDS.iter().all(|program| Path::new(program).exists()) {
        return skipped("needs sshd, pam-auth-update, login, sudo, su and script of Debian");
    }
    let site = |name: &str, config: &str| SiteSpec {
        login: true,
        login_config: config.to_owned(),
        ..SiteSpec::new(name)
    };
    // At rennes people choose, at pisa there are codes only.
    let rennes = site("rennes", "device = true\npasswords = true\n");
    let Some(w) = World::with(&rennes, &site("pisa", "device = true\n")) else { return };
    w.step("login_by_a_code_of_the_own_or_another_site", login_by_a_code);
    w.step("sudo_by_a_code", sudo_by_a_code);
    w.step("a_no_is_a_no_and_others_have_no_say", a_no_is_a_no_and_others_have_no_say);
    w.step("who_guesses_codes_is_slowed_and_others_are_not", who_guesses_codes_is_slowed);
    w.step("sshd_takes_a_password_where_the_site_says_so", sshd_takes_a_password);
    w.step("login_by_a_password_or_a_code", login_by_a_password_or_a_code);
    w.step("a_suspended_member_proves_nothing", a_suspended_member_proves_nothing);
}

/// The code that a terminal shows, with its address and its picture.
#[track_caller]
fn code(terminal: &mut Terminal<'_>, person: &Person) -> String {
    let site = format!("//{}-core", person.site);
    let sign_in = format!("sign in there as {}", person.id());
    terminal.shows("an address, a code and a picture", |shown| {
        let has = |text: &str| shown.contains(text);
        let whole = has("/device") && has(&sign_in) && has("take a picture") && has("\u{2588}");
        assert!(!whole || has(&site), "the address is of another site: {shown}");
        let (_, after) = shown.split_once("type the code:").filter(|_| whole)?;
        let is_code = |w: &&str| w.len() == 9 && w.as_bytes()[4] == b'-';
        let code = after.split_whitespace().find(is_code)?;
        Some((code.to_owned(), shown.len()))
    })
}

/// What a person's own site answers when they say in its console what they decided.
fn decide(w: &World, person: &Person, code: &str, allow: bool) -> Answer {
    let body = format!("{{\"user_code\":\"{code}\",\"allow\":{allow}}}");
    asked(w, person, "POST /v1/provider/device/decide", &body)
}

fn asked(w: &World, person: &Person, line: &str, body: &str) -> Answer {
    ask(&w.laptop(), &person.site, Proof::Token(&w.token(person)), line, body.as_bytes())
}

/// The person reads what is wanted, and says yes.
#[track_caller]
fn allow(w: &World, person: &Person, code: &str, (service, node): (&str, &str)) {
    let show = format!("{{\"user_code\":\"{code}\"}}");
    let shown = asked(w, person, "POST /v1/provider/device", &show);
    let login = &shown.body["login"];
    let user = account(person);
    let wanted = [("service", service), ("node", node), ("user", user.as_str())];
    for (name, value) in wanted {
        assert_eq!(login[name], Json::from(value), "{}", shown.text);
    }
    let said = decide(w, person, code, true);
    assert_eq!(said.status, 200, "{}", said.text);
}

/// The shell that has begun at a terminal is the person's, in their home, and so is the volume; it
/// ends.
#[track_caller]
fn is_theirs(mut terminal: Terminal<'_>, host: &Host, person: &Person) {
    terminal.says("$ ");
    terminal.types(WHO);
    let account = account(person);
    let uid = sh(host, &format!("id -u {account}"));
    terminal.says(&format!("is={uid}:/home/xos/{account}:{account}:700:{account}"));
    let (exit, shown) = terminal.ended();
    assert_eq!(exit, Exit::Code(0), "{shown}");
}

/// `login` refuses who sits at the terminal, and says why.
#[track_caller]
fn is_refused(mut terminal: Terminal<'_>, why: &str) {
    let shown = terminal.says("Login incorrect");
    assert!(shown.contains(why), "it does not say {why:?}: {shown}");
    assert!(!shown.contains("$ "), "{shown}");
}

/// `login` for a person's account, as root's own getty starts it.
fn login<'a>(host: &'a Host, person: &Person) -> Terminal<'a> {
    Terminal::open(host, &format!("login {}", account(person)))
}

/// If it failed, nobody could come in at a console without a key, or people of other sites could
/// not.
fn login_by_a_code(w: &World) {
    let host = w.node("pisa-n1");
    for person in [&w.petra, &w.milo] {
        w.sign_in(person);
        let mut terminal = login(host, person);
        let code = code(&mut terminal, person);
        allow(w, person, &code, ("login", "n1.pisa"));
        is_theirs(terminal, host, person);
    }
}

/// If it failed, administrators of the grid could not be administrators of a machine, or anybody
/// with a session could.
fn sudo_by_a_code(w: &World) {
    let host = w.node("pisa-n2");
    let milo = account(&w.milo);
    // Else it asks three times.
    let rule = format!("{milo} ALL=(root) /usr/bin/id\nDefaults:{milo} passwd_tries=1\n");
    host.write_file("/etc/sudoers.d/grid", rule.as_bytes(), 0o440).unwrap();
    w.sign_in(&w.milo);
    let mut terminal = Terminal::open(host, &format!("su - {milo}"));
    terminal.says("$ ");
    for (yes, status) in [(true, "left=0"), (false, "left=1")] {
        terminal.types("sudo -k; sudo id -u; echo left=$?\n");
        let code = code(&mut terminal, &w.milo);
        if yes {
            allow(w, &w.milo, &code, ("sudo", "n2.pisa"));
        } else {
            assert_eq!(decide(w, &w.milo, &code, false).status, 200);
            terminal.says("you said no on the other device");
        }
        let shown = terminal.says(status);
        assert_eq!(shown.contains("0\r\nleft="), yes, "{shown}");
    }
}

/// If it failed, a person's no would count as a yes, or somebody else's yes as theirs.
fn a_no_is_a_no_and_others_have_no_say(w: &World) {
    let mut terminal = login(w.node("pisa-n1"), &w.milo);
    let code = code(&mut terminal, &w.milo);
    for other in [&w.vera, &w.petra] {
        w.sign_in(other);
        let said = decide(w, other, &code, true);
        assert_eq!(said.status, 404, "{}: {}", other.id(), said.text);
    }
    w.sign_in(&w.milo);
    assert_eq!(decide(w, &w.milo, &code, false).status, 200);
    is_refused(terminal, "you said no on the other device");
}

/// If it failed, codes could be guessed, or who guesses would keep others from typing theirs.
fn who_guesses_codes_is_slowed(w: &World) {
    let host = w.node("pisa-n1");
    let mut terminal = login(host, &w.milo);
    let code = code(&mut terminal, &w.milo);
    w.sign_in(&w.vera);
    let guess = |_| decide(w, &w.vera, "BCDF-GHJK", true).status;
    let answers: Vec<u16> = (0..GUESSES_MAX).map(guess).collect();
    assert!(answers.contains(&429), "{answers:?}");
    assert!(answers.iter().all(|status| matches!(status, 404 | 429)), "{answers:?}");
    w.sign_in(&w.milo);
    allow(w, &w.milo, &code, ("login", "n1.pisa"));
    is_theirs(terminal, host, &w.milo);
}

/// If it failed, whoever knows a name could have codes made for its person over the network, until
/// the person can prove themselves nowhere; or a site that chose passwords would have none there.
fn sshd_takes_a_password(w: &World) {
    let (host, milo) = (&w.pisa.core, account(&w.milo));
    let ssh = |node: &str, password: &str| {
        let askpass = format!("#!/bin/sh\necho '{password}'\n");
        host.write_file("/root/askpass", askpass.as_bytes(), 0o700).unwrap();
        let script = format!(
            "SSH_ASKPASS=/root/askpass SSH_ASKPASS_REQUIRE=force ssh -F none \
             -o PreferredAuthentications=password -o NumberOfPasswordPrompts=1 \
             -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null {milo}@{node} id -un"
        );
        Said::of(host, &Cmd::shell(script).limit(COMMAND_MAX), "ssh with a password")
    };
    // Were a code made, sshd would wait for it until it hangs up.
    let said = ssh("pisa-n1", &w.milo.password);
    assert!(said.code != 0 && said.err.contains("Permission denied"), "{}{}", said.out, said.err);
    let said = ssh("rennes-n1", &w.vera.password);
    assert!(said.code != 0 && said.err.contains("Permission denied"), "{}{}", said.out, said.err);
    let said = ssh("rennes-n1", &w.milo.password).ok();
    assert_eq!(said.lines().last(), Some(milo.as_str()));
}

/// If it failed, a site that chose passwords would have none, a password would stand on the screen,
/// or people of other sites would be asked for theirs.
fn login_by_a_password_or_a_code(w: &World) {
    let host = w.node("rennes-n1");
    let asks = "Password, or Enter for a code: ";
    let mut terminal = login(host, &w.milo);
    terminal.says(asks);
    terminal.types_hidden(&format!("{}\n", w.milo.password));
    terminal.says("$ ");
    assert!(!terminal.screen().contains(&w.milo.password), "{}", terminal.screen());
    drop(terminal);

    let mut terminal = login(host, &w.milo);
    terminal.says(asks);
    terminal.types_hidden(&format!("{}\n", w.vera.password));
    is_refused(terminal, "wrong password");

    let mut terminal = login(host, &w.milo);
    terminal.says(asks);
    terminal.types_hidden("\n");
    w.sign_in(&w.milo);
    let milos = code(&mut terminal, &w.milo);
    allow(w, &w.milo, &milos, ("login", "n1.rennes"));
    is_theirs(terminal, host, &w.milo);

    w.sign_in(&w.petra);
    let mut terminal = login(host, &w.petra);
    let petras = code(&mut terminal, &w.petra);
    assert!(!terminal.screen().contains("Password"), "{}", terminal.screen());
    allow(w, &w.petra, &petras, ("login", "n1.rennes"));
    is_theirs(terminal, host, &w.petra);
}

/// If it failed, a member who is shut out would be asked for a proof, and let in by it.
fn a_suspended_member_proves_nothing(w: &World) {
    let host = w.node("pisa-n1");
    let petra = account(&w.petra);
    w.xos(&w.vera, &["vo", "suspend", VO, &w.petra.id(), "-m", "laptop stolen"]).ok();
    soon("the node knows it", || {
        let su = host.run(&Cmd::shell(format!("su {petra} -c true"))).unwrap();
        (!su.exit.is_success()).then_some(())
    });
    let terminal = login(host, &w.petra);
    is_refused(terminal, "is suspended");
}
