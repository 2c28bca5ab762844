//! Which path shows which page. The API keeps `/v1/`.

use crate::pages::{account, applications, consent, device, groups, home, job, jobs, kerberos};
use crate::pages::{audit, clusters, rules, running, site};
use crate::pages::{ending, enrol, exchange, expiring, group, invitations, join, questions};
use crate::pages::{member, members, output, passkeys, provider, recover, services, shares};
use crate::pages::{record, settings, terms};
use crate::pages::{sign_in, submit, trouble, vo, why};
use crate::respond::{Page, serve};
use crate::{Inner, guard, programs, scim};
use actix_web::guard::{GuardContext, fn_guard};
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use std::sync::Arc;

/// The console's own files: name, type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("console.css", "text/css; charset=utf-8", include_str!("../static/console.css")),
    ("console.js", "text/javascript; charset=utf-8", include_str!("../static/console.js")),
    ("passkeys.js", "text/javascript; charset=utf-8", include_str!("../static/passkeys.js")),
    ("logo.svg", "image/svg+xml", include_str!("../static/logo.svg")),
];

/// A number that changes with the files, so that browsers may keep them for ever.
pub(crate) const FILES_VERSION: u64 = {
    // FNV-1a, 64 bits.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut i = 0;
    while i < FILES.len() {
        let bytes = FILES[i].2.as_bytes();
        let mut j = 0;
        while j < bytes.len() {
            hash = (hash ^ bytes[j] as u64).wrapping_mul(0x0100_0000_01b3);
            j += 1;
        }
        i += 1;
    }
    hash
};

macro_rules! routes {
    ($console:ident, $config:ident: $($method:ident $path:literal $who:ident $page:path;)*) => {$({
        let console = $console.clone();
        $config.route($path, web::$method().to(move |request: HttpRequest, body: web::Payload| {
            serve(console.clone(), request, body, Page::$who(|v| Box::pin($page(v))))
        }));
    })*};
}

