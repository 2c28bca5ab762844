//! What ssh is told: `ssh/config`, which `~/.ssh/config` includes, and `ssh/known_hosts`.
//!
//! A node is called as everywhere in XOS: `n1.rennes`. That name is the principal of its host
//! certificate, so that ssh knows it by the site's authority and never asks about a key.

use super::quote::{plain, proxy_word, ssh_value};
use super::{cores, key};
use crate::cli::credential::Credential;
use crate::cli::home::Home;
use crate::cli::session::Session;
use crate::cli::sites::SiteBook;
use ssh_key::PublicKey;
use ssh_key::public::{Ed25519PublicKey, KeyData};
use xos_api::vom::ACCOUNT_NAME_MAX;
use xos_base::{Error, PersonId, SiteId, VoId};

const CONFIG: &str = "ssh/config";
pub(super) const KNOWN_HOSTS: &str = "ssh/known_hosts";
/// The names that end in these belong to the world, and not to a site that is called so: `ssh
/// github.com` must not come to a machine of a site `com`. Such a site's machines are reached by
/// `xos ssh`. Labels of two letters are countries.
const OF_THE_WORLD: [&str; 24] = [
    "app",
    "arpa",
    "biz",
    "cloud",
    "com",
    "corp",
    "dev",
    "edu",
    "gov",
    "home",
    "info",
    "int",
    "internal",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "mil",
    "net",
    "online",
    "org",
    "site",
    "tech",
    "xyz",
];

/// Where this program and its files are, as texts that ssh's configuration can hold.
#[derive(Clone, Debug)]
pub struct Where {
    /// The program `xos`.
    pub program: String,
    /// The folder of keys.
    pub home: String,
}

impl Where {
    /// Of this process.
    ///
    /// # Errors
    /// As [`plain`].
    pub fn of(s: &Session) -> Result<Where, Error> {
        let program = s.around.program.as_deref().ok_or_else(|| {
            Error::unavailable("it is not known where the program xos is").hint("is /proc mounted?")
        })?;
        let (program, home) = (plain(program)?.to_owned(), s.home.absolute()?);
        Ok(Where { program, home: plain(&home)?.to_owned() })
    }

    fn file(&self, name: &str) -> String {
        ssh_value(&format!("{}/{name}", self.home))
    }
}

/// As whom ssh signs in.
#[derive(Clone, Debug)]
pub struct As {
    /// As a member of this VO.
    pub vo: VoId,
    /// The account; `None` when it is not known without asking the node.
    pub account: Option<String>,
}

/// The account's name on most nodes: the rule that docs/architecture.md states. A node may have to
/// give another one, so it is asked where that matters.
pub fn usual_account(person: &PersonId, vo: &VoId) -> Option<String> {
    let name = format!("{}.{vo}", person.name());
    (name.len() <= ACCOUNT_NAME_MAX).then_some(name)
}

/// The options for reaching a node, with their values as ssh reads them.
pub fn options(at: &Where, who: Option<&As>) -> Vec<(&'static str, String)> {
    let mut proxy =
        format!("{} --home {} ssh-proxy", proxy_word(&at.program), proxy_word(&at.home));
    let mut options = Vec::new();
    if let Some(As { vo, account }) = who {
        proxy.push_str(&format!(" --vo {vo}"));
        if let Some(account) = account {
            proxy.push_str(&format!(" --user {account}"));
            options.push(("User", account.clone()));
        }
        options.push(("IdentityFile", at.file(&key::key_file(vo))));
        options.push(("CertificateFile", at.file(&key::certificate_file(vo))));
        options.push(("IdentitiesOnly", "yes".to_owned()));
    }
    // Names with a quote never come here: see `text`.
    proxy.push_str(" '%n'");
    options.insert(0, ("ProxyCommand", proxy));
    for (key, value) in [
        ("UserKnownHostsFile", at.file(KNOWN_HOSTS).as_str()),
        ("GlobalKnownHostsFile", "/dev/null"),
        ("StrictHostKeyChecking", "yes"),
        ("UpdateHostKeys", "no"),
    ] {
        options.push((key, value.to_owned()));
    }
    options
}

/// `ssh/config` for nodes. Names of more than two parts, and with a quote, are no nodes: ssh gives a name to
/// a shell as it stands, and names come from web pages and repositories too.
fn text(at: &Where, sites: &[SiteId], who: Option<&As>) -> String {
    let mut text = "# Written by xos at each sign-in. Settings of your own belong into \
                    ~/.ssh/config.\n"
        .to_owned();
    for site in sites.iter().filter(|site| !is_of_the_world(site)) {
        text.push_str(&format!("\nHost *.{site} !*.*.{site} \"!*'*\"\n"));
        for (key, value) in options(at, who) {
            text.push_str(&format!("    {key} {value}\n"));
        }
    }
    text
}

