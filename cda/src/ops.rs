//! The operations, and which requests they serve.

mod certificates;
mod identities;
mod issuer;
mod kerberos;
mod machines;
mod mandates;
mod node_passwords;
mod oidc;
mod passkeys;
mod people;
mod recovery;
mod sign_in;
mod sites;
mod steps;

pub use people::create_administrator;
pub(crate) use sign_in::limited;
#[cfg(test)]
pub(crate) use sites::read_statement;
pub(crate) use sites::{OFFER_LIFE, check_descriptor, update_site};

use crate::Inner;
use crate::audit::{About, Asker, named, nothing, of, on, over, plainly};
use std::sync::Arc;
use xos_api::cda::{
    AcceptTrust, BeginDevice, BeginDeviceGrant, BeginNodeLogin, BeginPasskey, BeginPasskeySignIn,
    BeginRecovery, BeginSignIn, CertifyHost, CheckNodePassword, CompleteTrust, CreateClient,
    CreateJoinToken, CreatePerson, CreateSignInCode, DecideAuthorization, DecideDevice, EndGrants,
    EnrolPasskey, FinishPasskey, FinishPasskeySignIn, FinishRecovery, FinishSignIn, FirstProof,
    FirstStep, ForgetSite, GetIssuer, GetJwks, GetTokens, GetUserInfo, IntrospectToken,
    IssueCertificate, IssueClusterMandate, IssueLoginMandate, IssueMandate, IssueTicket,
    IssueToken, IssueVouchedMandate, JoinMachine, KERBEROS_PROVIDER, LinkIdentity, LinkKerberos,
    ListClients, ListGrants, ListIdentities, ListMachines, ListPasskeys, ListPeople, ListSites,
    NodeLogin, OfferTrust, PollDevice, PollNodeLogin, ReadOffer, RecoverPerson, Register,
    RemoveClient, RemoveNode, RemovePasskey, RenewMachine, RenewToken, RevokeToken, SetPassword,
    SetPerson, SetSecondFactor, ShowAuthorization, ShowDevice, SignIn, SignInByCode,
    SignInKerberos, SignInOptions, Stepped, UnlinkIdentity, WhoAmI,
};
use xos_api::site::{GetSite, SiteChanged};
use xos_api::{Method, Request};
use xos_base::SiteId;
use xos_net::Router;

/// An operation, and how the audit calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its method.
    pub method: Method,
    /// Its path, with fields in braces.
    pub path: &'static str,
    /// The event that tells of it; `None`: it only reads, or begins what another ends.
    pub what: Option<&'static str>,
}

fn operation<R: Request>(what: Option<&'static str>) -> Operation {
    Operation { method: R::METHOD, path: R::PATH, what }
}

/// `audited on|public Request => method, |request, site| about, |reply| about;`, `telling ...` for
/// what notes by itself how it went, and `plain ...` for what is not noted.
macro_rules! serve {
    ($all:ident, $inner:ident, $router:ident;) => {};
    ($all:ident, $inner:ident, $router:ident; plain $how:ident $request:ty => $f:ident;
     $($rest:tt)*) => {
        $all.push(operation::<$request>(None));
        serve!(@bare $inner, $router, $how, $request, $f);
        serve!($all, $inner, $router; $($rest)*);
    };
    ($all:ident, $inner:ident, $router:ident; telling $how:ident $request:ty => $f:ident;
     $($rest:tt)*) => {
        $all.push(operation::<$request>(Some(stringify!($f))));
        serve!(@bare $inner, $router, $how, $request, $f);
        serve!($all, $inner, $router; $($rest)*);
    };
    ($all:ident, $inner:ident, $router:ident; audited $how:ident $request:ty => $f:ident,
     $about:expr, $outcome:expr; $($rest:tt)*) => {
        $all.push(operation::<$request>(Some(stringify!($f))));
        let inner = $inner.clone();
        $router.$how::<$request, _, _>(move |who, r| {
            let inner = inner.clone();
            async move {
                let about: fn(&$request, &SiteId) -> About = $about;
                let mut event = who.event(inner.now(), stringify!($f));
                about(&r, &inner.site).fill(&mut event);
                let result = inner.$f(who, r).await;
                let event = over(event, &result, $outcome);
                inner.told.end(event, result).await
            }
        });
        serve!($all, $inner, $router; $($rest)*);
    };
    (@bare $inner:ident, $router:ident, $how:ident, $request:ty, $f:ident) => {
        let inner = $inner.clone();
        $router.$how::<$request, _, _>(move |who, r| {
            let inner = inner.clone();
            async move { inner.$f(who, r).await }
        });
    };
}

