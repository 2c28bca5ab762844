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

use crate::{Inner, audit};
use std::net::IpAddr;
use std::sync::Arc;
use xos_api::cda::{
    AcceptTrust, BeginDevice, BeginDeviceGrant, BeginNodeLogin, BeginPasskey, BeginPasskeySignIn,
    BeginRecovery, BeginSignIn, CertifyHost, CheckNodePassword, CompleteTrust, CreateClient,
    CreateJoinToken, CreatePerson, CreateSignInCode, DecideAuthorization, DecideDevice, EndGrants,
    EnrolPasskey, FinishPasskey, FinishPasskeySignIn, FinishRecovery, FinishSignIn, FirstProof,
    FirstStep, ForgetSite, GetIssuer, GetJwks, GetTokens, GetUserInfo, IntrospectToken,
    IssueCertificate, IssueLoginMandate, IssueMandate, IssueTicket, IssueToken,
    IssueVouchedMandate, JoinMachine, KERBEROS_PROVIDER, LinkIdentity, LinkKerberos, ListClients,
    ListGrants, ListIdentities, ListMachines, ListPasskeys, ListPeople, ListSites, OfferTrust,
    PollDevice, PollNodeLogin, ReadOffer, RecoverPerson, Register, RemoveClient, RemoveNode,
    RemovePasskey, RenewMachine, RenewToken, RevokeToken, SetPassword, SetPerson, SetSecondFactor,
    ShowAuthorization, ShowDevice, SignIn, SignInByCode, SignInKerberos, SignInOptions, Stepped,
    UnlinkIdentity, WhoAmI,
};
use xos_api::site::{GetSite, SiteChanged};
use xos_net::{Caller, Peer, Router};

/// Who asks, for the audit.
trait Asker {
    fn phrase(&self) -> String;
}

fn at(address: Option<IpAddr>) -> String {
    address.map_or_else(String::new, |a| format!(" at {a}"))
}

impl Asker for Caller {
    fn phrase(&self) -> String {
        format!("{}{}", self.describe(), at(self.address()))
    }
}

impl Asker for Peer {
    fn phrase(&self) -> String {
        format!("somebody{}", at(self.address))
    }
}

/// `audited on|public Request => method, |request| object, |reply| outcome;` and `plain ...`.
macro_rules! serve {
    ($inner:ident, $router:ident;) => {};
    ($inner:ident, $router:ident; plain $how:ident $request:ty => $f:ident; $($rest:tt)*) => {
        let inner = $inner.clone();
        $router.$how::<$request, _, _>(move |who, r| {
            let inner = inner.clone();
            async move { inner.$f(who, r).await }
        });
        serve!($inner, $router; $($rest)*);
    };
    ($inner:ident, $router:ident; audited $how:ident $request:ty => $f:ident, $about:expr,
     $outcome:expr; $($rest:tt)*) => {
        let inner = $inner.clone();
        $router.$how::<$request, _, _>(move |who, r| {
            let inner = inner.clone();
            async move {
                let about: fn(&$request) -> String = $about;
                let (phrase, about) = (who.phrase(), about(&r));
                let result = inner.$f(who, r).await;
                audit::note(stringify!($f), &phrase, &about, &result, $outcome);
                result
            }
        });
        serve!($inner, $router; $($rest)*);
    };
}

fn nothing<T>(_: &T) -> String {
    String::new()
}

/// Who a first step names.
fn named_by(proof: &FirstProof) -> String {
    match proof {
        FirstProof::Password { user, .. } => user.clone(),
        FirstProof::Provider { answer, .. } => answer.provider.to_string(),
        FirstProof::Kerberos { .. } => KERBEROS_PROVIDER.to_owned(),
    }
}

/// What a first step led to.
fn stepped(reply: &Stepped) -> String {
    match reply {
        Stepped::In(s) => s.person.to_string(),
        Stepped::Prove(_) => "a passkey is asked for".into(),
        Stepped::Enrol(_) => "a passkey is to be made".into(),
    }
}

