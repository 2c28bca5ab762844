//! The console before a real router with stand-in operations.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admin;
mod administer;
mod attacks;
mod clusters;
mod fake;
mod html;
mod joining;
mod kerberos;
mod oidc;
mod pages;
mod passkeys;
mod provider;
mod scim;
mod security;
mod table;
mod world;
