//! `xos vo import`: groups, settings and people from a file of JSON lines.
//!
//! The file is read twice: first to say what would be done, then to do it. Nobody becomes a member
//! by it: people are expected, and admitted when they apply. What is done already is found so, so
//! that an import that was interrupted goes on when it is asked for again.

mod lines;
mod settings;

use crate::cli::ask;
use crate::cli::output::{Failure, Outcome, Table};
use crate::cli::pages;
use crate::cli::session::Session;
use lines::{Line, Lines};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::BufReader;
use std::path::PathBuf;
use xos_api::policy::Rule;
use xos_api::vom::{
    CreateGroup, CreateSubgroup, EXPECT_MAX, ExpectPeople, ExpectedPerson, Expecting, GroupPage,
    ListGroups, SetTermsOfUse,
};
use xos_base::{Error, GroupName, PersonId, VoId};
use xos_net::Client;

/// Most groups and roles of the people in one request, so that it stays small.
const WORDS_MAX: usize = 10_000;

/// `xos vo import`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos vo import demo.jsonl demo.rennes --dry-run
  xos vo import demo.jsonl demo.rennes --yes

Groups are made, settings, terms of use, questions and rules set, managers named who are members, \
and people expected: who of them applies (xos vo apply) is a member at once, with the groups, \
roles and end of the file. Members stay as they are. Rules of the file take the place of those \
that there are. Only owners import administrators and owners. An import that was interrupted goes \
on when you give the same command again.")]
pub struct Import {
    /// The file; `xos vo export` writes such a one.
    file: PathBuf,
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// Show what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Leave lines out that cannot be taken.
    #[arg(long)]
    skip_bad: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// What an import does, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Plan {
    /// Whether it was done.
    done: bool,
    /// Lines read.
    lines: u64,
    /// Groups that are made.
    groups: u64,
    /// Settings that change.
    settings: u64,
    /// People who are expected from now on.
    new: u64,
    /// People who are expected otherwise than before.
    changed: u64,
    /// People who are expected so already.
    same: u64,
    /// People who are members already, and stay as they are.
    members: u64,
    /// Rules that take the place of those that there are.
    rules: u64,
    /// Members who manage a group from now on.
    named: u64,
    /// Managers whom somebody names again when they are members.
    managers: u64,
    /// Lines that cannot be taken.
    bad: u64,
    /// Lines that are not imported, by why.
    left_out: BTreeMap<&'static str, u64>,
    /// Whether the last line was there.
    whole: bool,
}

/// One reading of the file.
struct Walk<'a> {
    s: &'a Session,
    client: &'a Client,
    vo: &'a VoId,
    dry_run: bool,
    plan: Plan,
    /// The groups that there are now, with those above them.
    there: BTreeMap<GroupName, Option<GroupName>>,
    /// Those that the file adds.
    planned: BTreeMap<GroupName, Option<GroupName>>,
    /// Who manages which group.
    managed: BTreeMap<GroupName, Vec<PersonId>>,
    /// The rules read so far.
    rules: Vec<Rule>,
    /// Of each person a number, in place of the name: a million of them must fit into memory.
    seen: HashSet<u64>,
    batch: Vec<(u64, ExpectedPerson)>,
    words: usize,
}

/// Imports a file.
pub async fn import(s: &Session, args: Import) -> Outcome {
    let client = s.vo_client(&args.of).await?;
    let plan = read(s, &client, &args, true).await?;
    if args.dry_run {
        s.out.show(&plan, || table(&plan))?;
        return Ok(0);
    }
    consent(s, &args, &plan)?;
    let mut done = read(s, &client, &args, false).await?;
    done.done = true;
    if done.bad > plan.bad {
        s.out.warn(
            &Error::conflict(format!("{} more lines could not be taken", done.bad - plan.bad))
                .hint("the VO or the file changed meanwhile: look with --dry-run"),
        )?;
    }
    s.out.show(&done, || table(&done))?;
    Ok(0)
}