/// Who a first step names.
fn named_by(proof: &FirstProof, site: &SiteId) -> About {
    match proof {
        FirstProof::Password { user, .. } => named(user, site),
        FirstProof::Provider { answer, .. } => on(answer.provider.as_str()),
        FirstProof::Kerberos { .. } => on(KERBEROS_PROVIDER),
    }
}

/// What a first step led to.
fn stepped(reply: &Stepped) -> About {
    match reply {
        Stepped::In(s) => of(&s.person),
        Stepped::Prove(_) => on("a passkey is asked for"),
        Stepped::Enrol(_) => on("a passkey is to be made"),
    }
}

/// How a person is changed.
fn changed(r: &SetPerson) -> About {
    let said = [("disabled", r.disabled), ("site administrator", r.site_admin)];
    let said = said.iter().filter_map(|(what, to)| Some(format!("{what}: {}", (*to)?)));
    of(&r.person).on(said.collect::<Vec<_>>().join(", "))
}

fn at_node(login: &NodeLogin) -> About {
    let about = of(&login.person).on(format!("{} on {}", login.service, login.node));
    match &login.vo {
        Some(vo) => about.within(vo),
        None => about,
    }
}

fn allowed(allow: bool) -> &'static str {
    if allow { "allowed" } else { "not allowed" }
}

