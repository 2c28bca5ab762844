//! Signing in, and linking an account, by a Kerberos ticket that the browser holds (RFC 4559).
//!
//! A first request is answered by a page and the question for a ticket. A browser that holds one,
//! and is set to show it to this core, asks again with it by itself; any other shows the page.

use super::passkeys::stepped;
use super::sign_in::{rules, sign_in_page};
use super::trouble;
use crate::guard::own_path;
use crate::visit::{Guest, Reply, Shown, Stop, Visit, done};
use xos_api::cda::{FirstProof, FirstStep, KerberosToken, LinkKerberos};
use xos_base::Error;

fn no_ticket() -> Error {
    Error::unauthenticated("your browser shows no Kerberos ticket to this site").hint(
        "get one (kinit), and have a site administrator tell you how your browser is set to show it",
    )
}

/// The same page with the question for a ticket.
fn asking(reply: Reply) -> Reply {
    match reply {
        Reply::SignInPage { html, form_cookie, .. } => {
            Reply::Negotiate { html, form_cookie: Some(form_cookie) }
        }
        Reply::Page { html, .. } => Reply::Negotiate { html, form_cookie: None },
        other => other,
    }
}

/// Signs in.
pub(crate) async fn sign_in(guest: Guest) -> Shown {
    if !rules(&guest).await.kerberos {
        return trouble::no_such_page();
    }
    let next = own_path(guest.query.text("next"));
    let Some(token) = guest.negotiated.clone() else {
        return sign_in_page(&guest, "", next, Some(no_ticket()), false).await.map(asking);
    };
    let proof = FirstProof::Kerberos { token: KerberosToken(token) };
    let ask = FirstStep { proof, audience: None, memberships: false };
    let step = guest.console.grid.local_public(guest.peer, ask).await;
    stepped(&guest, step, "", next).await
}

/// Links the principal of the browser's ticket to whoever is signed in.
pub(crate) async fn link(visit: Visit) -> Shown {
    let Some(token) = visit.negotiated.clone() else {
        let stop = Stop::Failed(no_ticket());
        return Ok(asking(trouble::reply(&visit.console, Some(&*visit.session), &stop)));
    };
    let linked = visit.ask(LinkKerberos { token: KerberosToken(token) }).await?;
    let notice = format!("The Kerberos account {} is linked.", linked.name);
    done(&visit, "/account".into(), notice)
}
