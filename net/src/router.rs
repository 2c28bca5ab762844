//! From a request's method and path to the function that serves it, whatever it came by: HTTP,
//! a control stream, or in process.

use crate::caller::{Caller, Peer};
use crate::openapi::Shape;
use crate::path::{self, Template};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, Stream, StreamExt};
use serde::Serialize;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use xos_api::{Method, Request, Subscribe};
use xos_base::Error;

/// Longest body of a request by a proved caller, in bytes.
pub const BODY_MAX: usize = 2 * 1024 * 1024;
/// Longest body of a request that anybody may make, in bytes.
pub const PUBLIC_BODY_MAX: usize = 64 * 1024;

type Raw = Arc<dyn Fn(Who, Parts) -> BoxFuture<'static, Result<Answer, Error>> + Send + Sync>;
type Typed<R> = Arc<
    dyn Fn(Caller, R) -> BoxFuture<'static, Result<<R as Request>::Reply, Error>> + Send + Sync,
>;
type TypedPublic<R> =
    Arc<dyn Fn(Peer, R) -> BoxFuture<'static, Result<<R as Request>::Reply, Error>> + Send + Sync>;
type TypedStream<S> =
    Arc<dyn Fn(Caller, S) -> BoxFuture<'static, Result<ItemStream<S>, Error>> + Send + Sync>;

/// The items that answer a [`Subscribe`].
pub type ItemStream<S> = BoxStream<'static, Result<<S as Subscribe>::Item, Error>>;

/// A request as it arrived: path fields, query, body.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// The fields that the path's template names, decoded.
    pub path: Vec<(&'static str, String)>,
    /// The query without its question mark.
    pub query: String,
    /// The body.
    pub body: Bytes,
}

/// Who asks: proved, or only an address.
pub enum Who {
    /// A proof was verified.
    Caller(Caller),
    /// Nobody proved anything; holds why a proof that was sent failed, if one was.
    Nobody(Peer, Option<Error>),
}

/// What goes back.
pub enum Answer {
    /// One JSON text.
    Json(Bytes),
    /// JSON texts, a line each; an error ends them.
    Lines(BoxStream<'static, Result<Bytes, Error>>),
}

struct Route {
    method: Method,
    path: &'static str,
    template: Template,
    public: bool,
    shape: Shape,
    run: Raw,
}

/// Why nothing serves a request.
#[derive(Clone, Debug)]
pub struct Unserved {
    /// What the caller is told.
    pub error: Error,
    /// The methods by which the path is served; none: by no method.
    pub methods: Vec<Method>,
}

impl From<Unserved> for Error {
    fn from(unserved: Unserved) -> Error {
        unserved.error
    }
}

/// An operation as the document of the API describes it.
pub struct Served<'a> {
    /// The method.
    pub method: Method,
    /// The path, with fields in braces.
    pub path: &'static str,
    /// Whether anybody may ask.
    pub public: bool,
    /// What it takes and answers.
    pub shape: &'a Shape,
}

/// What serves a request, known before its body is read.
pub struct Found {
    fields: Vec<(&'static str, String)>,
    public: bool,
    body_max: usize,
    run: Raw,
}

impl Found {
    /// Refuses who may not call it at all.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unauthenticated`] when it needs a proof and none holds.
    pub fn admit(&self, who: &Who) -> Result<(), Error> {
        match who {
            Who::Nobody(_, why) if !self.public => Err(unproved(why.clone())),
            _ => Ok(()),
        }
    }

    /// Longest body that it takes over HTTP, in bytes; 0: none.
    pub fn body_max(&self) -> usize {
        self.body_max
    }

    /// Runs it.
    ///
    /// # Errors
    /// What the operation says.
    pub async fn run(self, who: Who, query: &str, body: Bytes) -> Result<Answer, Error> {
        let parts = Parts { path: self.fields, query: query.to_owned(), body };
        (self.run)(who, parts).await
    }
}

/// The operations of a machine. Filled at start, then shared.
#[derive(Default)]
pub struct Router {
    routes: Vec<Route>,
    typed: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    publics: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    streams: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
}

impl Router {
    /// No operations.
    pub fn new() -> Router {
        Router::default()
    }

