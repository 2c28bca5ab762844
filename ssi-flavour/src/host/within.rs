//! Sockets that lead to other machines, which neither hold a thread by silence nor by a byte at a
//! time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What reads and writes no longer than it is told.
pub(super) trait Socket {
    /// How long each read may take.
    fn read_within(&self, limit: Duration) -> io::Result<()>;

    /// How long each write may take.
    fn write_within(&self, limit: Duration) -> io::Result<()>;
}

impl Socket for UnixStream {
    fn read_within(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))
    }

    fn write_within(&self, limit: Duration) -> io::Result<()> {
        self.set_write_timeout(Some(limit))
    }
}

impl Socket for TcpStream {
    fn read_within(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))
    }

    fn write_within(&self, limit: Duration) -> io::Result<()> {
        self.set_write_timeout(Some(limit))
    }
}

fn late(why: &str) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, why.to_owned())
}

/// How long it is until then.
///
/// # Errors
/// `TimedOut` when that is over.
pub(super) fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late("it takes too long")) } else { Ok(left) }
}

fn in_time(done: io::Result<usize>, why: &str) -> io::Result<usize> {
    match done {
        Err(e) if e.kind() == ErrorKind::WouldBlock => Err(late(why)),
        done => done,
    }
}

/// A socket up to a moment, for all that is read and written together.
pub(super) struct Until<'a, S> {
    socket: &'a S,
    until: Instant,
}

impl<'a, S> Until<'a, S> {
    pub(super) fn new(socket: &'a S, until: Instant) -> Until<'a, S> {
        Until { socket, until }
    }
}

impl<'a, S: Socket> Read for Until<'a, S>
where
    &'a S: Read,
{
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.read_within(left(self.until)?)?;
        let mut socket = self.socket;
        in_time(socket.read(buf), "the other side is silent")
    }
}

impl<'a, S: Socket> Write for Until<'a, S>
where
    &'a S: Write,
{
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.socket.write_within(left(self.until)?)?;
        let mut socket = self.socket;
        in_time(socket.write(buf), "the other side takes nothing")
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut socket = self.socket;
        socket.flush()
    }
}

/// A way for an image.
#[derive(Debug)]
pub(super) enum Line {
    /// By the socket that another node was reached by.
    Through(UnixStream),
    /// Straight to it.
    Direct(TcpStream),
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

    /// How long a read or a write may take.
    fn limit(&self, silence: Duration) -> io::Result<()> {
        let socket: &dyn Socket = match self {
            Line::Through(socket) => socket,
            Line::Direct(socket) => socket,
        };
        socket.read_within(silence)?;
        socket.write_within(silence)
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

/// A line whose other side is neither silent for long nor at it for ever.
pub(super) struct Limited {
    line: Line,
    until: Instant,
}

impl Limited {
    /// Of a line: how long nothing of what goes over it may come or be taken, and how long all of
    /// it may take.
    ///
    /// # Errors
    /// Those of the socket.
    pub(super) fn new(line: Line, silence: Duration, whole: Duration) -> io::Result<Limited> {
        line.limit(silence)?;
        Ok(Limited { line, until: Instant::now() + whole })
    }
}

impl Read for Limited {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        left(self.until)?;
        in_time(self.line.read(buf), "nothing of it comes")
    }
}

impl Write for Limited {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        left(self.until)?;
        in_time(self.line.write(buf), "nothing of it is taken")
    }

    fn flush(&mut self) -> io::Result<()> {
        self.line.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_a_byte_at_a_time_is_given_up_as_well() {
        // wrong: a node would keep a thread here for days, and a port open
        let (one, mut other) = UnixStream::pair().unwrap();
        let hour = Instant::now() + Duration::from_secs(3600);
        other.write_all(b"abc").unwrap();
        let mut byte = [0];
        Until::new(&one, hour).read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"a");
        let over = Instant::now();
        let late = Until::new(&one, over).read_exact(&mut byte).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut, "also when there is more");
        assert_eq!(Until::new(&one, over).write(b"x").unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn who_takes_an_image_too_slowly_is_given_up() {
        // wrong: a node that reads a byte now and then would keep a thread and a port here
        let (one, _other) = UnixStream::pair().unwrap();
        let silence = Duration::from_secs(60);
        let mut slow = Limited::new(Line::Through(one), silence, Duration::ZERO).unwrap();
        assert_eq!(slow.write(b"x").unwrap_err().kind(), ErrorKind::TimedOut);
        let (one, _other) = UnixStream::pair().unwrap();
        let hour = Duration::from_secs(3600);
        let mut full = Limited::new(Line::Through(one), Duration::from_millis(1), hour).unwrap();
        let all = vec![0; 16 << 20];
        assert_eq!(full.write_all(&all).unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
