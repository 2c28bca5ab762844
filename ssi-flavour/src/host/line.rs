//! What an image comes over: the socket by which the other node was reached, through the core, or a
//! connection to it without anybody in between, where its address is reached.
//!
//! The first is as trusted as the core's word and both nodes' certificates make it. By it they
//! agree on the second: on a key that seals all that goes over it, and on a word that who connects
//! has to say; who has the image answers on that connection before the first hears of it. Both are
//! of one image, made by who takes it.

use super::sealed::{self, Key};
use super::within::{Line, Until, left};
use crate::frame;
use aws_lc_rs::{constant_time, hmac};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longest frame by which the two agree, in bytes.
const SAID_MAX: usize = 16 * 1024;
/// Most addresses of a node that are tried, and how long each takes that does not answer.
const ADDRESSES_MAX: usize = 4;
const TRY_MAX: Duration = Duration::from_millis(400);
/// Most connections that are heard until one says the word, and how long they may take together,
/// and each of them.
const COMERS_MAX: usize = 16;
const COME_MAX: Duration = Duration::from_secs(5);
const WORD_MAX: Duration = Duration::from_millis(500);
/// How long the two may take to agree, all in all.
const AGREE_MAX: Duration = Duration::from_secs(30);
/// How long nothing of an image may be taken, or come, and how long all of it may take.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(60);
pub(super) const WHOLE_MAX: Duration = Duration::from_secs(6 * 3600);
/// From one look for who connects to the next.
const LOOK: Duration = Duration::from_millis(5);
/// Ports below are services' of the machine.
const PORT_MIN: u16 = 1024;
/// After the word: that an answer is waited for, which agents before did not.
const ANSWER: u8 = 1;

/// First, from who takes the image.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    key: Key,
    word: Key,
}

/// Then, from who has it: where it can be reached.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reached {
    at: Vec<SocketAddr>,
}

/// Which way it is: said by who takes the image, once who has it answered there; then by who has
/// it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Way {
    direct: bool,
}

/// The way of an image that is to come from who is at the other end of `socket`, and its key. If
/// it may be `direct`, that is tried.
///
/// # Errors
/// That the other side does not agree.
pub(super) fn take(socket: UnixStream, direct: bool) -> io::Result<(Line, Key)> {
    // Who does not know its own addresses connects nowhere.
    let own = if direct { all_addresses().ok() } else { None };
    take_beside(socket, own.as_deref())
}

/// As [`take`], straight if the machine's `own` addresses are known.
fn take_beside(socket: UnixStream, own: Option<&[IpAddr]>) -> io::Result<(Line, Key)> {
    let mut said = Until::new(&socket, Instant::now() + AGREE_MAX);
    let wanted = Wanted { key: sealed::random()?, word: sealed::random()? };
    say(&mut said, &wanted)?;
    let reached: Reached = hear(&mut said)?;
    let direct = own.and_then(|own| reach(&reached.at, own, &wanted));
    say(&mut said, &Way { direct: direct.is_some() })?;
    let agreed: Way = hear(&mut said)?;
    let line = direct.filter(|_| agreed.direct).map(Line::Direct);
    Ok((line.unwrap_or(Line::Through(socket)), wanted.key))
}

/// The way of an image that who is at the other end of `socket` takes, and its key.
///
/// # Errors
/// As [`take`].
pub(super) fn give(socket: UnixStream, direct: bool) -> io::Result<(Line, Key)> {
    let mut said = Until::new(&socket, Instant::now() + AGREE_MAX);
    let wanted: Wanted = hear(&mut said)?;
    // One that can be reached by nobody, or has no addresses, is reached through the core.
    let listener = if direct { listen().ok() } else { None };
    let port = listener.as_ref().and_then(|of| of.local_addr().ok()).map(|at| at.port());
    let at = port.map(addresses).unwrap_or_default();
    say(&mut said, &Reached { at })?;
    let came = listener.and_then(|listener| come(&listener, &socket, &wanted).ok().flatten());
    let chosen: Way = hear(&mut said)?;
    let direct = came.filter(|_| chosen.direct);
    say(&mut said, &Way { direct: direct.is_some() })?;
    Ok((direct.map_or(Line::Through(socket), Line::Direct), wanted.key))
}

fn say<T: Serialize>(to: &mut impl Write, value: &T) -> io::Result<()> {
    let mut bytes = Vec::new();
    frame::push(value, &mut bytes)?;
    to.write_all(&bytes)
}