fn is_of_the_world(site: &SiteId) -> bool {
    site.as_str().len() == 2 || OF_THE_WORLD.contains(&site.as_str())
}

/// The lines of `ssh/known_hosts` for one site: whose word on its nodes counts, and on its core
/// where that has a name.
fn known_hosts(
    site: &SiteId,
    core: Option<&str>,
    authorities: &[[u8; 32]],
) -> Result<String, Error> {
    let mut text = String::new();
    for key in authorities {
        let key = PublicKey::from(KeyData::from(Ed25519PublicKey(*key)))
            .to_openssh()
            .map_err(|e| Error::internal(format!("cannot write a key of {site}: {e}")))?;
        let key = key.trim_end();
        text.push_str(&format!("@cert-authority *.{site},!*.*.{site} {key}\n"));
        if let Some(core) = core {
            text.push_str(&format!("@cert-authority {core} {key}\n"));
        }
    }
    Ok(text)
}

/// As whom plain `ssh` signs in: as a member of the default VO; `None` when there is none.
///
/// # Errors
/// As [`Credential::read`].
fn default_login(s: &Session) -> Result<Option<As>, Error> {
    let Some(vo) = s.default_vo()? else { return Ok(None) };
    let Some(credential) = Credential::read(&s.home, &vo)? else { return Ok(None) };
    let account = usual_account(&credential.membership()?.person, &vo);
    Ok(Some(As { vo, account }))
}

/// Writes both files anew, after sites or VOs have changed.
///
/// # Errors
/// As [`Where::of`] and [`Home::write_text`].
pub fn write(s: &Session) -> Result<(), Error> {
    let book = SiteBook::read(&s.home)?;
    let sites: Vec<SiteId> = book.sites.iter().map(|k| k.descriptor.site.clone()).collect();
    let trust = book.trust()?;
    let mut hosts = "# Written by xos at each sign-in.\n".to_owned();
    let mut names = Vec::new();
    for known in &book.sites {
        let site = &known.descriptor.site;
        let core = cores::name(known, &sites);
        hosts.push_str(&known_hosts(site, core.as_deref(), &trust.ssh_keys(site)?.machines)?);
        names.extend(core);
    }
    s.home.write_text(KNOWN_HOSTS, &hosts)?;
    let at = Where::of(s)?;
    let nodes = text(&at, &sites, default_login(s)?.as_ref());
    s.home.write_text(CONFIG, &format!("{nodes}{}", cores::text(&at, &names)))
}

/// Whether the nodes' configuration was written.
pub fn is_written(home: &Home) -> bool {
    matches!(home.read_text(CONFIG), Ok(Some(_)))
}

