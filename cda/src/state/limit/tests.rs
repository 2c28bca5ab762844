use super::*;

fn ip(last: u8) -> Option<IpAddr> {
    Some(IpAddr::from([192, 0, 2, last]))
}

#[test]
fn guessing_is_slowed_and_time_heals() {
    let limiter = Limiter::new();
    let now = Millis(1_000_000);
    for _ in 0..PAIR.burst {
        limiter.attempt("alice", ip(1), now).unwrap();
    }
    let wait = limiter.attempt("alice", ip(1), now).unwrap_err();
    assert_eq!(wait, PAIR.every, "the next try must be one interval away");
    limiter.attempt("bob", ip(1), now).expect("another name has its own budget");
    limiter.attempt("alice", ip(2), now).expect("another address has its own budget");
    limiter.attempt("alice", ip(1), now.plus(wait)).expect("waiting as told must help");
    limiter.attempt("alice", ip(1), now.plus(wait)).unwrap_err();
}

#[test]
fn many_addresses_on_one_name_do_not_lock_out_a_known_one() {
    // Were there a plain account lock, anybody could keep alice out.
    let limiter = Limiter::new();
    let now = Millis(1_000_000);
    let attempt = limiter.attempt("alice", ip(1), now).unwrap();
    limiter.succeeded(attempt);
    let mut refused = 0;
    for i in 0..=255u8 {
        let address = Some(IpAddr::from([198, 51, 100, i]));
        refused += u32::from(limiter.attempt("alice", address, now).is_err());
    }
    assert!(refused > 100, "a botnet must run into the name's budget, refused {refused}");
    limiter.attempt("alice", ip(1), now).expect("alice's own address is known");
}

#[test]
fn many_names_from_one_address_are_slowed() {
    let limiter = Limiter::new();
    let now = Millis(1_000_000);
    let tries = (0..200).filter(|i| limiter.attempt(&format!("u{i}"), ip(1), now).is_ok());
    assert!(tries.count() <= ADDRESS.burst as usize);
}

#[test]
fn success_costs_nothing() {
    let limiter = Limiter::new();
    for _ in 0..1000 {
        let attempt = limiter.attempt("alice", ip(1), Millis(1_000_000)).unwrap();
        limiter.succeeded(attempt);
    }
}

/// If it failed, a node that somebody broke into could guess passwords, or keep people from
/// signing in elsewhere.
#[test]
fn a_node_that_guesses_is_slowed_and_keeps_nobody_out_elsewhere() {
    let limiter = Limiter::new();
    let now = Millis(1_000_000);
    let node = |n: u32| format!("n{n}.rennes").parse::<NodeId>().unwrap();
    limiter.at_nodes.succeeded(limiter.at_nodes.attempt("alice", &node(1), now).unwrap());
    let mut tried = 0;
    for n in 2..100 {
        while limiter.at_nodes.attempt("alice", &node(n), now).is_ok() {
            tried += 1;
        }
    }
    assert_eq!(tried, NAME.burst, "many nodes together");
    limiter.at_nodes.attempt("alice", &node(1), now).expect("where she was before");
    limiter.attempt("alice", ip(1), now).expect("at the sign-in");
    let tried = |n: u32| limiter.at_nodes.attempt(&format!("p{n}"), &node(200), now).is_ok();
    let names = (0..200).filter(|n| tried(*n)).count();
    assert!(names <= ADDRESS.burst as usize, "one node tried {names} people");
}

/// If it failed, codes could be guessed, or people kept from typing theirs by others.
#[test]
fn who_guesses_codes_is_slowed_and_others_are_not() {
    let limiter = Limiter::new();
    let now = Millis(1_000_000);
    let person = |n: u32| format!("p{n}@rennes").parse::<PersonId>().unwrap();
    let mut wrong = 0;
    while limiter.code(&person(0), ip(1), now).is_ok() {
        wrong += 1;
        assert!(wrong <= CODE.burst);
    }
    let mut wrong = 0;
    for n in 1..100 {
        while limiter.code(&person(n), ip(1), now).is_ok() {
            wrong += 1;
        }
    }
    assert!(wrong <= 99 + CODE_ADDRESS.burst, "one address tried {wrong} codes at once");
    let attempt = limiter.code(&person(200), ip(1), now).expect("a first try is always heard");
    limiter.right_code(&attempt);
    for _ in 0..100 {
        let attempt = limiter.code(&person(200), ip(1), now).unwrap();
        limiter.right_code(&attempt);
    }
}

/// If it failed, a site that invents machines could begin logins of a person without end, or
/// keep them from machines of other sites.
#[test]
fn a_site_has_one_budget_for_all_machines_that_it_names() {
    let limiter = Limiter::new();
    let now = Millis(1_000_000);
    let alice: PersonId = "alice@rennes".parse().unwrap();
    let node = |text: &str| text.parse::<NodeId>().unwrap();
    let begin = |at: &str| limiter.node_login(&alice, &node(at), now);
    while begin("n1.pisa").is_ok() {}
    begin("n2.pisa").expect("one machine uses up what another one has");
    let invented = (3..1000).filter(|n| begin(&format!("n{n}.pisa")).is_ok()).count();
    let left = SITE_LOGIN.burst - NODE_LOGIN.burst - 1;
    assert_eq!(u32::try_from(invented), Ok(left));
    begin("n1.rennes").expect("one site uses up what another one has");
    begin("n1001.pisa").unwrap_err();
    limiter.node_login(&alice, &node("n1001.pisa"), now.plus(SITE_LOGIN.every)).unwrap();
}

#[test]
fn an_ipv6_network_counts_as_one() {
    let a = network(Some("2001:db8::1".parse().unwrap()));
    assert_eq!(a, network(Some("2001:db8::2".parse().unwrap())));
    assert_ne!(a, network(Some("2001:db8:0:1::1".parse().unwrap())));
    let mapped = network(Some("::ffff:192.0.2.1".parse().unwrap()));
    assert_eq!(mapped, network(ip(1)));
}
