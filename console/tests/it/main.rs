//! The console before a real router with stand-in operations.

mod fake;
mod html;
mod pages;
mod security;
mod world;
