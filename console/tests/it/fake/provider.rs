//! Stand-in operations of the core as an OpenID provider: the client `c1`, the code `BCDF-GHJK`.

use super::{Fake, id};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use xos_api::Done;
use xos_api::cda::*;
use xos_base::{Error, Millis};
use xos_net::{Caller, Peer, Router};

pub const BACK: &str = "https://wiki.example/back";
pub const USER_CODE: &str = "BCDF-GHJK";
/// The code of a login to a machine.
pub const LOGIN_CODE: &str = "LGNC-LGNC";
/// The secret of `c1`.
pub const SECRET: &str = "right-secret";

impl Fake {
    fn consent(&self, back: Option<&str>) -> Consent {
        let vo = |vo: &str| VoChoice { vo: id(vo), title: self.t() };
        let vos = vec![vo("demo.rennes"), vo("open.rennes")];
        let back = back.map(str::to_owned);
        Consent { client: self.t(), back, scopes: Scope::ALL.to_vec(), vos }
    }

    fn shown(&self, r: &Authorization) -> Result<Shown, Error> {
        match (r.client_id.as_str(), r.prompt.as_str()) {
            ("c1", "none") => Ok(Shown::Back(Secret(format!("{BACK}?error=consent_required")))),
            ("c1", "login") => Ok(Shown::SignInAgain { client: self.t() }),
            ("c1", _) => Ok(Shown::Ask(self.consent(Some(BACK)))),
            _ => Err(Error::invalid("the service that sent you here is not registered")),
        }
    }

    fn proved<T>(&self, client: &ClientProof, answer: T) -> OAuth<T> {
        let right = client.secret.as_ref().is_some_and(|s| s.0 == SECRET);
        if client.id == "c1" && right {
            return OAuth::Granted(answer);
        }
        let error_description = "unknown client or wrong secret".to_owned();
        OAuth::Refused(OAuthRefusal { error: OAuthError::InvalidClient, error_description })
    }

    fn grant(&self) -> ServiceGrant {
        ServiceGrant {
            client: "c1".into(),
            name: self.t(),
            scopes: vec![Scope::Profile, Scope::OfflineAccess],
            vos: vec![id("demo.rennes")],
            since: Millis(1),
            last_used: Millis(86_400_000),
            until: Millis(604_800_000),
        }
    }

    fn about(&self, token: &Secret) -> OAuth<Map<String, Value>> {
        if token.0 == "access" {
            return OAuth::Granted(Map::from_iter([("sub".to_owned(), json!("milo@rennes"))]));
        }
        let error_description = "it is over".to_owned();
        OAuth::Refused(OAuthRefusal { error: OAuthError::InvalidToken, error_description })
    }

    pub(super) fn register_provider(self: &Arc<Self>, router: &mut Router) {
        serve! { self, router:
            on |f: &Fake, _: Caller, r: ShowAuthorization| f.shown(&r.request);
            on |f: &Fake, c: Caller, r: DecideAuthorization| {
                f.note(&c.person()?, &r);
                Ok(Secret(format!("{BACK}?code=the-code&state=s")))
            };
            on |f: &Fake, c: Caller, r: ShowDevice| match r.user_code.as_str() {
                USER_CODE => Ok(DeviceWish::Client(f.consent(None))),
                LOGIN_CODE => Ok(DeviceWish::Login(NodeLogin {
                    node: id("n1.rennes"),
                    user: "milo.demo.rennes".into(),
                    service: "sudo".into(),
                    person: c.person()?,
                    vo: Some(id("demo.rennes")),
                })),
                _ => Err(Error::not_found("there is no such code")),
            };
            on |f: &Fake, c: Caller, r: DecideDevice| {
                f.note(&c.person()?, &r);
                Ok(Done {})
            };
            on |f: &Fake, _: Caller, _: ListGrants| Ok(vec![f.grant()]);
            on |f: &Fake, c: Caller, r: EndGrants| {
                if r.client != "c1" {
                    return Err(Error::not_found("nothing that you allowed stands"));
                }
                f.note(&c.person()?, &r);
                Ok(Done {})
            };
            public |f: &Fake, _: Peer, r: GetTokens| {
                f.note(&id("nobody@rennes"), &r);
                Ok(f.proved(&r.client, Tokens {
                    access_token: Secret("access".into()),
                    token_type: "Bearer".into(),
                    expires_in: 1200,
                    scope: "openid".into(),
                    refresh_token: None,
                    id_token: None,
                }))
            };
            public |f: &Fake, _: Peer, r: RevokeToken| Ok(f.proved(&r.client, Done {}));
            public |f: &Fake, _: Peer, r: GetUserInfo| Ok(f.about(&r.token));
        }
    }
}