async fn read(s: &Session, client: &Client, args: &Import, dry_run: bool) -> Result<Plan, Failure> {
    let vo = &args.of;
    let shown = args.file.display();
    let fail = |e: std::io::Error| Error::invalid(format!("cannot read {shown}: {e}"));
    let mut lines = Lines::new(BufReader::new(File::open(&args.file).map_err(fail)?));
    let ask = |after| ListGroups { vo: vo.clone(), after, limit: None };
    let groups = pages::all(client, ask, |page: GroupPage| (page.groups, page.next)).await?;
    let mut walk = Walk {
        s,
        client,
        vo,
        dry_run,
        plan: Plan::default(),
        there: groups.iter().map(|g| (g.name.clone(), g.parent.clone())).collect(),
        managed: groups.into_iter().map(|g| (g.name, g.managers)).collect(),
        rules: Vec::new(),
        planned: BTreeMap::new(),
        seen: HashSet::new(),
        batch: Vec::new(),
        words: 0,
    };
    while let Some((number, line)) = lines.line().map_err(fail)? {
        walk.plan.lines += 1;
        let taken = match line {
            Ok(line) => walk.take(number, line).await,
            Err(why) => walk.bad(number, &why),
        };
        taken.map_err(|f| stopped(f, number, dry_run))?;
    }
    let last = walk.plan.lines;
    walk.flush().await.map_err(|f| stopped(f, last, dry_run))?;
    walk.set_rules(last).await.map_err(|f| stopped(f, last, dry_run))?;
    Ok(walk.plan)
}

/// A failure in the middle says how far it came.
fn stopped(failure: Failure, number: u64, dry_run: bool) -> Failure {
    match failure {
        Failure::Error(e) if !dry_run => {
            let text = format!("stopped at line {number}: {}", e.message);
            let hint = "give the same command again: what is done is not done twice";
            Failure::Error(Error::new(e.kind, text).hint(hint))
        }
        other => other,
    }
}

impl Walk<'_> {
    fn bad(&mut self, number: u64, why: &str) -> Result<(), Failure> {
        self.plan.bad += 1;
        if self.dry_run {
            self.s.out.warn(&Error::invalid(format!("line {number}: {why}")))?;
        }
        Ok(())
    }

    async fn take(&mut self, number: u64, line: Line) -> Result<(), Failure> {
        match line {
            Line::Settings(settings) => self.settings(number, settings).await,
            Line::Terms { text, consent_days, grace_days } => {
                let (vo, grace_days) = (self.vo.clone(), Some(grace_days));
                self.terms(number, SetTermsOfUse { vo, text, consent_days, grace_days }).await
            }
            Line::Questions(questions) => self.questions(number, questions).await,
            Line::Reminders(days) => self.reminders(number, days).await,
            Line::Rule(rule) => self.rule(number, rule),
            Line::Group { name, parent, managers } => {
                if self.group(number, name.clone(), parent).await? {
                    self.managers(number, &name, managers).await?;
                }
                Ok(())
            }
            Line::Person(person) => self.person(number, person).await,
            Line::End => {
                self.plan.whole = true;
                Ok(())
            }
            Line::Nothing(why) => {
                *self.plan.left_out.entry(why).or_default() += 1;
                Ok(())
            }
        }
    }

    fn known(&self, name: &GroupName) -> Option<&Option<GroupName>> {
        self.there.get(name).or_else(|| self.planned.get(name))
    }

    /// Whether the group is there then.
    async fn group(
        &mut self,
        number: u64,
        name: GroupName,
        parent: Option<GroupName>,
    ) -> Result<bool, Failure> {
        if let Some(known) = self.known(&name) {
            if *known == parent {
                return Ok(true);
            }
            let why = format!("{name} is there already, under another group");
            return self.bad(number, &why).map(|()| false);
        }
        if let Some(above) = parent.as_ref().filter(|p| self.known(p).is_none()) {
            let why = format!("there is no group {above} before this line");
            return self.bad(number, &why).map(|()| false);
        }
        self.plan.groups += 1;
        if self.dry_run {
            self.planned.insert(name, parent);
            return Ok(true);
        }
        let vo = self.vo.clone();
        match parent.clone() {
            Some(parent) => {
                self.client.call(CreateSubgroup { vo, parent, name: name.clone() }).await?
            }
            None => self.client.call(CreateGroup { vo, name: name.clone() }).await?,
        };
        self.there.insert(name, parent);
        Ok(true)
    }

    async fn person(&mut self, number: u64, person: ExpectedPerson) -> Result<(), Failure> {
        if let Some(none) = person.groups.iter().find(|g| self.known(g).is_none()) {
            let why = format!("there is no group {none} before this line");
            return self.bad(number, &why);
        }
        if !self.seen.insert(digest(&person.person)) {
            return self.bad(number, &format!("{} stands in the file twice", person.person));
        }
        self.words += person.groups.len() + person.roles.len();
        self.batch.push((number, person));
        if self.batch.len() >= EXPECT_MAX || self.words >= WORDS_MAX {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.words = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        let (numbers, mut people): (Vec<u64>, Vec<ExpectedPerson>) = batch.into_iter().unzip();
        // The core looks whether groups exist; those of the plan do not yet.
        for person in people.iter_mut().filter(|_| self.dry_run) {
            person.groups.retain(|g| self.there.contains_key(g));
        }
        let ask = ExpectPeople { vo: self.vo.clone(), people, dry_run: self.dry_run };
        let outcomes = self.client.call(ask).await?;
        if outcomes.len() != numbers.len() {
            return Err(Error::internal("the core answered for other people").into());
        }
        for (number, outcome) in numbers.into_iter().zip(outcomes) {
            match outcome {
                Expecting::New => self.plan.new += 1,
                Expecting::Changed => self.plan.changed += 1,
                Expecting::Same => self.plan.same += 1,
                Expecting::Member => self.plan.members += 1,
                Expecting::Refused { reason } => self.bad(number, &reason)?,
            }
        }
        Ok(())
    }
}

