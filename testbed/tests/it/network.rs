use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use xos_testbed::{Cmd, Error, Host, HostSpec, Process, Stdio};

use crate::{Bed, sh};

/// A server of perl-base, which every Debian has: says the host's name to each client, and to
/// its own standard output when it listens.
const SERVER: &str = r#"
use IO::Socket::INET;
my $listener = IO::Socket::INET->new(LocalPort => 4000, Listen => 9, ReuseAddr => 1) or die $!;
$| = 1; print "listening\n";
while (my $client = $listener->accept) { print $client `hostname`; close $client }
"#;

fn serve(host: &Host) -> Process {
    let cmd = Cmd::new("perl").args(["-e", SERVER]).stdio(Stdio::Piped);
    let mut server = host.spawn(&cmd).unwrap();
    let mut line = [0; 10];
    server.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"listening\n");
    server
}

/// What the server on `peer` says, within a second.
fn ask(host: &Host, peer: &str) -> Option<String> {
    let script = format!("timeout 1 cat < /dev/tcp/{peer}/4000");
    let limit = format!("timeout 1 bash -c '{script}'");
    let output = host.run(&Cmd::shell(limit)).unwrap();
    output.exit.is_success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

/// If it failed, hosts would not be a network: by name, by address, in both directions.
#[test]
fn hosts_reach_one_another_by_name_and_address() {
    let Some(bed) = Bed::new("reach") else { return };
    let one = bed.host("one");
    let spec = HostSpec::new("two.site").unwrap().address(Ipv4Addr::new(10, 77, 3, 4));
    let two = bed.testbed.add_host(spec).unwrap();
    let _servers = (serve(&one), serve(&two));
    assert_eq!(ask(&one, "two.site").as_deref(), Some("two.site"));
    assert_eq!(ask(&one, "10.77.3.4").as_deref(), Some("two.site"));
    assert_eq!(ask(&two, "one").as_deref(), Some("one"));
    assert_eq!(ask(&two, &one.address().unwrap().to_string()).as_deref(), Some("one"));
    assert_eq!(ask(&two, "localhost").as_deref(), Some("two.site"));
}

/// If it failed, a partition in a test would not be one, or would not end.
#[test]
fn a_cut_host_is_alone_until_healed() {
    let Some(bed) = Bed::new("cut") else { return };
    let (one, two) = (bed.host("one"), bed.host("two"));
    let _server = serve(&two);
    assert!(ask(&one, "two").is_some());
    two.cut().unwrap();
    assert_eq!(ask(&one, "two"), None);
    assert_eq!(ask(&two, "localhost").as_deref(), Some("two"));
    two.heal().unwrap();
    assert_eq!(ask(&one, "two").as_deref(), Some("two"));

    two.cut().unwrap();
    two.restart().unwrap();
    let _server = serve(&two);
    assert_eq!(ask(&one, "two"), None, "the cut must outlast a restart");
    two.heal().unwrap();
    assert_eq!(ask(&one, "two").as_deref(), Some("two"));
}

/// If it failed, the demo's console could not be reached, or hosts could be from elsewhere.
#[test]
fn a_loopback_port_leads_to_a_host() {
    let Some(bed) = Bed::new("forward") else { return };
    let host = bed.host("web");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let local = bed.testbed.forward(any, "web", 4000).unwrap();
    let fetch = || {
        let mut stream = TcpStream::connect(local).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    let _server = serve(&host);
    assert_eq!(fetch().unwrap(), "web\n");
    host.restart().unwrap();
    let _server = serve(&host);
    assert_eq!(fetch().unwrap(), "web\n", "after a restart of the host");

    let open = SocketAddr::from(([0, 0, 0, 0], 0));
    assert!(matches!(bed.testbed.forward(open, "web", 1), Err(Error::NotLoopback(_))));
    assert!(bed.testbed.forward(local, "web", 1).is_err(), "the port is taken");
}

/// If it failed, bytes would be lost at the end of one direction of a forwarded connection.
#[test]
fn forwarded_connections_pass_half_closes_on() {
    let Some(bed) = Bed::new("half") else { return };
    let host = bed.host("sum");
    let script = r#"use IO::Socket::INET; $| = 1;
my $l = IO::Socket::INET->new(LocalPort => 4001, Listen => 1) or die $!;
print "listening\n"; my $c = $l->accept; my $n = 0;
while (sysread($c, my $b, 65536)) { $n += length $b } print $c $n;"#;
    let cmd = Cmd::new("perl").args(["-e", script]).stdio(Stdio::Piped);
    let mut server = host.spawn(&cmd).unwrap();
    server.stdout.as_mut().unwrap().read_exact(&mut [0; 10]).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut stream = TcpStream::connect(bed.testbed.forward(any, "sum", 4001).unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(&vec![7; 3_000_000]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "3000000");
}

/// If it failed, two testbeds could not run at once, or would see one another.
#[test]
fn testbeds_with_the_same_addresses_do_not_meet() {
    let Some(first) = Bed::new("twin") else { return };
    let second = Bed::new("twin").unwrap();
    let (a, b) = (first.host("same"), second.host("same"));
    assert_eq!(a.address().unwrap(), b.address().unwrap());
    let (c, d) = (first.host("client"), second.host("client"));
    let _server = serve(&a);
    assert_eq!(ask(&c, "same").as_deref(), Some("same"));
    assert_eq!(ask(&d, "same"), None);
    first.testbed.destroy().unwrap();
    assert_eq!(sh(&b, "hostname"), "same");
}

/// If it failed, a host could take another's name or address.
#[test]
fn names_and_addresses_are_given_once() {
    let Some(bed) = Bed::new("once") else { return };
    let host = bed.host("a");
    let address = host.address().unwrap();
    let again = bed.testbed.add_host(HostSpec::new("a").unwrap());
    assert!(matches!(again, Err(Error::HostExists(_))));
    for taken in [address, Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 78, 0, 2)] {
        let spec = HostSpec::new("b").unwrap().address(taken);
        assert!(matches!(bed.testbed.add_host(spec), Err(Error::BadAddress { .. })), "{taken}");
    }
    assert!(matches!(bed.testbed.host("b"), Err(Error::NoSuchHost(_))));
    assert_eq!(bed.testbed.hosts().unwrap().len(), 1);
}
