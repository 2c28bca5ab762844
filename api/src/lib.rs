//! The requests of XOS and their replies: what travels between `xos`, the console, cores and
//! nodes. Types and their documentation only; no logic.
//!
//! A request is one type with its reply, method and path (REST, JSON bodies). Fields named in
//! the path travel there; the rest travels in the query (GET, DELETE) or the JSON body.

pub mod aem;
pub mod audit;
pub mod cda;
pub mod cluster;
pub mod node;
pub mod openapi;
pub mod policy;
pub mod request;
pub mod site;
pub mod vom;

pub use request::{Done, Method, Request, Subscribe};