/// Removes both files.
///
/// # Errors
/// As [`Home::remove`].
pub fn remove(home: &Home) -> Result<(), Error> {
    for name in [CONFIG, KNOWN_HOSTS] {
        home.remove(name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::golden;
    use std::process::Command;

    fn at(home: &str) -> Where {
        Where { program: "/usr/bin/xos".into(), home: home.into() }
    }

    fn alice() -> As {
        let vo: VoId = "demo.rennes".parse().unwrap();
        As { account: usual_account(&"alice@rennes".parse().unwrap(), &vo), vo }
    }

    fn sites(names: &[&str]) -> Vec<SiteId> {
        names.iter().map(|n| n.parse().unwrap()).collect()
    }

    /// If it failed, ssh would come to machines of sites by another way than this file says: with
    /// other keys, as somebody else, or without looking at who answers.
    #[test]
    fn the_configuration_is_as_it_was_agreed() {
        let one = text(&at("/home/alice/.xos"), &sites(&["pisa", "rennes"]), Some(&alice()));
        let none = text(&at("/home/alice/.xos"), &sites(&["rennes"]), None);
        golden::check("ssh_config.txt", &format!("{one}\n== several VOs, none chosen ==\n{none}"));
    }

    /// If it failed, a site that calls itself `com` would answer for half of the world's machines.
    #[test]
    fn names_of_the_world_stay_with_the_world() {
        let text = text(&at("/x"), &sites(&["com", "fr", "local", "rennes"]), Some(&alice()));
        let hosts: Vec<&str> = text.lines().filter(|l| l.starts_with("Host ")).collect();
        assert_eq!(hosts, ["Host *.rennes !*.*.rennes \"!*'*\""]);
        assert!(OF_THE_WORLD.is_sorted());
    }

    /// If it failed, people with long names would sign in as somebody whom the node does not know,
    /// without being told.
    #[test]
    fn an_account_that_is_too_long_is_not_guessed() {
        let vo: VoId = "demo.rennes".parse().unwrap();
        let name = |person: &str| usual_account(&person.parse().unwrap(), &vo);
        assert_eq!(name("alice@pisa").as_deref(), Some("alice.demo.rennes"));
        assert_eq!(name(&format!("{}@pisa", "a".repeat(19))).map(|n| n.len()), Some(31));
        assert_eq!(name(&format!("{}@pisa", "a".repeat(20))), None);
        let options = options(&at("/x"), Some(&As { vo, account: None }));
        assert!(options.iter().all(|(key, _)| *key != "User"));
        assert!(options[0].1.ends_with("--vo demo.rennes '%n'"), "{}", options[0].1);
    }

    /// If it failed, ssh would read something else than was written, when a folder has an odd name;
    /// or give a hostile name to a shell.
    #[test]
    fn ssh_reads_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let home = "/home/al ice's/50%d #1; `id`";
        let file = dir.path().join("config");
        std::fs::write(&file, text(&at(home), &sites(&["rennes"]), Some(&alice()))).unwrap();
        let asked = |host: &str| {
            let out = Command::new("ssh").arg("-G").arg("-F").arg(&file).arg(host).output();
            match out {
                Ok(out) => String::from_utf8(out.stdout).unwrap(),
                Err(e) => panic!("these tests need OpenSSH's client: {e}"),
            }
        };
        let said = asked("n1.rennes");
        for want in [
            "user alice.demo.rennes\n",
            "identityfile /home/al ice's/50%%d #1; `id`/vo/demo.rennes/ssh_key\n",
            "certificatefile /home/al ice's/50%%d #1; `id`/vo/demo.rennes/ssh_key-cert.pub\n",
            // Of this one ssh shows what it makes of the signs of per cent.
            "userknownhostsfile /home/al ice's/50%d #1; `id`/ssh/known_hosts\n",
            "proxycommand '/usr/bin/xos' --home '/home/al ice'\\''s/50%%d #1; `id`' ssh-proxy \
             --vo demo.rennes --user alice.demo.rennes '%n'\n",
        ] {
            assert!(said.contains(want), "{want:?} is missing: {said}");
        }
        for other in ["a.n1.rennes", "n1.pisa", "rennes", "n'1.rennes"] {
            assert!(!asked(other).contains("ssh-proxy"), "{other}");
        }
    }

    /// If it failed, a site that a person's own one trusts, or a VO's home, could write lines of
    /// its own into what ssh reads: have programs run, or answer for machines of others.
    #[test]
    fn no_name_that_comes_from_a_core_becomes_a_line_or_a_pattern() {
        // As cores send them: in JSON.
        fn taken<T: serde::de::DeserializeOwned>(name: &str) -> bool {
            serde_json::from_str::<T>(&serde_json::to_string(name).unwrap()).is_ok()
        }
        let evil = [
            "",
            "*",
            "?",
            "!a",
            "a,b",
            "a b",
            "a\tb",
            "a.b",
            "a\"b",
            "a'b",
            "%h",
            "$x",
            "`x`",
            "-x",
            "a-",
            "#a",
            "a\0",
            "a\\",
            "A",
            "\u{e9}",
            "\u{ff21}",
            "a\u{2028}b",
            "a\n    ProxyCommand x",
            "a\rb",
        ];
        for name in evil {
            assert!(!taken::<SiteId>(name), "{name:?}");
            assert!(!taken::<VoId>(&format!("{name}.rennes")), "{name:?}");
            assert!(!taken::<VoId>(&format!("demo.{name}")), "{name:?}");
            assert!(!taken::<PersonId>(&format!("{name}@rennes")), "{name:?}");
        }
        assert!(taken::<SiteId>("rennes") && taken::<VoId>("demo.rennes"));
        // The longest that there are stand where they are meant to.
        let label = "z".repeat(24);
        let vo: VoId = format!("{label}.{label}").parse().unwrap();
        let text = text(&at("/x"), &sites(&[&label]), Some(&As { vo, account: None }));
        let hosts = text.lines().filter(|l| l.starts_with("Host ")).count();
        let settings = text.lines().filter(|l| l.starts_with("    ")).count();
        let others = text.lines().filter(|l| l.is_empty() || l.starts_with('#')).count();
        assert_eq!((hosts, hosts + settings + others), (1, text.lines().count()), "{text}");
    }

    /// If it failed, ssh would take any key as a machine's, or ask about each.
    #[test]
    fn a_site_answers_for_its_own_machines_only() {
        let (site, core) = ("rennes".parse().unwrap(), "core.rennes.example");
        let text = known_hosts(&site, Some(core), &[[3; 32], [4; 32]]).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD";
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(lines[0], format!("@cert-authority *.rennes,!*.*.rennes {key}"));
        assert_eq!(lines[1], format!("@cert-authority core.rennes.example {key}"));
        let text = known_hosts(&site, None, &[[3; 32]]).unwrap();
        assert_eq!(text, format!("{}\n", lines[0]));
    }
}