pub(crate) fn register(inner: &Arc<Inner>, router: &mut Router) {
    serve!(inner, router;
        plain public GetSite => site_descriptor;
        plain public SignInOptions => sign_in_options;
        plain public GetIssuer => issuer;
        plain public GetJwks => jwks;
        plain public BeginSignIn => begin_sign_in;
        plain public BeginDevice => begin_device;
        plain public PollDevice => poll_device;
        plain on LinkIdentity => link_identity;
        plain on ListIdentities => list_identities;
        plain on WhoAmI => who_am_i;
        plain on ListPeople => list_people;
        plain on ListMachines => list_machines;
        plain on ListSites => list_sites;
        plain on ReadOffer => read_offer;
        plain on SiteChanged => site_changed;
        audited public SignIn => sign_in, |r| r.user.clone(), |s| s.person.to_string();
        audited public FinishSignIn => finish_sign_in, |r| r.answer.provider.to_string(),
            |s| s.person.to_string();
        audited on UnlinkIdentity => unlink_identity,
            |r| format!("{} {}", r.provider, r.key), nothing;
        audited public Register => register, |r| r.name.clone(), nothing;
        audited on RenewToken => renew_token, nothing, |s| s.person.to_string();
        audited on IssueToken => issue_token, |r| r.vo.to_string(), |t| t.audience.to_string();
        audited on IssueCertificate => issue_certificate, |r| r.vo.to_string(),
            |c| c.serial.clone();
        audited on CreatePerson => create_person, |r| r.name.clone(), nothing;
        audited on SetPerson => set_person, |r| format!("{r:?}"), nothing;
        audited on SetPassword => set_password, |r| r.person.to_string(),
            |s| (if s.first { "there was none before" } else { "" }).to_owned();
        audited on IssueMandate => issue_mandate, |r| format!("{} in {}", r.job, r.vo), nothing;
        audited on IssueLoginMandate => issue_login_mandate,
            |r| format!("{} in {}", r.node, r.vo), nothing;
        audited on IssueVouchedMandate => issue_vouched_mandate,
            |r| format!("{} on {} in {}", r.person, r.node, r.vo), nothing;
        audited on IssueTicket => issue_ticket, |r| r.node.to_string(), nothing;
        audited on CreateJoinToken => create_join_token, |r| r.label.clone(), nothing;
        audited public JoinMachine => join_machine, |r| r.token.node.to_string(), nothing;
        audited on RenewMachine => renew_machine, nothing, |j| j.node.to_string();
        audited on CertifyHost => certify_host, nothing, |c| c.certificates.len().to_string();
        audited on RemoveNode => remove_node, |r| r.node.to_string(), nothing;
        audited on OfferTrust => offer_trust, |r| r.site.to_string(), nothing;
        audited on AcceptTrust => accept_trust, nothing, |s| s.descriptor.site.to_string();
        audited public CompleteTrust => complete_trust, |r| r.site.to_string(), nothing;
        audited on ForgetSite => forget_site, |r| r.site.to_string(), nothing;
        plain public BeginPasskeySignIn => begin_passkey_sign_in;
        plain on BeginPasskey => begin_passkey;
        plain on ListPasskeys => list_passkeys;
        audited public FirstStep => first_step, |r| named_by(&r.proof), stepped;
        audited public FinishPasskeySignIn => finish_passkey_sign_in, nothing,
            |s| s.person.to_string();
        audited public EnrolPasskey => enrol_passkey, |r| r.name.clone(), |s| s.person.to_string();
        audited on FinishPasskey => finish_passkey, |r| r.name.clone(), |p| p.key.clone();
        audited on RemovePasskey => remove_passkey, |r| r.key.clone(), nothing;
        audited on SetSecondFactor => set_second_factor, |r| r.on.to_string(), nothing;
        audited on CreateSignInCode => create_sign_in_code, nothing, nothing;
        audited public SignInByCode => sign_in_by_code, nothing, |s| s.person.to_string();
        audited on RecoverPerson => recover_person, |r| r.person.to_string(), nothing;
        audited public BeginRecovery => begin_recovery, |r| r.user.clone(), nothing;
        audited public FinishRecovery => finish_recovery, |r| r.user.clone(), nothing;
        audited public SignInKerberos => sign_in_kerberos, nothing,
            |s| s.signed_in.person.to_string();
        audited on LinkKerberos => link_kerberos, nothing, |i| i.name.clone();
        plain public BeginDeviceGrant => begin_device_grant;
        plain public GetTokens => get_tokens;
        plain public GetUserInfo => get_user_info;
        plain public IntrospectToken => introspect_token;
        plain public RevokeToken => revoke_token;
        plain on ListClients => list_clients;
        plain on ListGrants => list_grants;
        plain on ShowAuthorization => show_authorization;
        plain on ShowDevice => show_device;
        audited on CreateClient => create_client, |r| r.name.clone(), |c| c.client.id.clone();
        audited on RemoveClient => remove_client, |r| r.id.clone(), nothing;
        audited on EndGrants => end_grants, |r| r.client.clone(), nothing;
        audited on DecideAuthorization => decide_authorization,
            |r| format!("{} {}", r.request.client_id, r.allow), nothing;
        audited on DecideDevice => decide_device, |r| r.allow.to_string(), nothing;
        plain on PollNodeLogin => poll_node_login;
        audited on CheckNodePassword => check_node_password,
            |r| format!("{} on {} as {}", r.login.service, r.login.node, r.login.user), nothing;
        audited on BeginNodeLogin => begin_node_login,
            |r| format!("{} on {} as {}", r.login.service, r.login.node, r.login.user), nothing;
    );
}
