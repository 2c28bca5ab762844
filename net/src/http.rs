//! HTTP on the one port: actix-web serves connections whose TLS our own runtime accepted.
//!
//! Each worker is a thread with actix's single-threaded system; operations themselves run on the
//! main runtime, so that a slow one holds no worker.

use crate::caller::{Caller, Peer, Verifier};
use crate::path;
use crate::router::{Answer, BODY_MAX, Router, Who};
use actix_http::HttpService;
use actix_service::{Service, ServiceFactory, map_config};
use actix_web::body::BodyStream;
use actix_web::dev::AppConfig;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpResponse};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_rustls::server::TlsStream;
use xos_base::Error;

/// How often a stream of lines sends an empty line, so that a dead peer is noticed.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Most connections that wait for a worker.
const WAITING_MAX: usize = 1024;
/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an idle connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(75);

/// Adds pages beside the API: the console. Called once a worker.
pub type Pages = Arc<dyn Fn(&mut web::ServiceConfig) + Send + Sync>;

/// What a worker needs.
#[derive(Clone)]
pub struct Shared {
    /// The operations.
    pub router: Arc<Router>,
    /// Who turns proofs into callers.
    pub verifier: Verifier,
    /// The runtime on which operations run.
    pub runtime: Handle,
    /// The console's pages, if any.
    pub pages: Option<Pages>,
}

/// A connection for a worker.
type Accepted = (TlsStream<TcpStream>, SocketAddr, OwnedSemaphorePermit);

/// The workers. Dropping it lets them finish.
pub struct Workers {
    queues: Vec<mpsc::Sender<Accepted>>,
    next: AtomicUsize,
}

impl Workers {
    /// Starts `count` workers.
    ///
    /// # Errors
    /// [`xos_base::Kind::Internal`] when a thread cannot be made.
    pub fn start(count: usize, shared: &Shared) -> Result<Workers, Error> {
        let mut queues = Vec::new();
        for i in 0..count.max(1) {
            let (sender, receiver) = mpsc::channel(WAITING_MAX);
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("http-{i}"))
                .spawn(move || work(receiver, &shared))
                .map_err(|e| Error::internal(format!("cannot start an HTTP worker: {e}")))?;
            queues.push(sender);
        }
        Ok(Workers { queues, next: AtomicUsize::new(0) })
    }

    /// Hands a connection over; when every worker is far behind, it is closed.
    pub fn serve(
        &self,
        stream: TlsStream<TcpStream>,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) {
        let i = self.next.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        if self.queues[i].try_send((stream, peer, permit)).is_err() {
            tracing::warn!(%peer, limit = WAITING_MAX, "HTTP workers are behind: closed");
        }
    }
}

fn work(mut queue: mpsc::Receiver<Accepted>, shared: &Shared) {
    let system = actix_rt::System::new();
    system.block_on(async move {
        let pages = shared.pages.clone();
        let data = Data::new(shared.clone());
        let app = App::new()
            .app_data(data)
            .configure(|config| {
                if let Some(pages) = &pages {
                    pages(config);
                }
            })
            .default_service(web::to(api));
        let factory = HttpService::build()
            .keep_alive(IDLE_MAX)
            .client_request_timeout(HEAD_TIMEOUT)
            .on_connect_ext(|stream: &TlsStream<TcpStream>, ext| {
                ext.insert(Chain(certificates(stream)));
            })
            .finish(map_config(app, |()| AppConfig::default()));
        let service = match factory.new_service(()).await {
            Ok(service) => service,
            Err(()) => {
                tracing::error!("the HTTP service cannot start");
                return;
            }
        };
        while let Some((stream, peer, permit)) = queue.recv().await {
            let served = service.call((stream, actix_http::Protocol::Http1, Some(peer)));
            actix_rt::spawn(async move {
                let _permit = permit;
                if let Err(e) = served.await {
                    tracing::debug!(%peer, error = %e, "connection ended");
                }
            });
        }
    });
}

/// The certificates that the client of a connection sent, verified by the handshake.
struct Chain(Vec<CertificateDer<'static>>);

fn certificates(stream: &TlsStream<TcpStream>) -> Vec<CertificateDer<'static>> {
    let (_, connection) = stream.get_ref();
    connection.peer_certificates().map(<[_]>::to_vec).unwrap_or_default()
}

