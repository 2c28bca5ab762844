//! Stand-in operations on Kerberos tickets.

use super::{Fake, id};
use std::sync::Arc;
use xos_api::cda::*;
use xos_base::{Error, Millis};
use xos_net::{Caller, Router};

/// The ticket of milo.
pub const TICKET: &str = "YIIClg==";

pub(super) fn taken(token: &KerberosToken) -> Result<(), Error> {
    match token.0.as_str() {
        TICKET => Ok(()),
        _ => Err(Error::unauthenticated("your Kerberos ticket does not sign you in here")),
    }
}

impl Fake {
    pub(super) fn register_kerberos(self: &Arc<Self>, router: &mut Router) {
        let fake = self.clone();
        router.on(move |caller: Caller, r: LinkKerberos| {
            let fake = fake.clone();
            async move {
                taken(&r.token)?;
                fake.note(&caller.person()?, &r);
                let (provider, name) = (id(KERBEROS_PROVIDER), "milo@RENNES.TEST".to_owned());
                Ok(Identity { provider, key: "0e".repeat(32), name, since: Millis(1) })
            }
        });
    }
}