fn digest(person: &PersonId) -> u64 {
    let mut hasher = DefaultHasher::new();
    person.hash(&mut hasher);
    hasher.finish()
}

/// Shows what would be done, and asks.
fn consent(s: &Session, args: &Import, plan: &Plan) -> Result<(), Failure> {
    if plan.bad > 0 && !args.skip_bad {
        return Err(Error::invalid(format!(
            "{} lines cannot be taken: nothing was changed",
            plan.bad
        ))
        .hint("mend them, or add --skip-bad to leave them out")
        .into());
    }
    if args.yes {
        return Ok(());
    }
    if s.out.json {
        let e = Error::invalid("nobody has consented: nothing was changed");
        return Err(e.hint("look with --dry-run, then add --yes").into());
    }
    s.out.text(&table(plan))?;
    let question = format!("Import that into {}?", args.of);
    ask::consent(&question, "add --yes", "nothing was changed")
}

fn table(plan: &Plan) -> String {
    let mut table = Table::new(&["LINES", "WHAT"]);
    let mut row = |count: u64, what: &str| {
        if count > 0 {
            table.row([count.to_string(), what.to_owned()]);
        }
    };
    row(plan.groups, "groups to make");
    row(plan.settings, "settings to change");
    row(plan.rules, "rules, in place of those that there are");
    row(plan.named, "members to name as managers of groups");
    row(plan.new, "people to expect");
    row(plan.changed, "people to expect otherwise");
    row(plan.same, "people expected so already");
    row(plan.members, "members already, who stay as they are");
    row(plan.managers, "managers of groups: name them when they are members");
    for (why, count) in &plan.left_out {
        row(*count, &format!("left out: {why}"));
    }
    row(plan.bad, "bad lines");
    let text = table.text("The file has nothing to import.");
    let head = if plan.done { "Done.\n" } else { "" };
    let cut = if plan.whole { "" } else { "\nThe last line is missing: the file may be cut." };
    format!("{head}{text}{cut}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, an administrator would consent to something else than is done.
    #[test]
    fn the_plan_says_what_is_done_and_what_is_not() {
        let plan = Plan { new: 3, bad: 2, managers: 1, ..Plan::default() };
        let text = table(&plan);
        for part in ["people to expect", "bad lines", "name them when", "may be cut"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("groups to make") && !text.contains("Done"), "{text}");
    }
}
