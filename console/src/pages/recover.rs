//! The page on which a person makes a new way in by a recovery code of an administrator.

use super::passkeys::{recovering, usable};
use super::sign_in::{form_token, kindly, rules, with_cookie};
use crate::view::{Frame, page_with};
use crate::visit::{Guest, Reply, Shown};
use askama::Template;
use xos_api::cda::{BeginRecovery, FinishRecovery, OneTimeCode, PASSWORD_MIN, Password};
use xos_base::Error;

#[derive(Template)]
#[template(path = "recover.html")]
struct View {
    frame: Frame,
    user: String,
    password_min: usize,
    passwords: bool,
    passkeys: bool,
    trouble: Option<String>,
}

/// The page.
pub(crate) async fn show(guest: Guest) -> Shown {
    recover_page(&guest, None).await
}

/// Sets the password, or goes on to make a passkey.
pub(crate) async fn recover(guest: Guest) -> Shown {
    let user = guest.form.text("user").to_owned();
    let code = OneTimeCode(guest.form.text("code").to_owned());
    let grid = &guest.console.grid;
    if guest.form.text("by") == "passkey" {
        return match grid.local_public(guest.peer, BeginRecovery { user, code }).await {
            Ok(ceremony) => recovering(&guest, ceremony),
            Err(e) => recover_page(&guest, Some(e)).await,
        };
    }
    let password = guest.form.raw("password").to_owned();
    if password != guest.form.raw("again") {
        return recover_page(&guest, Some(Error::invalid("the two passwords differ"))).await;
    }
    let ask = FinishRecovery { user, code, password: Password(password) };
    match grid.local_public(guest.peer, ask).await {
        Ok(_) => Ok(Reply::Elsewhere("/sign-in?recovered=1".into())),
        Err(e) => recover_page(&guest, Some(e)).await,
    }
}

async fn recover_page(guest: &Guest, trouble: Option<Error>) -> Shown {
    let token = form_token(guest)?;
    let status = trouble.as_ref().map_or(200, |e| e.kind.http_status());
    let rules = rules(guest).await;
    let view = View {
        frame: Frame::guest(guest, "Recover your access", &token),
        user: guest.form.text("user").to_owned(),
        password_min: PASSWORD_MIN,
        passwords: rules.passwords,
        passkeys: usable(&guest.host, rules.passkeys.as_deref()),
        trouble: trouble.as_ref().map(kindly),
    };
    with_cookie(page_with(status, &view), token)
}