/// Who sent an HTTP request: a bearer token decides before a certificate.
fn who(shared: &Shared, request: &HttpRequest) -> Who {
    let address = request.peer_addr().map(|a| a.ip());
    let nobody = |why| Who::Nobody(Peer { address }, why);
    let bearer = request.headers().get("authorization").map(|v| {
        v.to_str().ok().and_then(|v| v.strip_prefix("Bearer ")).map(str::trim).unwrap_or_default()
    });
    let proof: Option<Result<Caller, Error>> = match bearer {
        Some(token) => Some(shared.verifier.token(token, address)),
        None => match request.conn_data::<Chain>() {
            Some(Chain(chain)) if !chain.is_empty() => {
                Some(shared.verifier.certificate(chain, address))
            }
            _ => None,
        },
    };
    match proof {
        Some(Ok(caller)) => Who::Caller(caller),
        Some(Err(why)) => nobody(Some(why)),
        None => nobody(None),
    }
}

/// Every request that no page takes.
async fn api(request: HttpRequest, payload: web::Payload, shared: Data<Shared>) -> HttpResponse {
    let target = request.uri().path_and_query().map_or("", |t| t.as_str());
    if target.len() > path::PATH_MAX {
        return failure(&Error::too_large(format!("a path may have {} bytes", path::PATH_MAX)));
    }
    let body = match tokio::time::timeout(BODY_TIMEOUT, read_body(payload)).await {
        Ok(Ok(body)) => body,
        Ok(Err(e)) => return failure(&e),
        Err(_) => return failure(&Error::unavailable("the body of the request came too slowly")),
    };
    let who = who(&shared, &request);
    let (router, method) = (shared.router.clone(), request.method().as_str().to_owned());
    let (path, query) = (request.path().to_owned(), request.query_string().to_owned());
    let task = shared
        .runtime
        .spawn(async move { router.dispatch(who, &method, &path, &query, body).await });
    match task.await {
        Ok(Ok(Answer::Json(body))) => HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, "application/json"))
            .insert_header((CACHE_CONTROL, "no-store"))
            .body(body),
        Ok(Ok(Answer::Lines(items))) => lines(items),
        Ok(Err(e)) => failure(&e),
        Err(e) => {
            tracing::error!(error = %e, "an operation failed");
            failure(&Error::internal("a fault in this core").hint("its log says more"))
        }
    }
}

async fn read_body(mut payload: web::Payload) -> Result<Bytes, Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|e| Error::invalid(format!("the body broke off: {e}")))?;
        if body.len() + chunk.len() > BODY_MAX {
            return Err(Error::too_large(format!("a request may have {BODY_MAX} bytes"))
                .hint("put large data on the VO's volume and name its path"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// An error as HTTP response.
pub fn failure(error: &Error) -> HttpResponse {
    let status =
        StatusCode::from_u16(error.kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).insert_header((CACHE_CONTROL, "no-store")).json(error)
}

fn lines(items: futures_util::stream::BoxStream<'static, Result<Bytes, Error>>) -> HttpResponse {
    let ticks = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(HEARTBEAT).await;
        Some((None, ()))
    });
    let framed = items
        .map(|item| Some(Some(line(item))))
        .chain(futures_util::stream::once(async { Some(None) }));
    let merged = futures_util::stream::select(framed, ticks)
        .take_while(|m| futures_util::future::ready(!matches!(m, Some(None))))
        .map(|m: Option<Option<Bytes>>| {
            Ok::<Bytes, std::convert::Infallible>(m.flatten().unwrap_or(Bytes::from_static(b"\n")))
        });
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "application/x-ndjson"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(BodyStream::new(merged))
}

/// One line: `{"ok":item}` or `{"error":{..}}`.
fn line(item: Result<Bytes, Error>) -> Bytes {
    let mut out = BytesMut::new();
    match item {
        Ok(json) => {
            out.extend_from_slice(b"{\"ok\":");
            out.extend_from_slice(&json);
        }
        Err(e) => {
            out.extend_from_slice(b"{\"error\":");
            let text = serde_json::to_vec(&e).unwrap_or_else(|_| b"null".to_vec());
            out.extend_from_slice(&text);
        }
    }
    out.extend_from_slice(b"}\n");
    out.freeze()
}