/// Adds the pages to a worker.
pub(crate) fn configure(console: &Arc<Inner>, config: &mut ServiceConfig) {
    config.route("/static/{file}", web::get().to(file));
    routes! { console, config:
        get "/" Visit home::show;
        get "/sign-in" Guest sign_in::show;
        post "/sign-in" Guest sign_in::sign_in;
        post "/sign-in/with/{provider}" Guest provider::begin;
        get "/sign-in/callback/{provider}" Guest provider::come_back;
        get "/sign-in/finish/{provider}" Guest provider::finish;
        get "/account" Visit account::show;
        post "/account/link/{provider}" Visit account::link;
        post "/account/unlink/{provider}/{key}" Visit account::unlink;
        get "/register" Guest sign_in::show_register;
        post "/register" Guest sign_in::register;
        post "/sign-out" Visit sign_in::sign_out;
        get "/vos" Visit home::directory;
        get "/jobs" Visit jobs::show;
        get "/submit" Visit submit::show;
        post "/submit" Visit submit::submit;
        get "/vo/{vo}" Visit vo::show;
        post "/vo/{vo}/apply" Visit vo::apply;
        post "/vo/{vo}/withdraw" Visit vo::withdraw;
        get "/vo/{vo}/members" Visit members::show;
        get "/vo/{vo}/member/{person}" Visit member::show;
        post "/vo/{vo}/member/{person}/suspend" Visit member::suspend;
        post "/vo/{vo}/member/{person}/resume" Visit member::resume;
        get "/vo/{vo}/member/{person}/remove" Visit member::confirm_remove;
        post "/vo/{vo}/member/{person}/remove" Visit member::remove;
        post "/vo/{vo}/member/{person}/grant" Visit member::grant;
        post "/vo/{vo}/member/{person}/withdraw" Visit member::withdraw;
        post "/vo/{vo}/member/{person}/add" Visit member::add;
        post "/vo/{vo}/member/{person}/drop" Visit member::drop_group;
        get "/vo/{vo}/applications" Visit applications::show;
        post "/vo/{vo}/application/{person}/approve" Visit applications::approve;
        post "/vo/{vo}/application/{person}/reject" Visit applications::reject;
        get "/vo/{vo}/groups" Visit groups::show;
        post "/vo/{vo}/groups" Visit groups::create;
        get "/vo/{vo}/group/{group}/delete" Visit groups::confirm_delete;
        post "/vo/{vo}/group/{group}/delete" Visit groups::delete;
        get "/vo/{vo}/shares" Visit shares::show;
        post "/vo/{vo}/share/{site}/accept" Visit shares::accept;
        post "/vo/{vo}/share/{site}/refuse" Visit shares::refuse;
        get "/vo/{vo}/why" Visit why::show;
        get "/vo/{vo}/job/{job}" Visit job::show;
        get "/vo/{vo}/job/{job}/events" Visit job::events;
        get "/vo/{vo}/job/{job}/cancel" Visit job::confirm_cancel;
        post "/vo/{vo}/job/{job}/cancel" Visit job::cancel;
        get "/vo/{vo}/unit/{unit}" Visit output::show;
        get "/vo/{vo}/unit/{unit}/{stream}.txt" Visit output::download;
        post "/sign-in/passkey" Guest passkeys::begin;
        post "/sign-in/passkey/finish" Guest passkeys::finish;
        post "/sign-in/passkey/enrol" Guest passkeys::enrol;
        get "/recover" Guest recover::show;
        post "/recover" Guest recover::recover;
        post "/account/passkeys/add" Visit passkeys::add;
        post "/account/passkeys/finish" Visit passkeys::added;
        get "/account/passkeys/{key}/remove" Visit passkeys::confirm_remove;
        post "/account/passkeys/{key}/remove" Visit passkeys::remove;
        post "/account/second-factor" Visit passkeys::second_factor;
        post "/account/code" Visit passkeys::code;
        post "/account/services/{client}/revoke" Visit services::revoke;
        get "/sign-in/kerberos" Guest kerberos::sign_in;
        post "/account/link-kerberos" Visit kerberos::link;
        get "/oauth/authorize" Guest consent::arrive;
        get "/oauth/consent" Visit consent::show;
        post "/oauth/consent" Visit consent::decide;
        post "/oauth/again" Visit consent::sign_in_again;
        get "/device" Visit device::show;
        post "/device" Visit device::find;
        post "/device/decide" Visit device::decide;
        get "/join/{vo}/{secret}" Guest join::arrive;
        get "/join/{vo}/{secret}/form" Visit join::show;
        post "/join/{vo}/{secret}/form" Visit join::join;
        get "/vo/{vo}/terms" Visit enrol::show;
        post "/vo/{vo}/terms/agree" Visit enrol::agree;
        get "/vo/{vo}/invitations" Visit invitations::show;
        post "/vo/{vo}/invitations" Visit invitations::invite;
        post "/vo/{vo}/invitation/{invitation}/withdraw" Visit invitations::withdraw;
        post "/vo/{vo}/members/find" Visit members::find;
        post "/vo/{vo}/member/{person}/expiry" Visit member::expire;
        get "/vo/{vo}/member/{person}/record" Visit record::show;
        get "/vo/{vo}/expiring" Visit expiring::show;
        post "/vo/{vo}/expiring" Visit expiring::extend;
        get "/vo/{vo}/expected" Visit exchange::expected;
        post "/vo/{vo}/expected/forget" Visit exchange::forget;
        get "/vo/{vo}/export.jsonl" Visit exchange::export;
        get "/vo/{vo}/group/{group}" Visit group::show;
        post "/vo/{vo}/group/{group}/add" Visit group::add;
        post "/vo/{vo}/group/{group}/drop" Visit group::drop_member;
        post "/vo/{vo}/group/{group}/groups" Visit group::create_within;
        post "/vo/{vo}/group/{group}/move" Visit group::move_to;
        post "/vo/{vo}/group/{group}/managers" Visit group::add_manager;
        post "/vo/{vo}/group/{group}/managers/drop" Visit group::drop_manager;
        get "/vo/{vo}/settings" Visit settings::show;
        post "/vo/{vo}/settings/description" Visit settings::describe;
        post "/vo/{vo}/settings/lease" Visit settings::lease;
        post "/vo/{vo}/settings/grace" Visit settings::grace;
        post "/vo/{vo}/settings/renewal" Visit settings::renewal;
        post "/vo/{vo}/settings/audit" Visit settings::audit;
        post "/vo/{vo}/settings/reminders" Visit settings::reminders;
        get "/vo/{vo}/settings/terms" Visit terms::show;
        post "/vo/{vo}/settings/terms" Visit terms::set;
        get "/vo/{vo}/settings/questions" Visit questions::show;
        post "/vo/{vo}/settings/questions" Visit questions::set;
        get "/vo/{vo}/ending" Visit ending::show;
        post "/vo/{vo}/handovers" Visit ending::offer;
        post "/vo/{vo}/handover/{by}/accept" Visit ending::accept;
        post "/vo/{vo}/handover/{by}/end" Visit ending::end_offer;
        post "/vo/{vo}/suspend" Visit ending::suspend;
        post "/vo/{vo}/resume" Visit ending::resume;
        get "/vo/{vo}/dissolve" Visit ending::confirm_dissolve;
        post "/vo/{vo}/dissolve" Visit ending::dissolve;
        post "/vo/{vo}/dissolve/undo" Visit ending::take_back;
        get "/vo/{vo}/rules" Visit rules::show;
        get "/vo/{vo}/rules/change" Visit rules::show_form;
        post "/vo/{vo}/rules/change" Visit rules::add_or_change;
        get "/vo/{vo}/rules/remove" Visit rules::confirm_remove;
        post "/vo/{vo}/rules/remove" Visit rules::remove;
        get "/vo/{vo}/running" Visit running::show;
        get "/vo/{vo}/running/events" Visit running::events;
        get "/vo/{vo}/clusters" Visit clusters::mine::show;
        get "/vo/{vo}/clusters/events" Visit clusters::mine::events;
        get "/vo/{vo}/cluster/{cluster}/program/{tree}" Visit clusters::program::show;
        get "/vo/{vo}/cluster/{cluster}/program/{tree}/events" Visit clusters::watch::program;
        get "/vo/{vo}/cluster/{cluster}/program/{tree}/why" Visit clusters::program::why;
        post "/vo/{vo}/cluster/{cluster}/program/{tree}/move" Visit clusters::handle::migrate;
        post "/vo/{vo}/cluster/{cluster}/program/{tree}/save" Visit clusters::handle::checkpoint;
        post "/vo/{vo}/cluster/{cluster}/program/{tree}/restart" Visit clusters::handle::restart;
        get "/vo/{vo}/cluster/{cluster}/program/{tree}/signal" Visit clusters::handle::ask_signal;
        post "/vo/{vo}/cluster/{cluster}/program/{tree}/signal" Visit clusters::handle::signal;
        get "/vo/{vo}/audit" Visit audit::of_vo;
        get "/audit" Visit audit::of_me;
        get "/site" Visit site::show;
        get "/site/audit" Visit audit::of_site;
        post "/site/audit/verify" Visit audit::verify;
        get "/site/audit/heads" Visit audit::show_heads;
        get "/site/rules" Visit rules::show;
        get "/site/rules/change" Visit rules::show_form;
        post "/site/rules/change" Visit rules::add_or_change;
        get "/site/rules/remove" Visit rules::confirm_remove;
        post "/site/rules/remove" Visit rules::remove;
        get "/site/vos" Visit site::vos::show;
        post "/site/vos/offer" Visit site::vos::offer;
        get "/site/vo/{vo}/withdraw" Visit site::vos::confirm_withdraw;
        post "/site/vo/{vo}/withdraw" Visit site::vos::withdraw;
        post "/site/vo/{vo}/suspend" Visit site::vos::suspend;
        post "/site/vo/{vo}/resume" Visit site::vos::resume;
        get "/site/sites" Visit site::sites::show;
        post "/site/sites/offer" Visit site::sites::offer;
        post "/site/sites/read" Visit site::sites::read;
        post "/site/sites/accept" Visit site::sites::accept;
        get "/site/sites/{site}/forget" Visit site::sites::confirm_forget;
        post "/site/sites/{site}/forget" Visit site::sites::forget;
        get "/site/nodes" Visit site::nodes::show;
        post "/site/nodes" Visit site::nodes::invite;
        get "/site/nodes/{node}/remove" Visit site::nodes::confirm_remove;
        post "/site/nodes/{node}/remove" Visit site::nodes::remove;
        get "/site/clusters" Visit site::clusters::show;
        post "/site/clusters" Visit site::clusters::create;
        get "/site/cluster/{cluster}" Visit site::cluster::show;
        get "/site/cluster/{cluster}/events" Visit clusters::watch::cluster;
        post "/site/cluster/{cluster}/nodes" Visit site::cluster::add;
        get "/site/cluster/{cluster}/node/{node}/drain" Visit site::cluster::confirm_drain;
        post "/site/cluster/{cluster}/node/{node}/drain" Visit site::cluster::drain;
        post "/site/cluster/{cluster}/node/{node}/undrain" Visit site::cluster::undrain;
        get "/site/cluster/{cluster}/node/{node}/remove" Visit site::cluster::confirm_remove;
        post "/site/cluster/{cluster}/node/{node}/remove" Visit site::cluster::remove;
        get "/site/cluster/{cluster}/program/{tree}" Visit clusters::program::show;
        get "/site/cluster/{cluster}/program/{tree}/events" Visit clusters::watch::program;
        get "/site/cluster/{cluster}/program/{tree}/why" Visit clusters::program::why;
        post "/site/cluster/{cluster}/program/{tree}/move" Visit clusters::handle::migrate;
        post "/site/cluster/{cluster}/program/{tree}/save" Visit clusters::handle::checkpoint;
        post "/site/cluster/{cluster}/program/{tree}/restart" Visit clusters::handle::restart;
        get "/site/cluster/{cluster}/program/{tree}/signal" Visit clusters::handle::ask_signal;
        post "/site/cluster/{cluster}/program/{tree}/signal" Visit clusters::handle::signal;
        get "/site/names" Visit site::names::show;
        post "/site/names" Visit site::names::give;
        post "/site/names/drop" Visit site::names::drop_name;
        get "/site/names/{name}/release" Visit site::names::confirm_release;
        post "/site/names/{name}/release" Visit site::names::release;
        get "/site/services" Visit site::clients::show;
        post "/site/services" Visit site::clients::register;
        get "/site/services/{client}/remove" Visit site::clients::confirm_remove;
        post "/site/services/{client}/remove" Visit site::clients::remove;
        get "/site/people" Visit site::people::show;
        post "/site/people" Visit site::people::create;
        get "/site/person/{person}" Visit site::people::show_one;
        post "/site/person/{person}/suspend" Visit site::people::suspend;
        post "/site/person/{person}/resume" Visit site::people::resume;
        get "/site/person/{person}/appoint" Visit site::people::confirm_appoint;
        post "/site/person/{person}/appoint" Visit site::people::appoint;
        post "/site/person/{person}/dismiss" Visit site::people::dismiss;
        get "/site/person/{person}/recover" Visit site::people::confirm_recover;
        post "/site/person/{person}/recover" Visit site::people::recover;
    }
    programs::configure(console, config);
    scim::configure(console, config);
    // Whatever else a browser opens; programs get the API's own answer.
    let console = console.clone();
    let anything = move |request: HttpRequest, body: web::Payload| {
        let page = Page::Guest(|_| Box::pin(async { trouble::no_such_page() }));
        serve(console.clone(), request, body, page)
    };
    config
        .service(web::resource("/{path:.*}").guard(fn_guard(by_browser)).route(web::to(anything)));
}

fn by_browser(context: &GuardContext<'_>) -> bool {
    let head = context.head();
    let accepts = head.headers().get("accept").and_then(|a| a.to_str().ok()).unwrap_or_default();
    let path = head.uri.path();
    accepts.contains("text/html") && path != "/v1" && !path.starts_with("/v1/")
}

async fn file(request: HttpRequest) -> HttpResponse {
    let name = request.match_info().get("file").unwrap_or_default();
    let mut response = match FILES.iter().find(|(n, ..)| *n == name) {
        Some((_, mime, text)) => HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, *mime))
            .insert_header((CACHE_CONTROL, "public, max-age=31536000, immutable"))
            .body(*text),
        None => HttpResponse::NotFound().body("no such file"),
    };
    guard::protect(response.headers_mut(), guard::host(&request));
    response
}
