//! `xos names import`: names from a legacy grid-mapfile.

use super::gridmap::{self, Dn};
use super::people;
use super::plan::{self, By, Row};
use crate::cli::accounts::{machine, text};
use crate::cli::ask;
use crate::cli::output::{Failure, Outcome, Style, Table, clean, count};
use crate::cli::pages;
use crate::cli::session::Session;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use xos_api::vom::{AccountName, GiveNames, ListMembers, ListNames, MemberPage, NamePage, Naming};
use xos_base::{Error, PersonId, VoId};
use xos_net::Client;

/// Longest file that is read, in bytes.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// `xos names import`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos names import /etc/grid-security/grid-mapfile --vo demo.rennes --people people.csv --dry-run
  xos names import grid-mapfile --vo demo.rennes --people people.csv --yes

The file of people has lines as \"/DC=org/CN=Ann Example\",ann@rennes. Without it, or for whom it \
does not name, a member is meant whose name ends the subject exactly; that is shown and asked \
about, and --yes does not answer it. Names are given all or none, and who has theirs keeps it. \
Nobody's uid changes.")]
pub struct Import {
    /// The grid-mapfile.
    file: PathBuf,
    /// Who is behind the subjects: lines of subject and person, with a comma between.
    #[arg(long, value_name = "FILE")]
    people: Option<PathBuf>,
    /// The local users of the nodes, to be told which of them have a name.
    #[arg(long, value_name = "FILE", default_value = "/etc/passwd")]
    passwd: PathBuf,
    /// Show what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// What an import did, or would do.
#[derive(Serialize)]
struct Imported {
    /// Whether names were given.
    done: bool,
    /// Line by line.
    lines: Vec<Row>,
    /// The names, as the core has them.
    names: Vec<AccountName>,
}

/// Gives the names in a grid-mapfile.
///
/// # Errors
/// When a file cannot be read, nobody consents, and what the core says.
pub async fn import(s: &Session, args: Import) -> Outcome {
    let vo = s.named_vo().cloned().ok_or_else(|| {
        Error::invalid("it is not said in which VO the people are").hint("add --vo VO")
    })?;
    let lines = gridmap::parse(&read(&args.file)?);
    let people = match &args.people {
        Some(path) => people::parse(&read(path)?).map_err(|e| of_file(path, e))?,
        None => BTreeMap::<Dn, PersonId>::new(),
    };
    let core = s.person(&s.site()?).await?;
    let mut rows = plan::plan(&lines, &people, &members(&core, &vo).await?);
    let names = plan::wanted(&rows);
    let told = match names.is_empty() {
        true => Vec::new(),
        false => core.call(GiveNames { vo: vo.clone(), names, dry_run: true }).await?,
    };
    note_local_users(&mut rows, &told, &text(&args.passwd)?, &args.passwd);
    note_given(&mut rows, &in_use(&core, &vo).await?);
    let mut imported = Imported { done: false, lines: rows, names: told };
    let new = imported.new_names();
    if args.dry_run || new.is_empty() {
        s.out.show(&imported, || format!("{}{}", table(&imported), same(&imported, &new)))?;
        return match args.dry_run || !imported.names.is_empty() {
            true => Ok(0),
            false => Err(nothing(&imported.lines).into()),
        };
    }
    consent(s, &args, &imported, new.len())?;
    let given = core.call(GiveNames { vo, names: new, dry_run: false }).await?;
    let text = format!("{} given.", count(given.len(), "name is", "names are"));
    imported.names.retain(|old| given.iter().all(|new| new.name != old.name));
    imported.names.extend(given);
    imported.done = true;
    s.out.show(&imported, || text)?;
    Ok(0)
}

impl Imported {
    /// The names that nobody has yet of those who are to get them.
    fn new_names(&self) -> Vec<Naming> {
        let given =
            |n: &Naming| self.lines.iter().any(|r| r.given && r.name.as_ref() == Some(&n.name));
        plan::wanted(&self.lines).into_iter().filter(|naming| !given(naming)).collect()
    }
}

/// What is said below the table when there is nothing to give that is not given.
fn same(imported: &Imported, new: &[Naming]) -> String {
    match new.is_empty() && !imported.names.is_empty() {
        true => "\nNothing changes: all accounts are called so already.".to_owned(),
        false => String::new(),
    }
}

/// What is wrong when no line gives a name.
fn nothing(lines: &[Row]) -> Error {
    let e = Error::not_found("no line gives a name: nothing was changed");
    let why = lines.iter().find_map(|row| Some((row.line, row.left_out.as_ref()?)));
    match why {
        Some((line, why)) => e.hint(format!("line {line}: {why}")),
        None => e.hint("the file has no lines, or comments only"),
    }
}

fn of_file(path: &Path, e: Error) -> Error {
    Error { message: format!("{}: {}", path.display(), e.message), ..e }
}

fn read(path: &Path) -> Result<String, Error> {
    let fail = |why: &dyn std::fmt::Display| {
        Error::invalid(format!("cannot read {}: {why}", path.display()))
    };
    let file = std::fs::File::open(path).map_err(|e| fail(&e))?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(|e| fail(&e))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(fail(&format!("it is longer than {FILE_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| fail(&"it is no text in UTF-8"))
}

async fn members(core: &Client, vo: &VoId) -> Result<BTreeSet<PersonId>, Error> {
    let ask = |after| ListMembers { vo: vo.clone(), after, limit: None };
    let all = pages::all(core, ask, |page: MemberPage| (page.members, page.next)).await?;
    Ok(all.into_iter().map(|m| m.person).collect())
}

/// The names by which accounts of the VO are called now.
async fn in_use(core: &Client, vo: &VoId) -> Result<Vec<AccountName>, Error> {
    let ask = |after| ListNames { vo: Some(vo.clone()), after, limit: None };
    let all = pages::all(core, ask, |page: NamePage| (page.names, page.next)).await?;
    Ok(all.into_iter().filter(|name| name.used).collect())
}

/// Says of each line whether what it wants is so already.
fn note_given(rows: &mut [Row], in_use: &[AccountName]) {
    for row in rows.iter_mut().filter(|row| row.left_out.is_none()) {
        let so = |n: &AccountName| {
            row.name.as_ref() == Some(&n.name) && row.person.as_ref() == Some(&n.person)
        };
        row.given = in_use.iter().any(so);
    }
}

/// Says of each name that a local user has what to do about it: there the name does not count.
fn note_local_users(rows: &mut [Row], told: &[AccountName], passwd: &str, file: &Path) {
    let users = machine::passwd(passwd);
    for row in rows.iter_mut().filter(|row| row.left_out.is_none()) {
        let Some(name) = &row.name else { continue };
        let Some(local) = users.iter().find(|u| u.user.name == name.as_str()) else { continue };
        let account = told.iter().find(|t| t.name == *name).and_then(|t| t.account.as_ref());
        let Some(account) = account else { continue };
        let (old, new) = (local.user.id, account.uid);
        row.notes.push(format!(
            "{} has a user {name}, uid {old}: where it is, the account is called {}. To hand over \
             its files, rename or remove it, then: find FOLDER -xdev -uid {old} -execdir chown -h \
             --from={old} {new} {{}} +",
            file.display(),
            account.default
        ));
    }
}

/// Shows what would be done, and asks. What rests on a name alone a person looks at.
fn consent(s: &Session, args: &Import, imported: &Imported, new: usize) -> Result<(), Failure> {
    let found = |row: &&Row| row.left_out.is_none() && !row.given && row.by == Some(By::Name);
    let by_name = imported.lines.iter().filter(found).count();
    if args.yes && by_name == 0 {
        // What is left out, and what is to be done beside, is told all the same.
        return if s.out.json { Ok(()) } else { s.out.text(&table(imported)) };
    }
    if args.yes || s.out.json {
        let people = count(by_name, "person is found by the", "people are found by their");
        let why = format!("{people} name alone");
        let why = if args.yes { why.as_str() } else { "nobody has consented" };
        return Err(Error::invalid(format!("{why}: nothing was changed"))
            .hint("look at them with --dry-run, put them into the file of people, then add --yes")
            .into());
    }
    s.out.text(&table(imported))?;
    let left_out = imported.lines.iter().filter(|row| row.left_out.is_some()).count();
    let question = format!(
        "Give {}, {by_name} of them to people found by name, and leave out {}?",
        count(new, "name", "names"),
        count(left_out, "line", "lines")
    );
    ask::consent(&question, "add --yes", "nothing was changed")
}

fn table(imported: &Imported) -> String {
    let mut table = Table::new(&["LINE", "SUBJECT", "PERSON", "NAME", "NUMBER", "UID", "REMARK"]);
    let mut notes = String::new();
    for row in &imported.lines {
        let told = imported.names.iter().find(|t| Some(&t.name) == row.name.as_ref());
        let told = told.filter(|_| row.left_out.is_none());
        let account = told.and_then(|t| t.account.as_ref());
        let remark = match (&row.left_out, row.by) {
            (Some(_), _) => Style::Bad.mark("left out"),
            (None, _) if row.given => "so already".to_owned(),
            (None, Some(By::Name)) => Style::Busy.mark("found by name"),
            (None, _) => String::new(),
        };
        table.row([
            row.line.to_string(),
            clean(&row.subject),
            row.person.as_ref().map(ToString::to_string).unwrap_or_default(),
            row.name.as_ref().map(ToString::to_string).unwrap_or_default(),
            account.map(|a| a.number.to_string()).unwrap_or_default(),
            account.map(|a| a.uid.to_string()).unwrap_or_default(),
            remark,
        ]);
        let former = told.and_then(|t| t.former.as_ref());
        let former = former.map(|f| format!("the account is called {f} now"));
        let left_out = row.left_out.as_ref().map(|why| format!("left out: {why}"));
        for note in left_out.iter().chain(&row.notes).chain(&former) {
            notes.push_str(&format!("\nLine {}: {}", row.line, clean(note)));
        }
    }
    format!("{}{notes}", table.text("The file has no lines."))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, an administrator would consent to something else than is done, or leave files
    /// with a uid that nobody has.
    #[test]
    fn the_table_says_what_would_be_done() {
        let map = "\"/O=Grid/CN=Ann Example\" ann\n/O=Grid/CN=bob bob,bob2\n/O=Grid/CN=x .pool\n";
        let known = people::parse("/O=Grid/CN=Ann Example,ann@rennes\n").unwrap();
        let members = ["ann@rennes", "bob@pisa"].iter().map(|p| p.parse().unwrap()).collect();
        let mut lines = plan::plan(&gridmap::parse(map), &known, &members);
        let names: Vec<AccountName> = serde_json::from_value(serde_json::json!([
            {"name": "ann", "vo": "demo.rennes", "person": "ann@rennes", "used": true, "since": 1,
             "account": {"number": 3, "uid": 1_879_048_195_u32, "default": "ann.demo.rennes"},
             "former": "anna"},
            {"name": "bob", "vo": "demo.rennes", "person": "bob@pisa", "used": true, "since": 1,
             "account": {"number": 7, "uid": 1_879_048_199_u32, "default": "bob.demo.rennes"}},
        ]))
        .unwrap();
        let passwd = "root:x:0:0::/:/s\nann:x:1042:100::/home/ann:/bin/bash\n";
        note_local_users(&mut lines, &names, passwd, Path::new("/etc/passwd"));
        let text = table(&Imported { done: false, lines, names });
        for part in ["found by name", "not taken: bob2", "left out: .pool is a pool", "1879048199"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let chown = "-uid 1042 -execdir chown -h --from=1042 1879048195 {} +";
        assert!(text.contains(chown), "{text}");
        assert!(text.contains("is called anna now"), "{text}");
    }

    /// If it failed, an import that is made again would claim to have given names, and be audited
    /// as if it had; or a new line among old ones would not be given.
    #[test]
    fn names_that_are_given_already_are_not_given_again() {
        let known = people::parse("/O=G/CN=1,ann@rennes\n/O=G/CN=2,bob@pisa\n").unwrap();
        let members = ["ann@rennes", "bob@pisa"].iter().map(|p| p.parse().unwrap()).collect();
        let map = gridmap::parse("/O=G/CN=1 ann\n/O=G/CN=2 bob\n");
        let name = |name: &str, person: &str| -> AccountName {
            serde_json::from_value(serde_json::json!({
                "name": name, "vo": "demo.rennes", "person": person, "used": true, "since": 1
            }))
            .unwrap()
        };
        let both = [name("ann", "ann@rennes"), name("bob", "bob@pisa")];
        let planned = |in_use: &[AccountName]| {
            let mut lines = plan::plan(&map, &known, &members);
            note_given(&mut lines, in_use);
            let imported = Imported { done: false, lines, names: both.to_vec() };
            let new = imported.new_names();
            let text = format!("{}{}", table(&imported), same(&imported, &new));
            (new.iter().map(|n| n.name.to_string()).collect::<Vec<_>>(), text)
        };
        let (new, text) = planned(&both);
        assert!(new.is_empty() && text.contains("Nothing changes"), "{text}");
        let (new, text) = planned(&both[..1]);
        assert!(new == ["bob"] && text.contains("so already"), "{new:?}: {text}");
        // Kept from before for somebody else: the core will say so.
        assert_eq!(planned(&[name("ann", "eve@pisa")]).0, ["ann", "bob"]);
    }

    /// If it failed, somebody whose whole file is wrong would not hear why.
    #[test]
    fn a_file_that_gives_no_name_is_told_with_a_line_and_its_reason() {
        let map = gridmap::parse("# who\n\"/O=G/CN=1 ann\n");
        let lines = plan::plan(&map, &BTreeMap::new(), &BTreeSet::new());
        let e = nothing(&lines).to_string();
        assert!(e.contains("line 2: a quote is not closed"), "{e}");
        let path = Path::new("people.csv");
        let e = of_file(path, people::parse("/O=G/CN=1").unwrap_err()).to_string();
        assert!(e.contains("people.csv: line 1: there is no comma"), "{e}");
    }
}