    /// Serves `R`, for proved callers only.
    pub fn on<R, F, Fut>(&mut self, f: F)
    where
        R: Request,
        F: Fn(Caller, R) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R::Reply, Error>> + Send + 'static,
    {
        let typed: Typed<R> = Arc::new(move |caller, r| Box::pin(f(caller, r)));
        self.typed.insert(TypeId::of::<R>(), Box::new(typed.clone()));
        self.add((R::METHOD, R::PATH, false), Shape::of::<R>(), move |who, parts| {
            let typed = typed.clone();
            Box::pin(async move {
                let caller = proved(who)?;
                let reply = typed(caller, path::read::<R>(R::METHOD, &parts)?).await?;
                Ok(Answer::Json(json(&reply)?))
            })
        });
    }

    /// Serves `R` for anybody: signing in, and what is public.
    pub fn public<R, F, Fut>(&mut self, f: F)
    where
        R: Request,
        F: Fn(Peer, R) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R::Reply, Error>> + Send + 'static,
    {
        let f: TypedPublic<R> = Arc::new(move |peer, r| Box::pin(f(peer, r)));
        self.publics.insert(TypeId::of::<R>(), Box::new(f.clone()));
        let inner = f.clone();
        let typed: Typed<R> =
            Arc::new(move |caller: Caller, r| inner(Peer { address: caller.address() }, r));
        self.typed.insert(TypeId::of::<R>(), Box::new(typed));
        self.add((R::METHOD, R::PATH, true), Shape::of::<R>(), move |who, parts| {
            let f = f.clone();
            Box::pin(async move {
                let peer = match who {
                    Who::Caller(c) => Peer { address: c.address() },
                    Who::Nobody(peer, _) => peer,
                };
                let reply = f(peer, path::read::<R>(R::METHOD, &parts)?).await?;
                Ok(Answer::Json(json(&reply)?))
            })
        });
    }

    /// Serves the stream `S`, for proved callers only.
    pub fn stream<S, F, Fut, St>(&mut self, f: F)
    where
        S: Subscribe,
        F: Fn(Caller, S) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<St, Error>> + Send + 'static,
        St: Stream<Item = Result<S::Item, Error>> + Send + 'static,
    {
        let typed: TypedStream<S> = Arc::new(move |caller, s| {
            let items = f(caller, s);
            Box::pin(async move { Ok(items.await?.boxed()) })
        });
        self.streams.insert(TypeId::of::<S>(), Box::new(typed.clone()));
        self.add((S::METHOD, S::PATH, false), Shape::of_stream::<S>(), move |who, parts| {
            let typed = typed.clone();
            Box::pin(async move {
                let caller = proved(who)?;
                let items = typed(caller, path::read::<S>(S::METHOD, &parts)?).await?;
                Ok(Answer::Lines(items.map(|i| i.and_then(|i| json(&i))).boxed()))
            })
        });
    }

