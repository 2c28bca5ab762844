//! `xos vo`: virtual organizations.

mod ends;
mod enrolment;
mod exchange;
mod groups;
mod import;
mod invitations;
mod members;
mod records;
mod running;
mod settings;
mod shares;

use super::output::{
    Outcome, Style, Table, clean, clean_lines, cpus, fields, holds, list, size, span, when,
};
use super::pages;
use super::rules;
use super::session::Session;
use xos_api::vom::{
    Apply, FoundVo, GRACE_S_DEFAULT, GetEnrolmentForm, GetVo, LEASE_S_DEFAULT, ListVos,
    MemberState, RENEWAL_S_DEFAULT, Terms, VoInfo, VoPage, VoState, WithdrawApplication,
};
use xos_base::{Millis, VoId};

/// `xos vo …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show the VOs that a site knows.
    #[command(after_help = "Examples:\n  xos vo list\n  xos vo list --site pisa")]
    List,
    /// Show one VO.
    #[command(after_help = "Example:\n  xos vo show demo.rennes")]
    Show(OfVo),
    /// Found a VO at your site; you own it.
    Found(Found),
    /// Ask to become a member.
    Apply(ApplyArgs),
    /// Take your application back.
    #[command(after_help = "Example:\n  xos vo withdraw demo.rennes")]
    Withdraw(OfVo),
    /// Show who asks to become a member (VO administrators).
    #[command(after_help = "Example:\n  xos vo applications demo.rennes")]
    Applications(OfVo),
    /// Admit an applicant (VO administrators).
    Approve(members::Approve),
    /// Turn an applicant down (VO administrators).
    #[command(
        after_help = "Example:\n  xos vo reject demo.rennes mallory@pisa -m 'not in the project'"
    )]
    Reject(members::WithReason),
    /// Show the members.
    #[command(
        after_help = "Examples:\n  xos vo members demo.rennes\n  xos vo members demo.rennes --json"
    )]
    Members(OfVo),
    /// Suspend a member: no new work, running work is held (VO administrators).
    #[command(after_help = "Example:\n  xos vo suspend demo.rennes bob@pisa -m 'laptop stolen'")]
    Suspend(members::WithReason),
    /// Let a suspended member act again (VO administrators).
    #[command(after_help = "Example:\n  xos vo resume demo.rennes bob@pisa")]
    Resume(members::OfMember),
    /// End a membership and all its running work (VO administrators; or your own).
    #[command(after_help = "Example:\n  xos vo remove demo.rennes bob@pisa -m 'left the project'")]
    Remove(members::RemoveArgs),
    /// Set when a membership ends by itself (VO administrators).
    #[command(after_help = "\