/// No byte more than the frame is read.
fn hear<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = usize::try_from(u32::from_le_bytes(len)).unwrap_or(usize::MAX);
    if len > SAID_MAX {
        let why = "who is to send an image, or to take it, says something else";
        return Err(io::Error::new(ErrorKind::InvalidData, why));
    }
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Anywhere: who connects has to know the word.
fn listen() -> io::Result<TcpListener> {
    let all = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0));
    let listener = all.or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// All addresses of this machine.
fn all_addresses() -> io::Result<Vec<IpAddr>> {
    let up = getifaddrs()?.filter(|i| i.flags.contains(InterfaceFlags::IFF_UP));
    let addresses = up.filter_map(|i| {
        let address = i.address?;
        let four = address.as_sockaddr_in().map(|four| IpAddr::V4(four.ip()));
        four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::V6(six.ip())))
    });
    Ok(addresses.collect())
}

/// Where this machine may be reached.
fn addresses(port: u16) -> Vec<SocketAddr> {
    let all = all_addresses().unwrap_or_default().into_iter();
    let at = all.map(|address| SocketAddr::new(address, port)).filter(is_a_nodes);
    at.take(ADDRESSES_MAX).collect()
}

/// Whether it may be another machine's address, and no service's. Another node names them: this one
/// connects to nothing of its own.
fn is_a_nodes(at: &SocketAddr) -> bool {
    let special = |four: Ipv4Addr| {
        four.is_loopback()
            || four.is_unspecified()
            || four.is_multicast()
            || four.is_broadcast()
            || four.is_link_local()
    };
    let address = match at.ip() {
        IpAddr::V4(four) => !special(four),
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => !special(four),
            None => {
                let local = six.is_unicast_link_local();
                !(six.is_loopback() || six.is_unspecified() || six.is_multicast() || local)
            }
        },
    };
    address && at.port() >= PORT_MIN
}

/// The connection to the first of these addresses at which who has the image answers. Nobody hears
/// whether anything else listens there: each that does not answer takes the same time.
fn reach(at: &[SocketAddr], own: &[IpAddr], wanted: &Wanted) -> Option<TcpStream> {
    let others = at.iter().filter(|at| is_a_nodes(at) && !own.contains(&at.ip().to_canonical()));
    others.take(ADDRESSES_MAX).find_map(|at| {
        let until = Instant::now() + TRY_MAX;
        let line = connect(*at, wanted, until).ok();
        if line.is_none() {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        line
    })
}

fn connect(at: SocketAddr, wanted: &Wanted, until: Instant) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&at, left(until)?)?;
    socket.set_nodelay(true)?;
    let mut said = Until::new(&socket, until);
    let asks: Vec<u8> = wanted.word.iter().copied().chain([ANSWER]).collect();
    said.write_all(&asks)?;
    let mut heard = Key::default();
    said.read_exact(&mut heard)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &wanted.key);
    let same = hmac::verify(&key, &wanted.word, &heard);
    same.map_err(|_| io::Error::new(ErrorKind::InvalidData, "somebody else listens there"))?;
    Ok(socket)
}