    fn add<F>(&mut self, (method, path, public): (Method, &'static str, bool), shape: Shape, run: F)
    where
        F: Fn(Who, Parts) -> BoxFuture<'static, Result<Answer, Error>> + Send + Sync + 'static,
    {
        let template = Template::parse(path);
        self.routes.push(Route { method, path, template, public, shape, run: Arc::new(run) });
    }

    /// What is served: method, path with fields in braces, and whether for anybody.
    pub fn served(&self) -> impl Iterator<Item = (Method, &'static str, bool)> {
        self.routes.iter().map(|r| (r.method, r.path, r.public))
    }

    /// What is served, as the document of the API describes it.
    pub fn described(&self) -> impl Iterator<Item = Served<'_>> {
        self.routes.iter().map(|r| Served {
            method: r.method,
            path: r.path,
            public: r.public,
            shape: &r.shape,
        })
    }

    /// Finds what serves `method` and `path`.
    ///
    /// # Errors
    /// [`Unserved`] when nothing does.
    pub fn find(&self, method: &str, path: &str) -> Result<Found, Unserved> {
        let mut others = Vec::new();
        for route in &self.routes {
            let Some(fields) = route.template.matches(path) else { continue };
            if route.method.as_str() != method {
                others.push((fields.len(), route.method));
                continue;
            }
            let body_max = match (route.method.has_body(), route.public) {
                (false, _) => 0,
                (true, true) => PUBLIC_BODY_MAX,
                (true, false) => BODY_MAX,
            };
            return Ok(Found { fields, public: route.public, body_max, run: route.run.clone() });
        }
        let shown = path::shown(path);
        // A path that stands in the document as it is, is no other one with a field.
        let least = others.iter().map(|(fields, _)| *fields).min();
        let methods: Vec<Method> =
            others.into_iter().filter(|(n, _)| Some(*n) == least).map(|(_, m)| m).collect();
        let error = if methods.is_empty() {
            Error::not_found(format!("{method} {shown} does not exist here"))
        } else {
            Error::invalid(format!("{shown} is not served by that method here"))
        };
        Err(Unserved { error, methods })
    }

    /// Whether `R` is served here for proved callers.
    pub fn serves<R: Request>(&self) -> bool {
        self.typed.contains_key(&TypeId::of::<R>())
    }

    /// Serves `r` in process, without encoding it.
    ///
    /// # Errors
    /// [`xos_base::Kind::Unavailable`] when the service does not run on this machine.
    pub async fn local<R: Request>(&self, caller: Caller, r: R) -> Result<R::Reply, Error> {
        let typed = self.typed.get(&TypeId::of::<R>()).and_then(|t| t.downcast_ref::<Typed<R>>());
        match typed {
            Some(f) => f(caller, r).await,
            None => Err(missing(R::METHOD, R::PATH)),
        }
    }

    /// Serves `r`, which is for anybody, in process for somebody at `peer`.
    ///
    /// # Errors
    /// As [`Router::local`]; also when `R` is served for proved callers only.
    pub async fn local_public<R: Request>(&self, peer: Peer, r: R) -> Result<R::Reply, Error> {
        let public = self.publics.get(&TypeId::of::<R>());
        match public.and_then(|f| f.downcast_ref::<TypedPublic<R>>()) {
            Some(f) => f(peer, r).await,
            None => Err(missing(R::METHOD, R::PATH)),
        }
    }

    /// Serves the stream `s` in process.
    ///
    /// # Errors
    /// As [`Router::local`].
    pub async fn local_stream<S: Subscribe>(
        &self,
        caller: Caller,
        s: S,
    ) -> Result<ItemStream<S>, Error> {
        let typed =
            self.streams.get(&TypeId::of::<S>()).and_then(|t| t.downcast_ref::<TypedStream<S>>());
        match typed {
            Some(f) => f(caller, s).await,
            None => Err(missing(S::METHOD, S::PATH)),
        }
    }
}

fn missing(method: Method, path: &str) -> Error {
    Error::unavailable(format!("no service on this machine answers {} {path}", method.as_str()))
        .hint("its section is missing in this machine's xosd.toml")
}

fn proved(who: Who) -> Result<Caller, Error> {
    match who {
        Who::Caller(c) => Ok(c),
        Who::Nobody(_, why) => Err(unproved(why)),
    }
}

/// The refusal of somebody whose proof failed for that reason, or who sent none.
fn unproved(why: Option<Error>) -> Error {
    why.unwrap_or_else(|| {
        Error::unauthenticated("this needs a proof of who you are").hint("sign in with `xos login`")
    })
}

fn json<T: Serialize>(value: &T) -> Result<Bytes, Error> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|e| Error::internal(format!("cannot encode an answer: {e}")))
}