Examples:
  xos vo expiry demo.rennes bob@pisa 2027-01-31
  xos vo expiry demo.rennes bob@pisa never")]
    Expiry(members::Expiry),
    /// Groups of a VO.
    #[command(
        subcommand,
        after_help = "\
Examples:
  xos vo group list demo.rennes
  xos vo group create demo.rennes physics
  xos vo group add demo.rennes physics bob@pisa"
    )]
    Group(groups::Command),
    /// Hand your ownership over to a member.
    #[command(
        subcommand,
        after_help = "\
Examples:
  xos vo handover offer demo.rennes bob@pisa
  xos vo handover accept demo.rennes vera@rennes"
    )]
    Handover(ends::Handover),
    /// Dissolve a VO, or take that back (its owner, or the administrator of its home site).
    Dissolve(ends::Dissolve),
    /// Write a VO down as JSON lines (owners, and administrators of its home site).
    Export(exchange::Export),
    /// Make groups and expect people from a file (VO administrators).
    Import(import::Import),
    /// People who are admitted as soon as they apply.
    #[command(
        subcommand,
        after_help = "\
Examples:
  xos vo expected list demo.rennes
  xos vo expected drop demo.rennes bob@pisa"
    )]
    Expected(exchange::Expected),
    /// Roles of members.
    #[command(
        subcommand,
        after_help = "\
Examples:
  xos vo role grant demo.rennes bob@pisa admin
  xos vo role withdraw demo.rennes bob@pisa admin"
    )]
    Role(members::RoleCommand),
    /// What sites give to a VO.
    #[command(
        subcommand,
        after_help = "\
Examples:
  xos vo share list demo.rennes
  xos vo share offer demo.rennes --cpus 8 --memory 16G
  xos vo share accept demo.rennes pisa"
    )]
    Share(shares::Command),
    /// Show who runs what, over all sites that serve the VO (members see their own).
    #[command(
        after_help = "Examples:\n  xos vo running demo.rennes\n  xos vo running demo.rennes --json"
    )]
    Running(OfVo),
    /// Rules: who may do what, where.
    #[command(subcommand, after_help = rules::VO_EXAMPLES)]
    Rules(rules::VoCommand),
    /// Change what a VO is called and what it is for (VO administrators).
    Describe(settings::DescribeArgs),
    /// Set how long sites let the VO go on that do not hear its home (VO administrators).
    Lease(settings::LeaseArgs),
    /// Set how long work is held after the lease, until it is ended (VO administrators).
    Grace(settings::GraceArgs),
    /// Set for how long after a sign-in credentials are renewed (VO administrators).
    Renewal(settings::RenewalArgs),
    /// Suspend a whole VO (its owner, or the administrator of its home site).
    SuspendVo(ends::SuspendArgs),
    /// Let a suspended VO work again.
    #[command(after_help = "Example:\n  xos vo resume-vo demo.rennes")]
    ResumeVo(OfVo),
    /// Terms of use.
    #[command(
        subcommand,
        after_help = "\
Examples:
  xos vo terms show demo.rennes
  xos vo terms set demo.rennes terms.txt --consent-days 365"
    )]
    Terms(enrolment::TermsCommand),
    /// Agree to the terms of use.
    Agree(enrolment::AgreeArgs),
    /// What applicants are asked.
    #[command(
        subcommand,
        after_help = "\
Examples:
  xos vo questions show demo.rennes
  xos vo questions set demo.rennes questions.json"
    )]
    Questions(enrolment::QuestionsCommand),
    /// Show what an applicant or member agreed to and answered (VO administrators; or your own).
    Enrolment(enrolment::EnrolmentArgs),
    /// Make a link by which people come in (VO administrators).
    Invite(invitations::InviteArgs),
    /// Show the invitations (VO administrators).
    #[command(after_help = "Example:\n  xos vo invitations demo.rennes")]
    Invitations(OfVo),
    /// Withdraw an invitation (VO administrators).
    #[command(after_help = "Example:\n  xos vo uninvite demo.rennes 0123456789abcdef")]
    Uninvite(invitations::UninviteArgs),
    /// Come in by a link that you were given.
    Join(invitations::JoinArgs),
    /// Show whose membership or consent ends soon (VO administrators).
    Expiring(records::ExpiringArgs),
    /// Set the end of many memberships (VO administrators).
    Extend(records::ExtendArgs),
    /// Set how many days before an end people are reminded (VO administrators).
    Reminders(records::RemindersArgs),
    /// Show what happened to a member (VO administrators; or your own).
    History(records::HistoryArgs),
    /// Set whether the audit notes who opens which file (VO administrators).
    AuditFiles(settings::AuditFilesArgs),
}

/// A command that takes a VO.
#[derive(Debug, clap::Args)]
pub struct OfVo {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    pub of: VoId,
}

/// `xos vo found`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos vo found demo --title 'Demonstration'
  xos vo found spect --title 'Tomography' --description 'Simulated pictures.' --site rennes")]
pub struct Found {
    /// The VO's short name: a-z, 0-9 and '-'. With your site it becomes for example demo.rennes.
    label: String,
    /// What it is called.
    #[arg(long)]
    title: String,
    /// What it is for.
    #[arg(long, default_value = "")]
    description: String,
}

/// `xos vo apply`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos vo apply demo.rennes -m 'Bob, working with Alice on the phantom'
  xos vo apply demo.rennes --agree --answer institute='University of Pisa'

