//! A person types the code that another device shows, and says yes or no.

use super::consent;
use super::sign_in::kindly;
use crate::view::{Frame, page, page_with};
use crate::visit::{Shown, Stop, Visit, done};
use askama::Template;
use xos_api::cda::{DecideDevice, DeviceWish, NodeLogin, ShowDevice};
use xos_base::{Error, Kind};

/// Longest code that is put into the page from its address.
const SHOWN_MAX: usize = 16;

#[derive(Template)]
#[template(path = "device.html")]
struct View {
    frame: Frame,
    code: String,
    trouble: Option<String>,
}

#[derive(Template)]
#[template(path = "machine.html")]
struct LoginView {
    frame: Frame,
    login: NodeLogin,
    code: String,
}

async fn code_page(visit: &Visit, code: &str, trouble: Option<Error>) -> Shown {
    let frame = Frame::of(visit, "Sign in another device", "device").await;
    let status = trouble.as_ref().map_or(200, |e| e.kind.http_status());
    let code = code.chars().take(SHOWN_MAX).collect();
    page_with(status, &View { frame, code, trouble: trouble.as_ref().map(kindly) })
}

/// Asks for the code. One that stands in the address is only filled in: the person compares it.
pub(crate) async fn show(visit: Visit) -> Shown {
    let code = visit.query.text("user_code").to_owned();
    code_page(&visit, &code, None).await
}

/// Asks whether the device may.
pub(crate) async fn find(visit: Visit) -> Shown {
    let user_code = visit.form.text("user_code").to_owned();
    match visit.ask(ShowDevice { user_code: user_code.clone() }).await {
        Ok(DeviceWish::Client(wants)) => {
            let hidden = vec![("user_code", user_code)];
            consent::ask(&visit, wants, "/device/decide", hidden).await
        }
        Ok(DeviceWish::Login(login)) => {
            let frame = Frame::of(&visit, "Sign in to a machine?", "device").await;
            page(&LoginView { frame, login, code: user_code })
        }
        Err(Stop::Failed(e)) if matches!(e.kind, Kind::NotFound | Kind::Limited) => {
            code_page(&visit, &user_code, Some(e)).await
        }
        Err(stop) => Err(stop),
    }
}

/// The person answered.
pub(crate) async fn decide(visit: Visit) -> Shown {
    let (allow, vo) = consent::answer(&visit)?;
    let user_code = visit.form.text("user_code").to_owned();
    visit.ask(DecideDevice { user_code, allow, vo }).await?;
    let notice = match allow {
        true => "You said yes. The other device goes on by itself.",
        false => "You said no. Nothing was allowed.",
    };
    done(&visit, "/device".into(), notice)
}
