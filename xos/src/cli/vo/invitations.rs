//! Invitations by link.

use super::OfVo;
use super::enrolment::{self, Saying};
use crate::cli::output::{Outcome, Style, Table, clean, count, holds, list, when};
use crate::cli::pages;
use crate::cli::session::Session;
use crate::cli::values::{self, When};
use serde::Serialize;
use std::str::FromStr;
use xos_api::vom::{
    Gives, InvitationInfo, InvitationPage, InvitationSecret, InvitationState, Invite, Invited,
    Join, ListInvitations, LookAtInvitation, WithdrawInvitation,
};
use xos_base::{GroupName, Millis, PersonId, RoleName, VoId};

/// `xos vo invite`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos vo invite demo.rennes --for bob@pisa --group physics
  xos vo invite demo.rennes --uses 30 --expires 7d --note 'summer school' --ends 2027-09-30
  xos vo invite demo.rennes --uses 30 --ask    an administrator still approves each

The link is shown once. Whoever has it can use it, unless it is --for somebody: send it by a way \
that others do not read.")]
pub struct InviteArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// Put them into this group; may be given several times.
    #[arg(short, long = "group", value_name = "GROUP", value_delimiter = ',')]
    groups: Vec<GroupName>,
    /// Give them this role; may be given several times.
    #[arg(short, long = "role", value_name = "ROLE", value_delimiter = ',')]
    roles: Vec<RoleName>,
    /// How many persons may come in by it, 1 to 1000.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    uses: u32,
    /// Until when the link holds: 2027-01-31 (inclusive, UTC), or 7d from now.
    #[arg(long, value_parser = values::time, value_name = "DATE", default_value = "14d")]
    expires: When,
    /// Only this person may use it.
    #[arg(long = "for", value_name = "PERSON")]
    person: Option<PersonId>,
    /// Note for whom it is, as an e-mail address; only administrators see it.
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// When the memberships end by themselves: 2027-01-31 (inclusive, UTC), or 90d from now.
    #[arg(long, value_parser = values::time, value_name = "DATE")]
    ends: Option<When>,
    /// Let who follows it apply, and an administrator approve.
    #[arg(long)]
    ask: bool,
}

/// `xos vo uninvite`.
#[derive(Debug, clap::Args)]
pub struct UninviteArgs {
    /// The VO, as demo.rennes.
    #[arg(value_name = "VO")]
    of: VoId,
    /// The invitation, as `xos vo invitations` shows it.
    invitation: String,
}

/// `xos vo join`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos vo join https://core.rennes.example:7443/join/demo.rennes/kD3Jmj2yTq7
  xos vo join https://core.rennes.example:7443/join/demo.rennes/kD3Jmj2yTq7 --agree \
--answer institute='University of Pisa'")]
pub struct JoinArgs {
    /// The link that you were given.
    link: Link,
    /// What the VO's administrators should know about you.
    #[arg(short, long, default_value = "")]
    message: String,
    #[command(flatten)]
    saying: Saying,
}

/// The link of an invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    vo: VoId,
    secret: InvitationSecret,
}

impl FromStr for Link {
    type Err = String;
    fn from_str(text: &str) -> Result<Link, String> {
        const WANT: &str = "write the whole link, as https://HOST/join/demo.rennes/SECRET";
        let (_, path) = text.split_once("/join/").ok_or(WANT)?;
        let (vo, secret) = path.split_once('/').ok_or(WANT)?;
        let vo = vo.parse::<VoId>().map_err(|e| format!("{e}; {WANT}"))?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        let secret = secret.trim_end_matches('/');
        if secret.is_empty() || !secret.bytes().all(plain) {
            return Err(WANT.to_owned());
        }
        Ok(Link { vo, secret: InvitationSecret(secret.to_owned()) })
    }
}

/// What a new invitation is told as.
#[derive(Serialize)]
struct Made {
    #[serde(flatten)]
    invited: Invited,
    /// The link; absent when this computer knows no address of the home.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
}

