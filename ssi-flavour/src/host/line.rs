//! What an image comes over: the socket by which the other node was reached, through the core, or a
//! connection to it without anybody in between, where its address is reached.
//!
//! The first is as trusted as the core's word and both nodes' certificates make it. By it they
//! agree on the second: on a key that seals all that goes over it, and on a word that who connects
//! has to say. Both are of one image, made by who takes it.

use super::sealed::{self, Key};
use crate::frame;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longest frame by which the two agree, in bytes.
const SAID_MAX: usize = 16 * 1024;
/// Most addresses of a node that are tried, and how long each may take to answer.
const ADDRESSES_MAX: usize = 4;
const CONNECT_MAX: Duration = Duration::from_millis(250);
/// Most connections that are heard until one says the word, and how long they may take together,
/// and each of them.
const COMERS_MAX: usize = 16;
const COME_MAX: Duration = Duration::from_secs(2);
const WORD_MAX: Duration = Duration::from_millis(500);
/// How long the other side may take to agree.
const AGREE_MAX: Duration = Duration::from_secs(20);
/// How long nothing of an image may be taken, or come.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(60);
/// From one look for who connects to the next.
const LOOK: Duration = Duration::from_millis(5);
/// Ports below are services' of the machine.
const PORT_MIN: u16 = 1024;

/// A way for an image.
#[derive(Debug)]
pub(super) enum Line {
    /// By the socket that another node was reached by.
    Through(UnixStream),
    /// Straight to it.
    Direct(TcpStream),
}

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

/// Which way it is: said by who takes the image, then by who has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Way {
    direct: bool,
}

impl Line {
    /// Ends it for both sides.
    pub(super) fn end(&self) {
        // It may have ended by itself.
        let _gone = match self {
            Line::Through(socket) => socket.shutdown(Shutdown::Both),
            Line::Direct(socket) => socket.shutdown(Shutdown::Both),
        };
    }

    /// The same one.
    pub(super) fn again(&self) -> io::Result<Line> {
        Ok(match self {
            Line::Through(socket) => Line::Through(socket.try_clone()?),
            Line::Direct(socket) => Line::Direct(socket.try_clone()?),
        })
    }

    /// How long a read may take.
    pub(super) fn limit(&self, silence: Duration) -> io::Result<()> {
        match self {
            Line::Through(socket) => socket.set_read_timeout(Some(silence)),
            Line::Direct(socket) => socket.set_read_timeout(Some(silence)),
        }
    }
}

impl Read for Line {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Line::Through(socket) => socket.read(buf),
            Line::Direct(socket) => socket.read(buf),
        }
    }
}

impl Write for Line {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Line::Through(socket) => socket.write(buf),
            Line::Direct(socket) => socket.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Line::Through(socket) => socket.flush(),
            Line::Direct(socket) => socket.flush(),
        }
    }
}

/// The way of an image that is to come from who is at the other end of `socket`, and its key. If
/// it may be `direct`, that is tried.
///
/// # Errors
/// That the other side does not agree.
pub(super) fn take(mut socket: UnixStream, direct: bool) -> io::Result<(Line, Key)> {
    socket.set_read_timeout(Some(AGREE_MAX))?;
    let wanted = Wanted { key: sealed::random()?, word: sealed::random()? };
    say(&mut socket, &wanted)?;
    let reached: Reached = hear(&mut socket)?;
    let most = if direct { ADDRESSES_MAX } else { 0 };
    let mut tried = reached.at.into_iter().filter(is_a_nodes).take(most);
    let direct = tried.find_map(|at| connect(at, &wanted.word).ok());
    say(&mut socket, &Way { direct: direct.is_some() })?;
    let agreed: Way = hear(&mut socket)?;
    let line = direct.filter(|_| agreed.direct).map(Line::Direct);
    Ok((line.unwrap_or(Line::Through(socket)), wanted.key))
}

