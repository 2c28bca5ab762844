//! What a site gives and gets: its share, the log that it may read, its accounts.

use super::*;

#[test]
fn a_share_needs_both_sides() {
    let mut h = Home::new(&policy());
    let pisa = Subject::Core(id("pisa"));
    let site = || id::<SiteId>("pisa");
    let offer = |v| Command::OfferShare { site: site(), terms: terms(v) };
    let accept = |v| Command::AcceptShare { site: site(), version: v };
    assert_eq!(h.run(&Subject::Core(id("lucca")), offer(1)).unwrap_err().kind, Kind::Denied);
    assert_eq!(h.kind("alice@rennes", offer(1)), Kind::Denied);
    assert!(h.run(&pisa, offer(1)).unwrap());
    assert!(!h.run(&pisa, offer(1)).unwrap(), "the same again is no new entry");
    assert!(h.vo.serving(NOW).is_empty());
    assert!(h.run(&pisa, offer(2)).unwrap());
    assert_eq!(h.kind("alice@rennes", accept(1)), Kind::NotFound, "not what was looked at");
    h.ok("alice@rennes", accept(2));
    assert_eq!(h.vo.serving(NOW)[0].terms.version, 2);
    assert_eq!(h.run(&pisa, offer(2)).map_err(|e| e.kind), Ok(false));
    assert_eq!(
        h.run(
            &pisa,
            Command::OfferShare { site: site(), terms: Terms { cpu_milli: 1, ..terms(2) } }
        )
        .unwrap_err()
        .kind,
        Kind::Conflict
    );
    // A new offer does not end the old one; a late withdrawal of the old does not end the new.
    assert!(h.run(&pisa, offer(3)).unwrap());
    assert_eq!(h.vo.serving(NOW)[0].terms.version, 2);
    let withdraw = |v| Command::WithdrawShare { site: site(), version: v, reason: "r".into() };
    assert!(!h.run(&pisa, withdraw(2)).unwrap());
    assert!(h.run(&pisa, withdraw(3)).unwrap());
    assert!(!h.run(&pisa, withdraw(3)).unwrap());
    assert!(h.vo.serving(NOW).is_empty());
}

#[test]
fn an_offer_alone_opens_no_log() {
    use crate::state::Readable;
    // Else any trusted site could read the members of any VO.
    let mut h = Home::new(&policy());
    let pisa = Subject::Core(id("pisa"));
    h.run(&pisa, Command::OfferShare { site: id("pisa"), terms: terms(1) }).unwrap();
    let readable = |h: &Home| h.vo.shares[&id::<SiteId>("pisa")].readable();
    assert_eq!(readable(&h), Readable::Later(0));
    h.ok("alice@rennes", Command::AcceptShare { site: id("pisa"), version: 1 });
    assert_eq!(readable(&h), Readable::All);
    h.ok("alice@rennes", Command::EndShare { site: id("pisa"), reason: String::new() });
    assert_eq!(readable(&h), Readable::UpTo(h.vo.number));
    let end = h.vo.number;
    h.run(&pisa, Command::OfferShare { site: id("pisa"), terms: terms(2) }).unwrap();
    assert_eq!(readable(&h), Readable::Later(end));
    h.ok("alice@rennes", Command::RefuseShare { site: id("pisa"), version: 2, reason: "".into() });
    assert_eq!(readable(&h), Readable::UpTo(end));
}

#[test]
fn accounts_in_steps_are_the_accounts_in_one() {
    use super::rules::accounts;
    use crate::names::NamesOf;
    use crate::state::Block;
    use xos_api::vom::AccountState;
    use xos_base::{LocalName, PersonId};
    let (block, none) = (Block { base: 2_000_000_000, size: 65_536 }, Default::default());
    let mut h = Home::new(&policy());
    h.join("alice@pisa", &[]);
    let number = h.vo.number;
    h.ok("alice@rennes", Command::CreateGroup { name: id("physics") });
    h.ok("alice@rennes", Command::AddToGroup { name: id("physics"), person: id("alice@pisa") });
    let all = accounts(&h.vo, block, None, &none);
    assert_eq!(all.len(), 1);
    // Who had the name first keeps it; the namesake gets a number.
    let name =
        |n: u32| all[0].members.iter().find(|m| m.number.0 == n).map(|m| m.name.clone()).unwrap();
    assert_eq!((name(1).as_str(), name(2).as_str()), ("alice.demo.rennes", "u2000000002"));
    let step = accounts(&h.vo, block, Some(number), &none);
    assert_eq!(step[0].members.len(), 1);
    assert_eq!(step[0].groups.len(), 1);
    assert!(!step[0].full && !step[0].more);
    let number = h.vo.number;
    h.ok("alice@pisa", Command::RemoveMember { person: id("alice@pisa"), reason: "".into() });
    let step = accounts(&h.vo, block, Some(number), &none);
    assert_eq!(step[0].members[0].state, AccountState::Ended);
    // A name that the site gave is told, though the VO has not changed.
    let (alice, ann): (PersonId, LocalName) = (id("alice@rennes"), id("ann"));
    let named =
        NamesOf { turn: 1, given: [(alice.clone(), ann.clone())].into(), changed: [alice].into() };
    let step = accounts(&h.vo, block, Some(h.vo.number), &named);
    let told: Vec<_> = step[0].members.iter().map(|m| (m.name.as_str(), &m.given)).collect();
    assert_eq!(told, [("alice.demo.rennes", &Some(ann))]);
    // Numbers beyond the block belong to another VO: no account.
    let tiny = Block { size: 1, ..block };
    assert!(accounts(&h.vo, tiny, None, &none)[0].members.is_empty());
}
