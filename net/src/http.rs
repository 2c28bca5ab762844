//! HTTP on the one port: actix-web serves connections whose TLS our own runtime accepted.
//!
//! Each worker is a thread with actix's single-threaded system; operations themselves run on the
//! main runtime, so that a slow one holds no worker.

mod refusal;

use self::refusal::{Refusal, failure, json_only, no_foreign_page};
use crate::bodies::{Bodies, Holder, Taken};
use crate::caller::{Caller, Peer, Verifier};
use crate::guard::Proved;
use crate::pace::{Pace, Paced, Sent};
use crate::path;
use crate::places::Place;
use crate::router::{Answer, Found, Router, Who};
use crate::unread::leaving;
use actix_http::HttpService;
use actix_service::{Service, ServiceFactory, map_config};
use actix_web::body::BodyStream;
use actix_web::dev::{AppConfig, ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue,
    RETRY_AFTER, TRANSFER_ENCODING,
};
use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpResponse};
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt};
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;
use xos_base::Error;

/// How often a stream of lines sends an empty line, so that a dead peer is noticed.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Most connections that wait for a worker.
const WAITING_MAX: usize = 1024;
/// How long a client may take to send a request's head, also the second on a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a proved caller may take to send a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long somebody who proved nothing may.
const STRANGERS_BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest body of a request to a page, in bytes.
const PAGE_BODY_MAX: usize = 256 * 1024;
/// How long what a refused client still sends is thrown away, so that it reads why.
const LINGER: Duration = Duration::from_secs(2);
/// After how many seconds who was refused for lack of room may try again.
const RETRY_AFTER_S: u32 = 1;
/// How long an idle connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(75);

/// A page in place of the usual answer to a request that is refused unread, if it wants one.
pub type RefusedPage = dyn Fn(&HttpRequest, &Error) -> Option<HttpResponse> + Send + Sync;

/// Pages beside the API: the console.
#[derive(Clone)]
pub struct Pages {
    /// Adds them. Called once a worker.
    pub configure: Arc<dyn Fn(&mut web::ServiceConfig) + Send + Sync>,
    /// The page about a request that was refused before it came to one; `None` when it is no
    /// browser that asks.
    pub refused: Arc<RefusedPage>,
}

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
type Accepted = (TlsStream<TcpStream>, SocketAddr, Place);

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
        let bodies = Bodies::new();
        for i in 0..count.max(1) {
            let (sender, receiver) = mpsc::channel(WAITING_MAX);
            let (shared, bodies) = (shared.clone(), bodies.clone());
            std::thread::Builder::new()
                .name(format!("http-{i}"))
                .spawn(move || work(receiver, &shared, &bodies))
                .map_err(|e| Error::internal(format!("cannot start an HTTP worker: {e}")))?;
            queues.push(sender);
        }
        Ok(Workers { queues, next: AtomicUsize::new(0) })
    }

    /// Hands a connection over; when every worker is far behind, it is closed.
    pub fn serve(&self, stream: TlsStream<TcpStream>, peer: SocketAddr, place: Place) {
        let i = self.next.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        if self.queues[i].try_send((stream, peer, place)).is_err() {
            tracing::warn!(%peer, limit = WAITING_MAX, "HTTP workers are behind: closed");
        }
    }
}

