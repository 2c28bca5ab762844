//! Requests of cda: sign-in, credentials, machine certificates, trust between sites.
//!
//! A person signs in at their own site (`alice@rennes`: rennes) and gets a *token*. With a token
//! for the VO's home site they get, there, a *certificate* of their membership for a key that never
//! leaves their machine. Credentials made from a sign-in remember when that was; narrowed
//! certificates and member tokens do not, and nothing further is issued for them.

mod credentials;
mod grants;
mod issuer;
mod kerberos;
mod logins;
mod machines;
mod mandates;
mod oidc;
mod passkeys;
mod people;
mod provider;
mod recovery;
mod sites;
mod tokens;

pub use credentials::{
    ANY_AUDIENCE, Certificate, IssueCertificate, IssueToken, Jwt, RenewToken, SSH_MEMBERSHIP,
    SignIn, SignInOptions, SignInRules, SignedIn, Token, ssh_principal,
};
pub use grants::{EndGrants, ListGrants, ServiceGrant};
pub use issuer::{GetIssuer, GetJwks, Issuer, Jwk, Jwks, ProviderEndpoints};
pub use kerberos::{
    KERBEROS_PROVIDER, KERBEROS_TOKEN_MAX, KerberosToken, LinkKerberos, SignInKerberos,
    SignedInKerberos,
};
pub use logins::{
    BeginNodeLogin, BegunNodeLogin, CheckNodePassword, NodeLogin, NodeLoginState, PollNodeLogin,
};
pub use machines::{
    CertifyHost, CreateJoinToken, HOST_KEYS_MAX, HostCertificates, JoinMachine, JoinToken,
    JoinTokenError, JoinTokenView, Joined, ListMachines, Machine, RemoveNode, RenewMachine,
};
pub use mandates::{
    IssueClusterMandate, IssueLoginMandate, IssueMandate, IssueTicket, IssueVouchedMandate,
    IssuedTicket, Mandate, MandateProof, Submission, TicketClaims, Work,
};
pub use oidc::{
    Answer, BeginDevice, BeginSignIn, BegunDevice, BegunSignIn, Code, DevicePoll, FinishSignIn,
    Flow, Identities, Identity, LINK_AGE_MAX_S, LinkIdentity, LinkPoll, ListIdentities, PollDevice,
    SignInProvider, UnlinkIdentity, callback_path,
};
pub use passkeys::{
    BeginPasskey, BeginPasskeySignIn, Ceremony, CreateSignInCode, EnrolPasskey, FinishPasskey,
    FinishPasskeySignIn, FirstProof, FirstStep, ListPasskeys, OneTimeCode, PASSKEY_NAME_MAX,
    PASSKEYS_MAX, Passkey, PasskeyList, RemovePasskey, SetSecondFactor, SignInByCode, SignInCode,
    Stepped, WebAuthn,
};
pub use people::{
    CreatePerson, ListPeople, PasswordSet, PeoplePage, Person, Register, SetPassword, SetPerson,
    WhoAmI, Whoami,
};
pub use provider::{
    AUTHORIZE_PATH, Authorization, Client, Consent, CreateClient, CreatedClient, DEVICE_GRANT_PATH,
    DEVICE_GRANT_TYPE, DEVICE_PATH, DecideAuthorization, DecideDevice, DeviceWish, INTROSPECT_PATH,
    ListClients, REVOKE_PATH, RemoveClient, Scope, Secret, ShowAuthorization, ShowDevice, Shown,
    TOKEN_PATH, USERINFO_PATH, VoChoice,
};
pub use recovery::{
    BeginRecovery, FinishRecovery, RECOVERY_LIFE_S, RecoverPerson, Recovered, RecoveryCode,
};
pub use sites::{
    AcceptTrust, CompleteTrust, ForgetSite, ListSites, OfferTrust, OfferView, ReadOffer,
    SiteStatement, TrustOffer, TrustedSite,
};
pub use tokens::{
    BeginDeviceGrant, ClientProof, DeviceCodes, GetTokens, GetUserInfo, IntrospectToken, OAuth,
    OAuthError, OAuthRefusal, RevokeToken, TokenGrant, Tokens,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Shortest password, in bytes of UTF-8.
pub const PASSWORD_MIN: usize = 10;
/// Longest password, in bytes of UTF-8.
pub const PASSWORD_MAX: usize = 1024;
/// Longest certificate request, in bytes of PEM.
pub const CSR_PEM_MAX: usize = 8 * 1024;
/// Most entries in one page of a list; also what is given when no limit is named.
pub const PAGE_MAX: u32 = 500;
/// Longest life of a ticket, in seconds.
pub const TICKET_LIFE_MAX_S: u64 = 15 * 60;
/// How old a [`Submission`] may be when its mandate is asked for, in seconds.
pub const SUBMISSION_AGE_MAX_S: u64 = 10 * 60;

/// A password on its way to the core. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_does_not_show_in_debug_output() {
        // Requests are logged with {:?} in places; a password there would reach disk.
        let r = SignIn {
            user: "alice".into(),
            password: Password("correct horse".into()),
            audience: None,
            memberships: false,
        };
        assert!(!format!("{r:?}").contains("horse"));
    }
}