/// Registers all of them, and says which there are.
pub(crate) fn register(inner: &Arc<Inner>, router: &mut Router) -> Vec<Operation> {
    let mut all = Vec::new();
    serve!(all, inner, router;
        plain public GetSite => site_descriptor;
        plain public SignInOptions => sign_in_options;
        plain public GetIssuer => issuer;
        plain public GetJwks => jwks;
        plain public BeginSignIn => begin_sign_in;
        plain public BeginDevice => begin_device;
        telling public PollDevice => poll_device;
        telling on LinkIdentity => link_identity;
        plain on ListIdentities => list_identities;
        plain on WhoAmI => who_am_i;
        plain on ListPeople => list_people;
        plain on ListMachines => list_machines;
        plain on ListSites => list_sites;
        plain on ReadOffer => read_offer;
        plain on SiteChanged => site_changed;
        audited public SignIn => sign_in, |r, site| named(&r.user, site), |s| of(&s.person);
        audited public FinishSignIn => finish_sign_in, |r, _| on(r.answer.provider.as_str()),
            |s| of(&s.person);
        audited on UnlinkIdentity => unlink_identity, |r, _| on(r.provider.as_str()), nothing;
        audited public Register => register, |r, site| named(&r.name, site), |p| of(&p.person);
        audited on RenewToken => renew_token, plainly, |s| of(&s.person);
        audited on IssueToken => issue_token, |r, _| About::default().within(&r.vo),
            |t| on(format!("for {}", t.audience));
        audited on IssueCertificate => issue_certificate, |r, _| About::default().within(&r.vo),
            |c| on(format!("certificate {}", c.serial));
        audited on CreatePerson => create_person, |r, site| named(&r.name, site),
            |p| of(&p.person).on(if p.site_admin { "site administrator" } else { "" });
        audited on SetPerson => set_person, |r, _| changed(r), nothing;
        audited on SetPassword => set_password, |r, _| of(&r.person),
            |s| on(if s.first { "there was none before" } else { "" });
        telling on IssueMandate => issue_mandate;
        audited on IssueLoginMandate => issue_login_mandate,
            |r, _| on(format!("node {}", r.node)).within(&r.vo), nothing;
        audited on IssueClusterMandate => issue_cluster_mandate,
            |r, _| on(format!("cluster {}", r.cluster)).within(&r.vo), nothing;
        audited on IssueVouchedMandate => issue_vouched_mandate,
            |r, _| of(&r.person).on(format!("node {}", r.node)).within(&r.vo), nothing;
        telling on IssueTicket => issue_ticket;
        audited on CreateJoinToken => create_join_token, plainly,
            |t| on(format!("node {}", t.node));
        audited public JoinMachine => join_machine,
            |r, _| on(format!("node {}", r.token.node)), nothing;
        audited on RenewMachine => renew_machine, plainly, nothing;
        audited on CertifyHost => certify_host, plainly,
            |c| on(format!("{} host keys", c.certificates.len()));
        audited on RemoveNode => remove_node, |r, _| on(format!("node {}", r.node)), nothing;
        audited on OfferTrust => offer_trust, |r, _| on(format!("site {}", r.site)), nothing;
        audited on AcceptTrust => accept_trust, plainly,
            |s| on(format!("site {}", s.descriptor.site));
        audited public CompleteTrust => complete_trust,
            |r, _| on(format!("site {}", r.site)), nothing;
        audited on ForgetSite => forget_site, |r, _| on(format!("site {}", r.site)), nothing;
        plain public BeginPasskeySignIn => begin_passkey_sign_in;
        plain on BeginPasskey => begin_passkey;
        plain on ListPasskeys => list_passkeys;
        audited public FirstStep => first_step, |r, site| named_by(&r.proof, site), stepped;
        audited public FinishPasskeySignIn => finish_passkey_sign_in, plainly, |s| of(&s.person);
        audited public EnrolPasskey => enrol_passkey, |r, _| on(r.name.clone()), |s| of(&s.person);
        audited on FinishPasskey => finish_passkey, |r, _| on(r.name.clone()), nothing;
        audited on RemovePasskey => remove_passkey, plainly, nothing;
        audited on SetSecondFactor => set_second_factor,
            |r, _| on(if r.on { "on" } else { "off" }), nothing;
        audited on CreateSignInCode => create_sign_in_code, plainly, nothing;
        audited public SignInByCode => sign_in_by_code, plainly, |s| of(&s.person);
        audited on RecoverPerson => recover_person, |r, _| of(&r.person), nothing;
        audited public BeginRecovery => begin_recovery, |r, site| named(&r.user, site), nothing;
        audited public FinishRecovery => finish_recovery, |r, site| named(&r.user, site), nothing;
        audited public SignInKerberos => sign_in_kerberos, |_, _| on(KERBEROS_PROVIDER),
            |s| of(&s.signed_in.person);
        audited on LinkKerberos => link_kerberos, |_, _| on(KERBEROS_PROVIDER), nothing;
        telling public BeginDeviceGrant => begin_device_grant;
        telling public GetTokens => get_tokens;
        telling public GetUserInfo => get_user_info;
        telling public IntrospectToken => introspect_token;
        telling public RevokeToken => revoke_token;
        plain on ListClients => list_clients;
        plain on ListGrants => list_grants;
        plain on ShowAuthorization => show_authorization;
        plain on ShowDevice => show_device;
        audited on CreateClient => create_client, |r, _| on(r.name.clone()),
            |c| on(format!("{} {}", c.client.id, c.client.name));
        audited on RemoveClient => remove_client, |r, _| on(r.id.clone()), nothing;
        audited on EndGrants => end_grants, |r, _| on(r.client.clone()), nothing;
        audited on DecideAuthorization => decide_authorization,
            |r, _| on(format!("{} {}", r.request.client_id, allowed(r.allow))), nothing;
        telling on DecideDevice => decide_device;
        plain on PollNodeLogin => poll_node_login;
        audited on CheckNodePassword => check_node_password, |r, _| at_node(&r.login), nothing;
        audited on BeginNodeLogin => begin_node_login, |r, _| at_node(&r.login), nothing;
    );
    all
}