/// The way of an image that who is at the other end of `socket` takes, and its key.
///
/// # Errors
/// As [`take`].
pub(super) fn give(mut socket: UnixStream, direct: bool) -> io::Result<(Line, Key)> {
    socket.set_read_timeout(Some(AGREE_MAX))?;
    socket.set_write_timeout(Some(SILENCE_MAX))?;
    let wanted: Wanted = hear(&mut socket)?;
    // One that can be reached by nobody, or has no addresses, is reached through the core.
    let listener = if direct { listen().ok() } else { None };
    let port = listener.as_ref().and_then(|of| of.local_addr().ok()).map(|at| at.port());
    let at = port.map(addresses).unwrap_or_default();
    say(&mut socket, &Reached { at })?;
    let chosen: Way = hear(&mut socket)?;
    let listener = listener.filter(|_| chosen.direct);
    let direct = listener.and_then(|listener| come(&listener, &wanted.word).ok());
    say(&mut socket, &Way { direct: direct.is_some() })?;
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

/// Where this machine may be reached.
fn addresses(port: u16) -> Vec<SocketAddr> {
    let Ok(all) = getifaddrs() else { return Vec::new() };
    let up = all.filter(|i| i.flags.contains(InterfaceFlags::IFF_UP));
    let addresses = up.filter_map(|i| {
        let address = i.address?;
        let four = address.as_sockaddr_in().map(|four| IpAddr::V4(four.ip()));
        four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::V6(six.ip())))
    });
    let at = addresses.map(|address| SocketAddr::new(address, port)).filter(is_a_nodes);
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

fn connect(at: SocketAddr, word: &Key) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect_timeout(&at, CONNECT_MAX)?;
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(SILENCE_MAX))?;
    socket.write_all(word)?;
    Ok(socket)
}

/// The connection of who says the word.
fn come(listener: &TcpListener, word: &Key) -> io::Result<TcpStream> {
    let until = Instant::now() + COME_MAX;
    let mut comers = 0;
    while comers < COMERS_MAX && Instant::now() < until {
        match listener.accept() {
            Ok((socket, _)) => {
                comers += 1;
                if says(&socket, word) {
                    socket.set_nodelay(true)?;
                    socket.set_write_timeout(Some(SILENCE_MAX))?;
                    return Ok(socket);
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(LOOK),
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {
            }
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::new(ErrorKind::TimedOut, "nobody connects who knows the word"))
}

fn says(mut socket: &TcpStream, word: &Key) -> bool {
    let mut said = Key::default();
    let set = socket.set_nonblocking(false).and_then(|()| socket.set_read_timeout(Some(WORD_MAX)));
    let heard = set.and_then(|()| socket.read_exact(&mut said));
    heard.is_ok() && aws_lc_rs::constant_time::verify_slices_are_equal(&said, word).is_ok()
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

    #[test]
    fn only_who_knows_the_word_is_let_in() {
        // wrong: who connects first would get a program's memory, or keep it from who is to have it
        let listener = listen().unwrap();
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
        let stranger = connect(at, &[1; 32]).unwrap();
        let mut friend = connect(at, &[2; 32]).unwrap();
        let mut come = come(&listener, &[2; 32]).unwrap();
        come.write_all(b"image").unwrap();
        drop(come);
        let mut got = String::new();
        friend.read_to_string(&mut got).unwrap();
        assert_eq!(got, "image");
        assert_eq!((&stranger).read(&mut [0]).unwrap_or(0), 0);
    }

    #[test]
    fn both_sides_agree_on_a_way_and_a_key() {
        // wrong: one would write where the other does not read, or a node listen that is not to
        for (takes, gives) in [(true, true), (true, false), (false, true)] {
            let (one, other) = UnixStream::pair().unwrap();
            let giving = std::thread::spawn(move || give(other, gives).unwrap());
            let (mut taken, key) = take(one, takes).unwrap();
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