What the VO asks: xos vo questions show VO. What it wants you to agree to: xos vo terms show VO.")]
pub struct ApplyArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// What its administrators should know about you.
    #[arg(short, long, default_value = "")]
    message: String,
    #[command(flatten)]
    saying: enrolment::Saying,
}

/// Runs a command of this group.
///
/// # Errors
/// What the core says.
pub async fn run(s: &Session, command: Command) -> Outcome {
    match command {
        Command::List => list_vos(s).await,
        Command::Show(args) => show(s, args.of).await,
        Command::Found(args) => found(s, args).await,
        Command::Apply(args) => apply(s, args).await,
        Command::Withdraw(args) => {
            let vo = args.of;
            let done = s.vo_client(&vo).await?.call(WithdrawApplication { vo: vo.clone() }).await?;
            s.out.show(&done, || format!("Your application to {vo} is taken back."))?;
            Ok(0)
        }
        Command::Applications(args) => members::applications(s, args.of).await,
        Command::Approve(args) => members::approve(s, args).await,
        Command::Reject(args) => members::reject(s, args).await,
        Command::Members(args) => members::list_members(s, args.of).await,
        Command::Suspend(args) => members::suspend(s, args).await,
        Command::Resume(args) => members::resume(s, args).await,
        Command::Remove(args) => members::remove(s, args).await,
        Command::Expiry(args) => members::expiry(s, args).await,
        Command::Group(command) => groups::run(s, command).await,
        Command::Handover(command) => ends::handover(s, command).await,
        Command::Dissolve(args) => ends::dissolve(s, args).await,
        Command::Export(args) => exchange::export(s, args).await,
        Command::Import(args) => import::import(s, args).await,
        Command::Expected(command) => exchange::expected(s, command).await,
        Command::Role(command) => members::role(s, command).await,
        Command::Share(command) => shares::run(s, command).await,
        Command::Running(args) => running::run(s, args).await,
        Command::Rules(command) => rules::run_vo(s, command).await,
        Command::Describe(args) => settings::describe(s, args).await,
        Command::Lease(args) => settings::lease(s, args).await,
        Command::Grace(args) => settings::grace(s, args).await,
        Command::Renewal(args) => settings::renewal(s, args).await,
        Command::AuditFiles(args) => settings::audit_files(s, args).await,
        Command::SuspendVo(args) => ends::suspend(s, args).await,
        Command::ResumeVo(args) => ends::resume(s, args.of).await,
        Command::Terms(command) => enrolment::terms(s, command).await,
        Command::Agree(args) => enrolment::agree(s, args).await,
        Command::Questions(command) => enrolment::questions(s, command).await,
        Command::Enrolment(args) => enrolment::enrolment(s, args).await,
        Command::Invite(args) => invitations::invite(s, args).await,
        Command::Invitations(args) => invitations::invitations(s, args).await,
        Command::Uninvite(args) => invitations::uninvite(s, args).await,
        Command::Join(args) => invitations::join(s, args).await,
        Command::Expiring(args) => records::expiring(s, args).await,
        Command::Extend(args) => records::extend(s, args).await,
        Command::Reminders(args) => records::reminders(s, args).await,
        Command::History(args) => records::history(s, args).await,
    }
}

async fn list_vos(s: &Session) -> Outcome {
    let client = s.anonymous(&s.site()?)?;
    let ask = |after| ListVos { after, limit: None };
    let vos = pages::all(&client, ask, |page: VoPage| (page.vos, page.next)).await?;
    s.out.show(&vos, || {
        let mut table = Table::new(&["VO", "TITLE"]);
        for v in &vos {
            table.row([v.vo.to_string(), clean(&v.title)]);
        }
        table.text("The site knows no VO yet; found one: xos vo found LABEL --title TITLE")
    })?;
    Ok(0)
}

async fn show(s: &Session, vo: VoId) -> Outcome {
    let info = s.vo_client(&vo).await?.call(GetVo { vo }).await?;
    let now = s.now();
    s.out.show(&info, || describe(&info, now))?;
    Ok(0)
}