/// Makes an invitation.
pub async fn invite(s: &Session, args: InviteArgs) -> Outcome {
    let (vo, now) = (args.of, s.now());
    let gives = Gives {
        groups: args.groups,
        roles: args.roles,
        uses: args.uses,
        expires: args.expires.from(now),
        person: args.person,
        ends: args.ends.map(|e| e.from(now)),
        at_once: !args.ask,
    };
    let ask = Invite { vo: vo.clone(), gives, hint: args.note };
    let invited = s.vo_client(&vo).await?.call(ask).await?;
    let descriptor = s.trust()?.descriptor(&vo.site());
    let address = descriptor.ok().and_then(|d| d.addresses.into_iter().next());
    let link = address.map(|a| format!("https://{a}/join/{vo}/{}", invited.secret.0));
    let made = Made { invited, link };
    s.out.show(&made, || {
        let secret = clean(&made.invited.secret.0);
        let link = made.link.as_deref().map_or_else(|| format!("/join/{vo}/{secret}"), clean);
        let i = &made.invited.invitation;
        format!(
            "Invitation {} holds {}; {} can come in by it. The link is not shown again:\n  \
             {link}\nThey open it, or: xos vo join LINK",
            i.invitation,
            holds(i.gives.expires, now),
            count(usize::try_from(i.left).unwrap_or(usize::MAX), "person", "people")
        )
    })?;
    Ok(0)
}

/// Shows the invitations.
pub async fn invitations(s: &Session, args: OfVo) -> Outcome {
    let vo = args.of;
    let client = s.vo_client(&vo).await?;
    let ask = |after| ListInvitations { vo: vo.clone(), after, limit: None };
    let open = |page: InvitationPage| (page.invitations, page.next);
    let all = pages::all(&client, ask, open).await?;
    let now = s.now();
    s.out.show(&all, || table(&all, now))?;
    Ok(0)
}

fn table(all: &[InvitationInfo], now: Millis) -> String {
    let mut table = Table::new(&["INVITATION", "STATE", "LEFT", "GIVES", "FOR", "BY", "UNTIL"]);
    for i in all {
        let state = match i.state {
            InvitationState::Open => Style::Good.mark("open"),
            InvitationState::UsedUp => "used up".to_owned(),
            InvitationState::Expired => "expired".to_owned(),
            InvitationState::Withdrawn => "withdrawn".to_owned(),
        };
        let named = i.gives.groups.iter().map(ToString::to_string);
        let gives = list(named.chain(i.gives.roles.iter().map(|r| format!("role {r}"))));
        let person = i.gives.person.as_ref().map(ToString::to_string);
        table.row([
            clean(&i.invitation),
            state,
            format!("{} of {}", i.left, i.gives.uses),
            gives,
            person.unwrap_or_else(|| clean(&i.hint)),
            i.by.to_string(),
            when(i.gives.expires, now),
        ]);
    }
    table.text("The VO has no invitations. Make one: xos vo invite VO")
}

/// Withdraws an invitation.
pub async fn uninvite(s: &Session, args: UninviteArgs) -> Outcome {
    let UninviteArgs { of: vo, invitation } = args;
    let client = s.vo_client(&vo).await?;
    let done = client.call(WithdrawInvitation { vo, invitation: invitation.clone() }).await?;
    s.out.show(&done, || format!("Nobody comes in by the invitation {invitation} any more."))?;
    Ok(0)
}

/// Comes into a VO by a link.
pub async fn join(s: &Session, args: JoinArgs) -> Outcome {
    let Link { vo, secret } = args.link;
    let client = s.person(&s.site_of(&vo)).await?;
    let look = LookAtInvitation { vo: vo.clone(), secret: secret.clone() };
    let offered = client.call(look).await?;
    let (agreed, answers) = enrolment::said(s, &vo, &offered.form, args.saying)?;
    let join = Join { vo: vo.clone(), secret, message: args.message, agreed, answers };
    let joined = client.call(join).await?;
    if joined.member.is_some() {
        // So that they can work in it at once; without it the next command tries again.
        if let Err(e) = s.issue(&vo).await {
            s.out.warn(&e)?;
        }
    }
    s.out.show(&joined, || match &joined.member {
        Some(m) => format!("You are a member of {vo}, in the groups {}.", list(&m.groups)),
        None => {
            format!("You have applied to {vo}. Once its administrators admit you, just use it.")
        }
    })?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, people would be told that a good link is none, or send half of one.
    #[test]
    fn links_are_read_whole() {
        let link: Link = "https://core.rennes.example:7443/join/demo.rennes/a-B_9".parse().unwrap();
        assert_eq!(link.vo.as_str(), "demo.rennes");
        assert_eq!(link.secret.0, "a-B_9");
        assert!(!format!("{link:?}").contains("a-B_9"), "the secret stands in no log");
        for bad in [
            "",
            "https://core.rennes.example:7443/",
            "https://h/join/demo.rennes",
            "https://h/join/demo.rennes/",
            "https://h/join/demo/x",
            "https://h/join/demo.rennes/a b",
            "https://h/join/demo.rennes/a/b",
        ] {
            assert!(bad.parse::<Link>().is_err(), "{bad:?}");
        }
    }
}
