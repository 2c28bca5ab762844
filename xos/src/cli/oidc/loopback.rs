//! Where a provider sends the browser back to: a listener on this computer (RFC 8252, 7.3), for one
//! answer.
//!
//! Other users of the computer can reach it too. Only an answer with the sign-in's `state` counts,
//! which they do not know; whatever else comes is turned away and changes nothing.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use xos_api::cda::{Answer, Code, callback_path};
use xos_base::{Error, ProviderId};

/// Longest head of a request, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// How long a browser may take to send one, and to take the page.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Most connections at a time; browsers open some before they need them.
const CONNECTIONS_MAX: usize = 32;

/// The listener of one sign-in.
pub struct Loopback {
    listener: TcpListener,
    provider: ProviderId,
    port: u16,
}

/// What a provider adds to the address.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    state: String,
    code: String,
    iss: Option<String>,
    error: String,
}

/// What a request was.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// Nothing of ours.
    Other,
    /// The provider's answer.
    Answer(Answer),
    /// The provider says no.
    Declined,
}

impl Loopback {
    /// Listens on a port that is free.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when there is none.
    pub async fn open(provider: ProviderId) -> Result<Loopback, Error> {
        let fail = |e: std::io::Error| {
            Error::unavailable(format!("cannot listen on 127.0.0.1: {e}"))
                .hint("sign in by another device: add --device")
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(fail)?;
        let port = listener.local_addr().map_err(fail)?.port();
        Ok(Loopback { listener, provider, port })
    }

    /// Where the browser is to come back to.
    pub fn redirect(&self) -> String {
        format!("http://127.0.0.1:{}{}", self.port, callback_path(&self.provider))
    }

    /// Waits for the answer of the sign-in with this `state`.
    ///
    /// # Errors
    /// [`xos_base::Kind::Denied`] when the person did not sign in there.
    pub async fn answer(self, state: &str) -> Result<Answer, Error> {
        let mut open = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if open.len() < CONNECTIONS_MAX => {
                    match accepted {
                        Ok((stream, _)) => open.push(self.serve(stream, state)),
                        Err(e) => return Err(Error::unavailable(format!(
                            "the listener on 127.0.0.1 failed: {e}"
                        ))),
                    }
                }
                Some(heard) = open.next(), if !open.is_empty() => match heard {
                    Heard::Other => {}
                    Heard::Answer(answer) => return Ok(answer),
                    Heard::Declined => {
                        return Err(Error::denied("you did not sign in there").hint("try again"));
                    }
                }
            }
        }
    }

    async fn serve(&self, mut stream: TcpStream, state: &str) -> Heard {
        let talk = async {
            let head = read_head(&mut stream).await?;
            let heard = heard(&head, &self.provider, state);
            let (status, text) = match &heard {
                Heard::Other => ("404 Not Found", "There is nothing here."),
                Heard::Answer(_) => ("200 OK", "You can close this window and go on in the shell."),
                Heard::Declined => ("200 OK", "You did not sign in. You can close this window."),
            };
            // The answer counts also when the browser does not take the page.
            if let Err(e) = stream.write_all(page(status, text).as_bytes()).await {
                tracing::debug!(error = %e, "the browser went away");
            }
            Some(heard)
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, talk).await {
            Ok(Some(heard)) => heard,
            Ok(None) | Err(_) => Heard::Other,
        }
    }
}

/// The head of a request; `None` when it breaks off or is too long.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut part = [0; 2048];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        let length = stream.read(&mut part).await.ok().filter(|n| *n > 0)?;
        head.extend_from_slice(&part[..length]);
        if head.len() > HEAD_MAX {
            return None;
        }
    }
    String::from_utf8(head).ok()
}

fn heard(head: &str, provider: &ProviderId, state: &str) -> Heard {
    let target = head.lines().next().and_then(|line| {
        let mut words = line.split(' ');
        (words.next()? == "GET").then(|| words.next()).flatten()
    });
    let (path, query) = target.and_then(|t| t.split_once('?')).unwrap_or_default();
    if path != callback_path(provider) {
        return Heard::Other;
    }
    match serde_urlencoded::from_str::<Said>(query) {
        Ok(said) if said.state == state && !said.error.is_empty() => Heard::Declined,
        Ok(said) if said.state == state && !said.code.is_empty() => Heard::Answer(Answer {
            provider: provider.clone(),
            state: Code(said.state),
            code: Code(said.code),
            iss: said.iss,
        }),
        _ => Heard::Other,
    }
}

fn page(status: &str, text: &str) -> String {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>XOS</title></head>\
         <body><p>{text}</p></body></html>\n"
    );
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n\
         Content-Security-Policy: default-src 'none'\r\nConnection: close\r\n\r\n{html}",
        html.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uni() -> ProviderId {
        "uni".parse().unwrap()
    }

    fn get(target: &str) -> Heard {
        heard(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"), &uni(), "s 1")
    }

    /// If it failed, another user of the computer, or any web page, could end a person's sign-in or
    /// make it theirs.
    #[test]
    fn only_the_answer_of_this_sign_in_counts() {
        let Heard::Answer(answer) =
            get("/sign-in/callback/uni?code=c%2B1&state=s+1&iss=https%3A%2F%2Fid&more=x")
        else {
            panic!("the answer was not taken");
        };
        assert_eq!((answer.code.0.as_str(), answer.iss.as_deref()), ("c+1", Some("https://id")));
        assert_eq!(get("/sign-in/callback/uni?error=access_denied&state=s+1"), Heard::Declined);
        for bad in [
            "/",
            "/favicon.ico",
            "/sign-in/callback/uni",
            "/sign-in/callback/uni?code=c1",
            "/sign-in/callback/uni?code=c1&state=s2",
            "/sign-in/callback/uni?code=c1&state=",
            "/sign-in/callback/uni?state=s+1",
            "/sign-in/callback/uni?error=access_denied",
            "/sign-in/callback/other?code=c1&state=s+1",
            "/sign-in/callback/uni/x?code=c1&state=s+1",
        ] {
            assert_eq!(get(bad), Heard::Other, "{bad}");
        }
        for bad in ["", "POST /sign-in/callback/uni?code=c1&state=s+1 HTTP/1.1\r\n\r\n", "GET"] {
            assert_eq!(heard(bad, &uni(), "s 1"), Heard::Other, "{bad}");
        }
    }

    /// If it failed, a browser that opens a connection in advance, as they do, would keep the
    /// answer waiting.
    #[tokio::test]
    async fn an_answer_is_taken_beside_connections_that_say_nothing() {
        let loopback = Loopback::open(uni()).await.unwrap();
        let address = ("127.0.0.1", loopback.port);
        let silent = TcpStream::connect(address).await.unwrap();
        let browser = async {
            let mut wrong = TcpStream::connect(address).await.unwrap();
            wrong.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            let mut text = String::new();
            wrong.read_to_string(&mut text).await.unwrap();
            assert!(text.starts_with("HTTP/1.1 404"), "{text}");
            let mut right = TcpStream::connect(address).await.unwrap();
            let line = b"GET /sign-in/callback/uni?code=c1&state=s1 HTTP/1.1\r\n\r\n";
            right.write_all(line).await.unwrap();
            text.clear();
            right.read_to_string(&mut text).await.unwrap();
            text
        };
        let (answer, text) = tokio::join!(loopback.answer("s1"), browser);
        assert_eq!(answer.unwrap().code, Code("c1".into()));
        assert!(text.contains("close this window"), "{text}");
        drop(silent);
    }
}