fn describe(info: &VoInfo, now: Millis) -> String {
    let state = match &info.state {
        VoState::Active => Style::Good.mark("active"),
        VoState::Suspended { reason, by_site } => {
            let by = if *by_site { " by its home site" } else { "" };
            Style::Bad.mark(&format!("suspended{by}: {}", clean(reason)))
        }
        VoState::Dissolved { reason, by_site, until } => {
            let by = if *by_site { " by its home site" } else { "" };
            let text = format!("dissolved{by}, erased {}: {}", when(*until, now), clean(reason));
            Style::Bad.mark(&text)
        }
    };
    let me = info.me.as_ref().map(|m| {
        if let MemberState::Suspended { reason } = &m.state {
            return Style::Bad.mark(&format!("suspended: {}", clean(reason)));
        }
        let roles =
            if m.roles.is_empty() { String::new() } else { format!("; roles: {}", list(&m.roles)) };
        format!("member, groups: {}{roles}", list(&m.groups))
    });
    let applied = info.application.as_ref().map(|a| format!("applied {}", when(a.since, now)));
    let mut pairs = vec![
        ("VO", Style::Head.mark(info.summary.vo.as_str())),
        ("title", clean(&info.summary.title)),
        ("description", clean_lines(&info.summary.description)),
        ("state", state),
        ("you", me.or(applied).unwrap_or_else(|| "not a member".to_owned())),
    ];
    let Some(d) = &info.details else { return fields(&pairs) };
    let waiting = if d.applications > 0 { d.applications.to_string() } else { String::new() };
    pairs.extend([
        ("founded", when(d.founded, now)),
        ("members", d.members.to_string()),
        ("applications", waiting),
        ("groups", list(d.groups.iter().map(|g| format!("{} ({})", g.name, g.members)))),
        ("volumes", clean(&list(&d.volumes))),
        ("lease", span(d.lease_s.unwrap_or(LEASE_S_DEFAULT))),
        ("grace", format!("{} after the lease", span(d.grace_s.unwrap_or(GRACE_S_DEFAULT)))),
        ("renewal", format!("{} after a sign-in", span(d.renewal_s.unwrap_or(RENEWAL_S_DEFAULT)))),
        ("opened files", if d.audit_opens { "noted in the audit".into() } else { String::new() }),
        ("settings", format!("version {}", d.settings)),
    ]);
    format!("{}\n\n{}", fields(&pairs), shares::table(&d.shares, now))
}

/// What a site gives, in one cell.
fn terms(t: Option<&Terms>, now: Millis) -> String {
    let Some(t) = t else { return String::new() };
    let until = t.until.map(|u| format!(", {}", holds(u, now))).unwrap_or_default();
    format!(
        "{} cpus, {} memory, {} storage{until}",
        cpus(t.cpu_milli),
        size(t.memory_bytes),
        size(t.storage_bytes)
    )
}

async fn found(s: &Session, args: Found) -> Outcome {
    let site = s.site()?;
    let request = FoundVo { label: args.label, title: args.title, description: args.description };
    let info = s.person(&site).await?.call(request).await?;
    let vo = info.summary.vo.clone();
    // So that the founder can work in it at once; without it the next command tries again.
    if let Err(e) = s.issue(&vo).await {
        s.out.warn(&e)?;
    }
    s.out.show(&info, || {
        format!(
            "{vo} is founded; you own it.\nNext: a site administrator gives it a share (xos vo \
             share offer {vo} --cpus 4 --memory 8G);\nothers ask to join it (xos vo apply {vo})."
        )
    })?;
    Ok(0)
}

async fn apply(s: &Session, args: ApplyArgs) -> Outcome {
    let vo = args.of;
    let client = s.person(&s.site_of(&vo)).await?;
    let form = client.call(GetEnrolmentForm { vo: vo.clone() }).await?;
    let (agreed, answers) = enrolment::said(s, &vo, &form, args.saying)?;
    let request = Apply { vo: vo.clone(), message: args.message, agreed, answers };
    let done = client.call(request).await?;
    s.out.show(&done, || {
        format!("You have applied to {vo}. Once its administrators admit you, just use it.")
    })?;
    Ok(0)
}
