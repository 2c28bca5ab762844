//! The audit trail: who did what to what, and how it went. Target `audit`.

use xos_base::Error;

/// Most characters of a caller's text that are noted.
const ABOUT_MAX: usize = 200;

/// Notes the outcome of an operation. `about` is its object; texts of callers are escaped.
pub(crate) fn note<T>(
    what: &'static str,
    who: &str,
    about: &str,
    result: &Result<T, Error>,
    outcome: impl FnOnce(&T) -> String,
) {
    let about: String = about.chars().take(ABOUT_MAX).collect();
    match result {
        Ok(reply) => {
            let outcome = outcome(reply);
            tracing::info!(target: "audit", what, ?who, ?about, outcome, "done");
        }
        Err(e) => {
            tracing::info!(target: "audit", what, ?who, ?about, kind = ?e.kind, why = ?e.message,
                "refused");
        }
    }
}
