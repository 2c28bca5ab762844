//! Requests that are good only on the connection by which they are sent.

use super::{CALL_TIMEOUT, Client, check, collect, decode};
use crate::path;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use xos_api::Request;
use xos_base::Error;

/// The core at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Far {
    /// The host of the address at which it answered, as the site's descriptor writes it.
    pub host: String,
    /// The certificate that it showed.
    pub certificate: CertificateDer<'static>,
}

impl Far {
    pub(super) fn of(stream: &TlsStream<TcpStream>, address: &str) -> Result<Far, Error> {
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = shown
            .ok_or_else(|| Error::internal("TLS let a core in without a certificate"))?
            .clone();
        Ok(Far { host: host_of(address).to_owned(), certificate })
    }
}

/// The host in `host:port` or `[v6]:port`.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

impl Client {
    /// Sends, on a connection of its own, what `make` makes for it, and waits for the reply.
    ///
    /// # Errors
    /// As [`Client::call`], and those of `make`.
    pub async fn call_bound<R: Request>(
        &self,
        make: impl AsyncFnOnce(Far) -> Result<R, Error>,
    ) -> Result<R::Reply, Error> {
        let call = async {
            let (mut sender, heard, far) = self.connect().await?;
            let r = make(far).await?;
            let out = path::write(R::METHOD, R::PATH, &r)?;
            let response = sender
                .send_request(self.request(R::METHOD, &out)?)
                .await
                .map_err(|e| self.first_failed(&heard, &e))?;
            decode(&collect(check(response).await?).await?)
        };
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(result) => result,
            Err(_) => Err(self.unreachable("it did not answer in time")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, people would ask their KDC for a ticket to a host that is none.
    #[test]
    fn the_host_of_an_address_is_found() {
        for (address, host) in [
            ("core.rennes.example:7443", "core.rennes.example"),
            ("10.0.0.1:7443", "10.0.0.1"),
            ("[::1]:7443", "::1"),
        ] {
            assert_eq!(host_of(address), host);
        }
    }
}
