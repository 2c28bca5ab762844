//! What a sign-in gave, as it is shown.

use crate::cli::kept::Login;
use crate::cli::output::{Style, Table, clean, list, when};
use crate::cli::reminders;
use crate::cli::ssh::{Included, include};
use serde::Serialize;
use xos_api::vom::Reminder;
use xos_base::{Error, GroupName, Millis, PersonId, RoleName, VoId};

/// What a sign-in gave for one VO.
#[derive(Debug, Serialize)]
pub struct VoResult {
    /// The VO.
    pub vo: VoId,
    /// What it is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The groups that the credentials show.
    pub groups: Vec<GroupName>,
    /// The roles that they show.
    pub roles: Vec<RoleName>,
    /// Until when the certificate holds; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Millis>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Error>,
}

/// What a sign-in gave.
#[derive(Serialize)]
pub struct LoginResult<'a> {
    /// Who signed in.
    pub person: &'a PersonId,
    /// They administer their site.
    pub site_admin: bool,
    /// When the sign-in ends at the latest.
    pub session_until: Millis,
    /// Less was asked for than the person is.
    pub narrowed: bool,
    /// The VO whose trouble ends the command: it is told there.
    #[serde(skip)]
    pub failed: Option<&'a VoId>,
    /// How plain ssh learns of it; absent when there is nothing to learn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_config: Option<Included>,
    /// VO by VO.
    pub vos: &'a [VoResult],
    /// What ends soon.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reminders: Vec<Reminder>,
}

/// The result for people.
pub fn shown(login: &Login, result: &LoginResult<'_>, now: Millis) -> String {
    let admin = if login.site_admin { ", administrator of this site" } else { "" };
    let until = when(login.session_until, now);
    let mut text = format!("Signed in as {}{admin}; ends {until}.\n", login.person);
    if result.vos.is_empty() {
        text.push_str("You are in no VO yet. See `xos vo list`; join one: xos vo apply VO");
        return text;
    }
    let mut table = Table::new(&["VO", "GROUPS", "ROLES", "CERTIFICATE"]);
    for r in result.vos {
        let certificate = match (&r.until, &r.trouble) {
            (Some(until), _) => Style::Good.mark(&format!("ends {}", when(*until, now))),
            (None, Some(_)) if result.failed == Some(&r.vo) => Style::Bad.mark("none"),
            (None, Some(e)) => Style::Bad.mark(&format!("none: {}", clean(&e.message))),
            (None, None) => String::new(),
        };
        table.row([r.vo.to_string(), list(&r.groups), list(&r.roles), certificate]);
    }
    text.push_str(&table.text(""));
    text.push_str(&reminders::lines(&result.reminders, now));
    if result.narrowed && result.vos.iter().any(|r| r.until.is_some()) {
        text.push_str(
            "\nNarrowed: certificate, ssh certificate and token say no more than this. They are \
             renewed only until\nthe sign-in ends. For all that you are: xos login",
        );
    }
    if result.ssh_config == Some(Included::Added) {
        text.push_str(&format!(
            "\nssh knows your sites' machines now, as `ssh n1.{}`: the line `{}` stands at the top \
             of\n~/.ssh/config. `xos logout` takes it out.",
            login.person.site(),
            include::LINE
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::kept::tests::login;

    /// If it failed, a role that one has not would be told twice, or with the claim that there is a
    /// certificate for it; or the trouble of another VO would be told nowhere.
    #[test]
    fn what_ends_the_command_is_not_told_in_the_table_too() {
        let trouble = |vo: &str, why: &str| VoResult {
            vo: vo.parse().unwrap(),
            title: None,
            groups: Vec::new(),
            roles: Vec::new(),
            until: None,
            trouble: Some(Error::denied(why)),
        };
        let vos = [trouble("demo.rennes", "no such role"), trouble("other.pisa", "suspended")];
        let login = login();
        let result = LoginResult {
            person: &login.person,
            site_admin: false,
            session_until: login.session_until,
            narrowed: true,
            failed: Some(&vos[0].vo),
            ssh_config: None,
            vos: &vos,
            reminders: Vec::new(),
        };
        let text = shown(&login, &result, Millis(0));
        assert!(!text.contains("no such role") && !text.contains("Narrowed"), "{text}");
        assert!(text.contains("none: suspended"), "{text}");
    }
}