/// The connection of who says the word, if it comes before who takes the image says on `socket`
/// which way it is to be.
fn come(
    listener: &TcpListener,
    socket: &UnixStream,
    wanted: &Wanted,
) -> io::Result<Option<TcpStream>> {
    let until = Instant::now() + COME_MAX;
    let mut comers = 0;
    while comers < COMERS_MAX && Instant::now() < until {
        // Who connected did so before it said so.
        let chosen = is_said(socket)?;
        match listener.accept() {
            Ok((comer, _)) => {
                comers += 1;
                if says(&comer, wanted, until) {
                    comer.set_nodelay(true)?;
                    return Ok(Some(comer));
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock && chosen => break,
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(LOOK),
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {
            }
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// Whether there is something to be heard, were it the end.
fn is_said(socket: &UnixStream) -> io::Result<bool> {
    Ok(poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&Timespec::default()))? > 0)
}

/// Whether who connected says the word. It is answered, if it waits for that.
fn says(socket: &TcpStream, wanted: &Wanted, until: Instant) -> bool {
    let until = until.min(Instant::now() + WORD_MAX);
    let heard = || -> io::Result<bool> {
        socket.set_nonblocking(false)?;
        let mut said = Until::new(socket, until);
        let mut word = Key::default();
        said.read_exact(&mut word)?;
        if constant_time::verify_slices_are_equal(&word, &wanted.word).is_err() {
            return Ok(false);
        }
        let mut asks = [0];
        if said.read_exact(&mut asks).is_ok() && asks == [ANSWER] {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &wanted.key);
            let own_time = Instant::now() + WORD_MAX;
            let answer = hmac::sign(&key, &wanted.word);
            Until::new(socket, own_time).write_all(answer.as_ref())?;
        }
        Ok(true)
    };
    heard().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_other_machines_are_connected_to() {
        // wrong: another node would have root's agent here connect to services of this machine
        let good = ["10.1.2.3:40000", "[fd00::7]:40000", "192.0.2.7:1024"];
        assert!(good.iter().all(|at| is_a_nodes(&at.parse().unwrap())));
        for bad in [
            "127.0.0.1:40000",
            "[::1]:40000",
            "[::ffff:127.0.0.1]:40000",
            "0.0.0.0:40000",
            "169.254.169.254:40000",
            "[fe80::1]:40000",
            "224.0.0.1:40000",
            "10.1.2.3:22",
        ] {
            assert!(!is_a_nodes(&bad.parse().unwrap()), "{bad}");
        }
    }

    fn wanted(word: u8) -> Wanted {
        Wanted { key: [7; 32], word: [word; 32] }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn only_who_knows_the_word_is_let_in() {
        // wrong: who connects first would get a program's memory, or keep it from who is to have it
        let listener = listen().unwrap();
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
        let mut stranger = TcpStream::connect(at).unwrap();
        stranger.write_all(&[1; 33]).unwrap();
        let friend = std::thread::spawn(move || {
            let mut friend = connect(at, &wanted(2), soon()).unwrap();
            let mut got = String::new();
            friend.read_to_string(&mut got).unwrap();
            got
        });
        let (_taker, socket) = UnixStream::pair().unwrap();
        let mut come = come(&listener, &socket, &wanted(2)).unwrap().unwrap();
        come.write_all(b"image").unwrap();
        drop(come);
        assert_eq!(friend.join().unwrap(), "image");
        assert_eq!(stranger.read(&mut [0]).unwrap_or(0), 0);
    }

    #[test]
    fn an_agent_of_before_gets_no_answer_among_its_image() {
        // wrong: a node that was not updated yet would take the answer for the image, and no
        // program move to it
        let listener = listen().unwrap();
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
        let mut old = TcpStream::connect(at).unwrap();
        old.write_all(&[2; 32]).unwrap();
        let (mut taker, socket) = UnixStream::pair().unwrap();
        say(&mut taker, &Way { direct: true }).unwrap();
        let mut come = come(&listener, &socket, &wanted(2)).unwrap().unwrap();
        come.write_all(b"image").unwrap();
        drop(come);
        let mut got = String::new();
        old.read_to_string(&mut got).unwrap();
        assert_eq!(got, "image");
    }

    #[test]
    fn what_listens_elsewhere_is_not_told() {
        // wrong: a rooted node would have this one look for open ports, its own ones too
        let good = |ip: &IpAddr| ip.is_ipv4() && is_a_nodes(&SocketAddr::new(*ip, PORT_MIN));
        let Some(own) = all_addresses().unwrap().into_iter().find(good) else {
            return println!("skipped: no address but the machine's inner ones");
        };
        let other = listen().unwrap();
        let at = SocketAddr::new(own, other.local_addr().unwrap().port());
        assert!(reach(&[at], &[own], &wanted(2)).is_none());
        let none = other.accept().unwrap_err();
        assert_eq!(none.kind(), ErrorKind::WouldBlock, "its own addresses are left alone");
        assert!(reach(&[at], &[], &wanted(2)).is_none(), "what is there does not answer");
        let (_came, _) = other.accept().unwrap();
    }

    #[test]
    fn both_sides_agree_on_a_way_and_a_key() {
        // wrong: one would write where the other does not read, or a node listen that is not to
        for (takes, gives) in [(true, true), (true, false), (false, true)] {
            let (one, other) = UnixStream::pair().unwrap();
            let giving = std::thread::spawn(move || give(other, gives).unwrap());
            // Of this test both are on one machine.
            let own: Option<&[IpAddr]> = if takes { Some(&[]) } else { None };
            let (mut taken, key) = take_beside(one, own).unwrap();
            let (mut given, same) = giving.join().unwrap();
            assert_eq!(key, same);
            given.write_all(b"x").unwrap();
            let mut got = [0];
            taken.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"x");
            let direct = matches!(taken, Line::Direct(_));
            assert_eq!(direct, matches!(given, Line::Direct(_)));
            assert!(!direct || (takes && gives));
        }
    }
}
