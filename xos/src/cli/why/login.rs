//! `xos why login`: this computer, the VO's home, the node's site and the node, in that order.

use super::{computer, step_of, tell};
use crate::cli::output::Outcome;
use crate::cli::session::Session;
use xos_api::vom::{WhyLogin, WhyPlace, WhyStep};
use xos_base::{Error, NodeId, PersonId, SiteId};

/// `xos why login`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  xos why login n1.rennes
  xos why login n1.rennes --vo demo.rennes --person bob@pisa

About others: administrators of the VO, and of the site about its nodes. Exits with 0 when nothing \
stands in the way, and with 1 when a step failed; the first that failed is the reason.")]
pub struct Login {
    /// The node, as n1.rennes.
    node: NodeId,
    /// About whom [default: yourself].
    #[arg(long, value_name = "PERSON")]
    person: Option<PersonId>,
}

/// Runs `xos why login`.
pub async fn run(s: &Session, args: Login) -> Outcome {
    let signed_in = s.signed_in();
    let me = s.last_login()?.map(|login| login.person);
    let own = args.person.is_none() || args.person == me;
    let vo = match (s.ssh_vo().await, signed_in) {
        (Ok(vo), _) => vo,
        (Err(_), Err(e)) => return tell(s, &[step_of(WhyPlace::Computer, "sign-in", &e)]),
        (Err(e), Ok(_)) => return Err(e.into()),
    };
    let mut steps = if own { computer::steps(s, &vo)? } else { Vec::new() };
    let (home, site) = (vo.site(), args.node.site());
    let ask = WhyLogin { vo, person: args.person, node: args.node };
    for (at, whose) in places(&home, &site) {
        match asked(s, &whose, &ask).await {
            Ok(told) => steps.extend(told),
            Err(e) => steps.push(step_of(at, "answer", &e)),
        }
    }
    tell(s, &steps)
}

/// Whom to ask: each core once.
fn places(home: &SiteId, site: &SiteId) -> Vec<(WhyPlace, SiteId)> {
    let mut places = vec![(WhyPlace::Home, home.clone())];
    if home != site {
        places.push((WhyPlace::Site, site.clone()));
    }
    places
}

async fn asked(s: &Session, site: &SiteId, ask: &WhyLogin) -> Result<Vec<WhyStep>, Error> {
    let client = s.vo_client_at(&ask.vo, site).await?;
    Ok(client.call(ask.clone()).await?.steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a core that is home and serves would be asked twice, and tell all twice.
    #[test]
    fn each_core_is_asked_once() {
        let site = |name: &str| name.parse::<SiteId>().unwrap();
        assert_eq!(places(&site("rennes"), &site("rennes")).len(), 1);
        let two = places(&site("rennes"), &site("pisa"));
        assert_eq!(two[1], (WhyPlace::Site, site("pisa")));
    }
}
