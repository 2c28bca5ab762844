//! One module a page, with its template, its reading and its actions.

pub(crate) mod account;
pub(crate) mod applications;
pub(crate) mod audit;
pub(crate) mod consent;
pub(crate) mod device;
pub(crate) mod groups;
pub(crate) mod home;
pub(crate) mod job;
pub(crate) mod jobs;
pub(crate) mod kerberos;
pub(crate) mod member;
pub(crate) mod members;
pub(crate) mod output;
pub(crate) mod passkeys;
pub(crate) mod provider;
pub(crate) mod recover;
pub(crate) mod rules;
pub(crate) mod running;
pub(crate) mod services;
pub(crate) mod shares;
pub(crate) mod sign_in;
pub(crate) mod site;
pub(crate) mod submit;
pub(crate) mod trouble;
pub(crate) mod vo;
