//! Coming into a VO by an invitation's link, `/join/<vo>/<secret>`.
//!
//! People press such a link in a letter. Then the browser sends no cookie of ours, as in
//! [`super::provider`]: so the page that the link names leads on to one of ours, which asks who it
//! is.

use super::enrol::{self, Entry};
use super::provider::on_the_way;
use super::sign_in::kindly;
use super::vo;
use crate::fields::Fields;
use crate::view::{Frame, When, list_text, page_with};
use crate::visit::{Guest, Shown, Stop, Visit, done};
use askama::Template;
use xos_api::vom::{InvitationSecret, Join, LookAtInvitation};
use xos_base::{Error, VoId};

/// Longest secret of an invitation, in bytes.
const SECRET_MAX: usize = 64;

#[derive(Template)]
#[template(path = "join.html")]
struct View {
    frame: Frame,
    vo: String,
    title: String,
    description: String,
    by: String,
    groups: String,
    roles: String,
    ends: Option<When>,
    at_once: bool,
    entry: Entry,
    trouble: Option<String>,
    /// Where the form goes.
    action: String,
}

/// The VO and the secret that a link names.
fn named(guest: &Guest) -> Result<(VoId, InvitationSecret), Stop> {
    let secret = guest.place_text("secret")?;
    let fits = secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !fits || secret.len() > SECRET_MAX {
        return Err(Stop::NoSuchPage);
    }
    Ok((guest.vo()?, InvitationSecret(secret.to_owned())))
}

fn form_path(vo: &VoId, secret: &InvitationSecret) -> String {
    format!("/join/{vo}/{}/form", secret.0)
}

/// From wherever the link stands: on to [`show`].
pub(crate) async fn arrive(guest: Guest) -> Shown {
    let (vo, secret) = named(&guest)?;
    on_the_way(&guest, form_path(&vo, &secret))
}

/// What the invitation gives, and the form to come in.
pub(crate) async fn show(visit: Visit) -> Shown {
    form(&visit, None).await
}

async fn form(visit: &Visit, trouble: Option<Error>) -> Shown {
    let (vo, secret) = named(visit)?;
    let look = LookAtInvitation { vo: vo.clone(), secret: secret.clone() };
    let seen = visit.ask_home(&vo, look).await?;
    let typed: &Fields = &visit.form;
    let status = trouble.as_ref().map_or(200, |e| e.kind.http_status());
    page_with(
        status,
        &View {
            frame: Frame::of(visit, &format!("Join {vo}"), "vos").await,
            vo: vo.to_string(),
            title: seen.title,
            description: seen.description,
            by: seen.by.to_string(),
            groups: list_text(&seen.gives.groups),
            roles: list_text(&seen.gives.roles),
            ends: seen.gives.ends.map(When::from),
            at_once: seen.at_once,
            entry: Entry::new(&seen.form, typed),
            trouble: trouble.as_ref().map(kindly),
            action: form_path(&vo, &secret),
        },
    )
}

/// Comes in.
pub(crate) async fn join(visit: Visit) -> Shown {
    let (vo, secret) = named(&visit)?;
    let (agreed, answers) = enrol::said(&visit.form)?;
    let message = visit.form.text("message").to_owned();
    let ask = Join { vo: vo.clone(), secret, message, agreed, answers };
    let joined = match visit.ask_home(&vo, ask).await {
        Ok(joined) => joined,
        Err(Stop::Failed(e)) if enrol::amendable(&e) => return form(&visit, Some(e)).await,
        Err(stop) => return Err(stop),
    };
    let notice = match joined.member {
        Some(_) => format!("You are a member of {vo} now."),
        None => format!("You applied to {vo}. Its administrators decide now."),
    };
    done(&visit, vo::path(&vo), notice)
}
