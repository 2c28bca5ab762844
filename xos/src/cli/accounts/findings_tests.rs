use super::*;
use crate::cli::accounts::machine;
use crate::cli::golden;

const BASE: u32 = 1_879_048_192;

/// A machine as installed by the book.
fn sound() -> Machine {
    let named = |name: &str, id| Named { name: name.into(), id };
    Machine {
        users: machine::passwd(
            "root:x:0:0::/:/s\nnobody:x:65534:65534::/:/s\nann:x:1000:1000::/:/s\n",
        ),
        groups: machine::group("root:x:0:\nann:x:1000:\n"),
        grid_users: vec![named("alice.demo.rennes", BASE + 1), named("bob.demo.rennes", BASE + 2)],
        grid_groups: vec![named("members.demo.rennes", BASE + 1)],
        given: vec![],
        blocks: vec![Range::new("demo.rennes", BASE, BASE + 65_535)],
        subuid: machine::subordinate("ann:100000:65536\n"),
        subgid: machine::subordinate("ann:100000:65536\n"),
        login_defs: machine::login_defs("UID_MAX 60000\n"),
        nsswitch: machine::nsswitch(
            "passwd: files systemd xos\ngroup: files systemd xos\nshadow: files xos\n",
        ),
        module_missing: None,
        homes_taken: None,
    }
}

fn about(m: &Machine) -> Vec<&'static str> {
    findings(m).iter().map(|f| f.about).collect()
}

/// If it failed, administrators would learn to pass over what the check says.
#[test]
fn a_machine_by_the_book_has_no_findings() {
    assert!(about(&sound()).is_empty(), "{:?}", findings(&sound()));
    // Without any VO there is nothing to clash with.
    assert!(about(&Machine { blocks: vec![], ..sound() }).is_empty());
}

/// If it failed, a clash would be seen only when somebody reads another person's files.
#[test]
fn every_clash_is_told_with_what_to_do() {
    let mut m = sound();
    m.users.extend(machine::passwd(&format!(
        "old:x:{}:100::/:/s\nnext:x:{}:100::/:/s\nbob.demo.rennes:x:1001:{}::/:/s\n",
        BASE + 1,
        BASE + 77,
        BASE + 1
    )));
    m.groups
        .extend(machine::group(&format!("oldgroup:x:{}:\nmembers.demo.rennes:x:50:\n", BASE + 1)));
    let given = |name: &str, n: u32| Given {
        name: name.into(),
        person: "alice@rennes".into(),
        vo: "demo.rennes".into(),
        uid: BASE + n,
        default: "alice.demo.rennes".into(),
    };
    m.given = vec![given("ann", 1), given("nobody-has-it", 2)];
    m.subuid.extend(machine::subordinate(&format!("ann:{}:65536\n", BASE + 65_000)));
    m.login_defs = machine::login_defs("UID_MAX 2000000000\n");
    m.blocks.push(Range::new("near.pisa", 200_000, 265_535));
    m.nsswitch = machine::nsswitch(
        "passwd: xos files\ngroup: files [NOTFOUND=return] xos\ninitgroups: files\n",
    );
    m.module_missing = Some("/usr/lib/x86_64-linux-gnu/libnss_xos.so.2".into());
    m.homes_taken = Some("/home/xos".into());
    let text: Vec<String> =
        findings(&m).iter().map(|f| format!("{}: {}\n    {}\n", f.about, f.what, f.hint)).collect();
    golden::check("accounts.txt", &text.concat());
}

/// If it failed, a VO with a base of the site's own choice could share numbers with containers.
#[test]
fn numbers_next_to_others_are_no_clash_and_shared_ones_are() {
    let with = |first, last| {
        let mut m = sound();
        m.blocks = vec![Range::new("demo.rennes", first, last)];
        (m.grid_users, m.grid_groups) = (vec![], vec![]);
        about(&m)
    };
    assert!(with(BASE, 2_147_352_575).is_empty(), "the whole of what XOS gives by itself");
    assert_eq!(with(BASE - 1, BASE), ["range"]);
    assert_eq!(with(2_147_352_575, 2_147_352_576), ["range"]);
    let below = with(100_000, 165_535);
    assert_eq!(below, ["range"; 4], "of ann twice, and what useradd gives for containers");
}

/// If it failed, a working line would be called wrong, or a useless one right.
#[test]
fn lines_of_nsswitch_are_judged_as_libc_reads_them() {
    let with = |line: &str| {
        let mut m = sound();
        m.nsswitch = machine::nsswitch(&format!("{line}\ngroup: files xos\nshadow: files xos\n"));
        about(&m).len()
    };
    for good in [
        "passwd: files xos",
        "passwd: files [SUCCESS=return] xos",
        "passwd: files [!NOTFOUND=return] xos",
        "passwd: files xos [NOTFOUND=return] systemd",
        "passwd:files systemd xos",
        "passwd: files xos\ninitgroups: files xos",
    ] {
        assert_eq!(with(good), 0, "{good}");
    }
    for bad in [
        "",
        "# passwd: files xos",
        "passwd: files",
        "passwd: xos",
        "passwd: xos files",
        "passwd: files [NotFound=Return] xos",
        "passwd: files [!UNAVAIL=return] xos",
        "passwd: files xos\ninitgroups: files",
    ] {
        assert_eq!(with(bad), 1, "{bad}");
    }
}

proptest::proptest! {
    /// If it failed, one odd byte in a file of the machine would end the check.
    #[test]
    fn no_content_of_a_file_ends_the_check(
        texts in proptest::collection::vec("([a-z\\[\\]=!#:+.\t\n 0-9-]|\\PC){0,80}", 7)
    ) {
        let m = Machine {
            users: machine::passwd(&texts[0]),
            groups: machine::group(&texts[1]),
            subuid: machine::subordinate(&texts[2]),
            subgid: machine::subordinate(&texts[3]),
            login_defs: machine::login_defs(&texts[4]),
            nsswitch: machine::nsswitch(&texts[5]),
            blocks: machine::subordinate(&texts[6]),
            ..sound()
        };
        for finding in findings(&m) {
            proptest::prop_assert!(!finding.hint.is_empty());
        }
    }
}
