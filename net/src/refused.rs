//! Certificates that are refused: why, as the verifier sees it, and what their holder hears of it.
//!
//! TLS tells the holder no more than the number of an alert (RFC 8446, section 6.2). With TLS 1.3
//! it comes when the handshake is over on the client's side: at the first read.

use crate::identity::{Identity, validity};
use crate::trust::{Subject, subject_of};
use rustls::{AlertDescription, CertificateError, Error as TlsError};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use xos_base::{Error, SiteId};

/// How many reads look for the peer's last word after a write has failed.
const LAST_READS_MAX: usize = 16;
/// How many bytes one of them takes.
const LAST_READ_BYTES: usize = 4096;

/// Why a certificate is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYet,
    /// The site that must vouch for it is not trusted.
    Untrusted(SiteId),
    /// The site that must vouch for it did not sign it.
    Unsigned(SiteId),
    /// Its key was withdrawn, or that of the authority which signed it.
    Withdrawn,
    /// Anything else.
    Other(Error),
}

impl Refusal {
    /// Anything else, in words.
    pub(crate) fn other(why: impl std::fmt::Display) -> Refusal {
        Refusal::Other(Error::unauthenticated(format!("certificate refused: {why}")))
    }

    /// What rustls makes an alert of.
    pub(crate) fn told(&self) -> CertificateError {
        match self {
            Refusal::Expired => CertificateError::Expired,
            Refusal::NotYet => CertificateError::NotValidYet,
            Refusal::Untrusted(_) | Refusal::Unsigned(_) => CertificateError::UnknownIssuer,
            Refusal::Withdrawn => CertificateError::Revoked,
            Refusal::Other(_) => CertificateError::ApplicationVerificationFailure,
        }
    }
}

impl From<Error> for Refusal {
    fn from(e: Error) -> Refusal {
        Refusal::Other(e)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        let refuse = |why: &str| Error::unauthenticated(format!("certificate refused: {why}"));
        match refusal {
            Refusal::Expired => refuse("it has expired").hint("sign in again with `xos login`"),
            Refusal::NotYet => refuse("it is not valid yet").hint("one of the two clocks is wrong"),
            Refusal::Untrusted(site) => refuse(&format!("site {site} is not trusted here")),
            Refusal::Unsigned(site) => {
                refuse(&format!("site {site}, which alone may sign it, did not sign it"))
            }
            Refusal::Withdrawn => refuse("its key was withdrawn").hint(
                "a person signs in again with `xos login`; a site administrator lets a machine \
                 join again, with a new key",
            ),
            Refusal::Other(e) => e,
        }
    }
}

/// What the core of `site` says by `alert` about the certificate that `shown` showed it; `None`
/// when the alert is about something else.
///
/// A person is told to prove themselves anew. Of a machine nobody can: what it wanted is tried
/// again later, since work of others must not be given up for it.
fn refused(alert: AlertDescription, site: &SiteId, shown: Option<&Identity>) -> Option<Error> {
    let leaf = shown.and_then(|identity| identity.chain().first());
    let subject = leaf.and_then(|leaf| subject_of(leaf).ok());
    let again = "sign in again with `xos login`";
    let (why, hint) = match alert {
        AlertDescription::CertificateExpired => {
            let span = leaf.and_then(|leaf| validity(leaf).ok());
            let span = span.map(|(from, until)| format!(" (it holds from {from} to {until})"));
            let why = "by that site's clock it has expired, or is not valid yet";
            let hint = format!("{again}; if you did just now, look at this machine's clock");
            (format!("{why}{}", span.unwrap_or_default()), hint)
        }
        AlertDescription::UnknownCA => {
            let whom =
                subject.as_ref().map_or("the site".to_owned(), |s| s.authority().to_string());
            let why = format!("{whom} did not sign it, or is not trusted there");
            let hint = format!("ask the administrator of {site} whether it still trusts {whom}");
            (why, hint)
        }
        AlertDescription::CertificateRevoked => {
            let why = "its key was withdrawn".to_owned();
            (why, format!("{again}; if that does not help, ask the administrator of {site}"))
        }
        AlertDescription::CertificateRequired => {
            ("it wants one and got none".to_owned(), again.to_owned())
        }
        AlertDescription::AccessDenied
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::NoCertificate
        | AlertDescription::UnsupportedCertificate => {
            let ask = format!("ask the administrator of {site}, whose log says more");
            ("it does not hold there".to_owned(), format!("{again}; if that does not help, {ask}"))
        }
        _ => return None,
    };
    Some(match subject {
        Some(Subject::Core(own)) => Error::unavailable(format!(
            "site {site} refused the certificate of {own}'s core: {why}"
        ))
        .hint(format!("the administrators of {site} and {own} look into it")),
        Some(Subject::Node(node)) => {
            Error::unavailable(format!("site {site} refused the certificate of node {node}: {why}"))
                .hint(format!("ask the administrator of {}", node.site()))
        }
        Some(Subject::Member(_)) | None => {
            Error::unauthenticated(format!("site {site} refused your certificate: {why}"))
                .hint(hint)
        }
    })
}

