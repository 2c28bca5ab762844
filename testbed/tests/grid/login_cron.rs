//! Debian's cron runs jobs of members: a step of [`crate::login_limits`].

use std::path::Path;

use xos_testbed::{Cmd, Signal};

use crate::login_limits::{audited, is_counted, uid, words};
use crate::signed_in::account;
use crate::tool::skipped;
use crate::world::{VO, World, soon};

const CRON: &str = "/usr/sbin/cron";

/// If it failed, a member could not leave work for later, or what cron starts would be without the
/// limits of its person, or run on for somebody who is suspended.
pub fn jobs_of_members(w: &World) {
    if !Path::new(CRON).exists() {
        return skipped("needs cron of Debian");
    }
    let node = &w.rennes.nodes[0];
    w.xos(&w.vera, &["vo", "suspend", VO, &w.petra.id(), "-m", "away"]).ok();
    let petra = account(&w.petra);
    soon("the node has heard of it", || {
        let su = node.run(&Cmd::shell(format!("su {petra} -c true"))).unwrap();
        (!su.exit.is_success()).then_some(())
    });
    let marks = [&w.milo, &w.petra].map(|person| {
        let (name, mark) = (account(person), format!("/tmp/by-cron.{}", person.name));
        // Run as soon as cron begins, not with the next minute.
        let work = format!("(id -un; cat /proc/self/cgroup; echo done) > {mark}");
        let table = format!("MAILTO=\"\"\n@reboot {work}\n");
        let install = Cmd::new("crontab").args(["-u", &name, "-"]).stdin(table);
        node.run(&install).unwrap().ok().unwrap();
        mark
    });
    let begin = Cmd::new(CRON).arg("-f").own_cgroup("cron".parse().unwrap());
    let cron = node.spawn(&begin).unwrap();
    let said = soon("the job has run", || {
        let text = String::from_utf8(node.read_file(&marks[0]).ok()?).ok()?;
        text.ends_with("done\n").then_some(text)
    });
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], account(&w.milo));
    is_counted(&lines[1..lines.len() - 1].join("\n"), &uid(w, &w.milo));

    let told = |what: &str, outcome: &str, person: &str| {
        let [what, outcome, who] = words(what, outcome, person);
        audited(w, &[&what, &outcome, &who, "cron as "])
    };
    let (milo, petra) = (w.milo.id(), w.petra.id());
    soon("the suspended member is refused", || {
        (told("allow_login", "refused", &petra) > 0).then_some(())
    });
    soon("the other's is told", || (told("open_session", "done", &milo) > 0).then_some(()));
    assert_eq!(told("open_session", "done", &petra), 0);
    assert!(node.read_file(&marks[1]).is_err(), "work of a suspended member was begun");
    cron.signal(Signal::KILL).unwrap();
}