fn work(mut queue: mpsc::Receiver<Accepted>, shared: &Shared, bodies: &Bodies) {
    let system = actix_rt::System::new();
    system.block_on(async move {
        let (added, refusing) = (shared.pages.clone(), shared.pages.clone());
        let (shared, of_pages) = (Data::new(shared.clone()), bodies.clone());
        let app = App::new()
            .app_data(shared)
            .app_data(Data::new(bodies.clone()))
            .configure(|config| {
                if let Some(pages) = &added {
                    (pages.configure)(config);
                }
            })
            .default_service(web::to(api))
            .wrap_fn(move |request, pages| {
                let serving = request.conn_data::<Pace>().map(Pace::serve);
                let room = room_for_page(&of_pages, &request);
                let served = match room {
                    Ok(room) => Ok((room, pages.call(request))),
                    Err(e) => Err(refused(refusing.as_ref(), request, &e)),
                };
                async move {
                    let answer = match served {
                        Ok((_room, served)) => served.await?.map_into_left_body(),
                        Err(refused) => refused.map_into_right_body(),
                    };
                    Ok(answer.map_body(|_, body| Sent::new(body, serving)))
                }
            });
        let factory = HttpService::build()
            .keep_alive(IDLE_MAX)
            .client_request_timeout(HEAD_TIMEOUT)
            .client_disconnect_timeout(LINGER)
            .on_connect_ext(|stream: &Paced<TlsStream<TcpStream>>, ext| {
                ext.insert(Chain(certificates(stream.inner())));
                ext.insert(stream.pace());
            })
            .finish(map_config(app, |()| AppConfig::default()));
        let service = match factory.new_service(()).await {
            Ok(service) => service,
            Err(()) => {
                tracing::error!("the HTTP service cannot start");
                return;
            }
        };
        while let Some((stream, peer, place)) = queue.recv().await {
            // Its own limit of idleness comes after actix's, which closes the connection in order.
            let stream = Paced::new(stream, HEAD_TIMEOUT, IDLE_MAX + LINGER);
            let served = service.call((stream, actix_http::Protocol::Http1, Some(peer)));
            actix_rt::spawn(async move {
                let _place = place;
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
    let bearer = request.headers().get(AUTHORIZATION).map(|v| {
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

/// Every request that no page takes. What can be refused is refused before its body is read.
async fn api(
    request: HttpRequest,
    payload: web::Payload,
    shared: Data<Shared>,
    bodies: Data<Bodies>,
) -> HttpResponse {
    let who = who(&shared, &request);
    let (found, length, room) = match admit(&shared, &bodies, &request, &who) {
        Ok(admitted) => admitted,
        Err(refusal) => return leaving(refusal.answer(), payload),
    };
    let (time, guard) = match &who {
        Who::Caller(c) => (BODY_TIMEOUT, Some(shared.verifier.trust().guard(Proved::of(c)))),
        Who::Nobody(..) => (STRANGERS_BODY_TIMEOUT, None),
    };
    let body = match tokio::time::timeout(time, read_body(payload, length)).await {
        Ok(Ok(body)) => body,
        Ok(Err(e)) => return failure(&e),
        Err(_) => return failure(&Error::unavailable("the body of the request came too slowly")),
    };
    let query = request.query_string().to_owned();
    let task = shared.runtime.spawn(async move {
        let answer = found.run(who, &query, body).await;
        drop(room);
        answer
    });
    match task.await {
        Ok(Ok(Answer::Json(body))) => HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, "application/json"))
            .insert_header((CACHE_CONTROL, "no-store"))
            .body(body),
        Ok(Ok(Answer::Lines(items))) => lines(match guard {
            // A stream lives long: who is refused meanwhile hears no more of it.
            Some(guard) => {
                let cut = guard.cut().clone().cancelled_owned();
                items.take_until(cut.map(move |()| drop(guard))).boxed()
            }
            None => items,
        }),
        Ok(Err(e)) => failure(&e),
        Err(e) => {
            tracing::error!(error = %e, "an operation failed");
            failure(&Error::internal("a fault in this core").hint("its log says more"))
        }
    }
}

/// What serves the request, how long its body is, and the room for that.
fn admit(
    shared: &Shared,
    bodies: &Bodies,
    request: &HttpRequest,
    who: &Who,
) -> Result<(Found, usize, Option<Taken>), Refusal> {
    let target = request.uri().path_and_query().map_or("", |t| t.as_str());
    if target.len() > path::PATH_MAX {
        return Err(Error::too_large(format!("a path may have {} bytes", path::PATH_MAX)).into());
    }
    let found = shared.router.find(request.method().as_str(), request.path())?;
    found.admit(who)?;
    let headers = request.headers();
    let length = body_length(headers, found.body_max())?;
    let takes_body = found.body_max() > 0;
    // No page can make a browser send a token.
    let by_token = matches!(who, Who::Caller(_)) && headers.contains_key(AUTHORIZATION);
    if takes_body && !by_token {
        no_foreign_page(headers)?;
    }
    // Also without a body: an empty one is a request too.
    if length > 0 || (takes_body && !by_token) {
        json_only(headers)?;
    }
    let holder = match who {
        Who::Caller(caller) => Holder::of(caller, shared.verifier.site()),
        Who::Nobody(peer, _) => Holder::at(peer.address),
    };
    let room = (length > 0).then(|| bodies.take(holder, length)).transpose()?;
    Ok((found, length, room))
}

/// How long a body will be. Without a length nobody knows what it will need.
fn body_length(headers: &HeaderMap, max: usize) -> Result<usize, Error> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return Err(Error::invalid("the length of the body is not said")
            .hint("send it with Content-Length, not in chunks"));
    }
    let Some(text) = headers.get(CONTENT_LENGTH) else { return Ok(0) };
    let length = text.to_str().ok().and_then(|t| t.trim().parse::<u64>().ok());
    let length = length.ok_or_else(|| Error::invalid("the length of the body is malformed"))?;
    match usize::try_from(length) {
        Ok(length) if length <= max => Ok(length),
        _ if max == 0 => Err(Error::too_large("this request takes no body")),
        _ => Err(Error::too_large(format!("the body of this request may have {max} bytes"))
            .hint("put large data on the VO's volume and name its path")),
    }
}

/// Room for what a browser sends to a page, counted by its address.
fn room_for_page(bodies: &Bodies, request: &ServiceRequest) -> Result<Option<Taken>, Error> {
    if request.path().starts_with(path::API) {
        return Ok(None);
    }
    let length = body_length(request.headers(), PAGE_BODY_MAX)?;
    let holder = Holder::at(request.peer_addr().map(|a| a.ip()));
    (length > 0).then(|| bodies.take(holder, length)).transpose()
}

/// The answer to a request for a page that has no room.
fn refused(pages: Option<&Pages>, request: ServiceRequest, e: &Error) -> ServiceResponse {
    let (request, payload) = request.into_parts();
    let mut answer = match pages.and_then(|pages| (pages.refused)(&request, e)) {
        Some(page) => page,
        None => failure(e),
    };
    if e.kind == xos_base::Kind::Unavailable {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    }
    ServiceResponse::new(request, leaving(answer, payload))
}

async fn read_body(mut payload: web::Payload, length: usize) -> Result<Bytes, Error> {
    // Grows with what arrives, not with what the length claims.
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|e| Error::invalid(format!("the body broke off: {e}")))?;
        if body.len() + chunk.len() > length {
            return Err(Error::invalid("the body is longer than was said"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
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