/// The alert that made a TLS stream fail.
fn alert_in(e: &io::Error) -> Option<AlertDescription> {
    match e.get_ref()?.downcast_ref::<TlsError>()? {
        TlsError::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// What the peer of a [`Hearing`] stream said by an alert. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<OnceLock<AlertDescription>>);

impl Heard {
    fn note(&self, e: &io::Error) {
        if let Some(alert) = alert_in(e) {
            self.0.get_or_init(|| alert);
        }
    }

    /// Why the core of `site` refused the certificate that `shown` showed it, if it did.
    pub(crate) fn refusal(&self, site: &SiteId, shown: Option<&Identity>) -> Option<Error> {
        refused(*self.0.get()?, site, shown)
    }
}

/// A TLS stream that notes the alert by which it ends.
///
/// Whoever uses it may not see that: a connection that ends before its first request gives the
/// request another error, and a write fails before the alert that explains it was read.
pub(crate) struct Hearing<S> {
    inner: S,
    heard: Heard,
    failed: Option<io::Error>,
}

impl<S> Hearing<S> {
    /// `inner`, whose alert `heard` will know.
    pub(crate) fn new(inner: S, heard: Heard) -> Hearing<S> {
        Hearing { inner, heard, failed: None }
    }
}

impl<S: AsyncRead + Unpin> Hearing<S> {
    /// Reads what the peer said last, after a write has failed; then the write's error.
    fn last_word<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let mut bytes = [0; LAST_READ_BYTES];
        for _ in 0..LAST_READS_MAX {
            let mut buf = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.inner).poll_read(cx, &mut buf) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(Ok(())) => break,
                Poll::Ready(Err(e)) => {
                    self.heard.note(&e);
                    break;
                }
            }
        }
        let failed = self.failed.take();
        Poll::Ready(Err(failed.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Hearing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Poll::Ready(Err(e)) = &read {
            self.heard.note(e);
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Hearing<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.failed.is_none() {
            match Pin::new(&mut this.inner).poll_write(cx, buf) {
                Poll::Ready(Err(e)) => this.failed = Some(e),
                other => return other,
            }
        }
        this.last_word(cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.failed.is_none() {
            match Pin::new(&mut this.inner).poll_flush(cx) {
                Poll::Ready(Err(e)) => this.failed = Some(e),
                other => return other,
            }
        }
        this.last_word(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_base::Kind;

    fn alert(alert: AlertDescription) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, TlsError::AlertReceived(alert))
    }

    /// A peer whose socket takes nothing more, with an alert still to be read.
    struct Closed(Option<io::Error>);

    impl AsyncRead for Closed {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(self.0.take().map_or(Ok(()), Err))
        }
    }

    impl AsyncWrite for Closed {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// If it failed, who is refused would now and then hear "broken pipe, try again" instead.
    #[tokio::test]
    async fn the_alert_is_heard_though_the_write_failed_first() {
        use tokio::io::AsyncWriteExt;
        let heard = Heard::default();
        let closed = Closed(Some(alert(AlertDescription::CertificateExpired)));
        let mut stream = Hearing::new(closed, heard.clone());
        let e = stream.write_all(b"GET /").await.unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::BrokenPipe);
        let e = heard.refusal(&"rennes".parse().unwrap(), None).unwrap();
        assert_eq!(e.kind, Kind::Unauthenticated);
        assert!(
            e.to_string().contains("has expired") && e.to_string().contains("xos login"),
            "{e}"
        );
    }

    /// If it failed, people would be sent to sign in because of a broken line.
    #[test]
    fn other_alerts_say_nothing_about_the_certificate() {
        let site: SiteId = "rennes".parse().unwrap();
        for other in [
            AlertDescription::InternalError,
            AlertDescription::CloseNotify,
            AlertDescription::NoApplicationProtocol,
        ] {
            let heard = Heard::default();
            heard.note(&alert(other));
            assert!(heard.refusal(&site, None).is_none(), "{other:?}");
        }
        let heard = Heard::default();
        heard.note(&io::ErrorKind::ConnectionReset.into());
        assert!(heard.refusal(&site, None).is_none());
    }
}
