//! Pure state: budgets of tries, and what was used up.

pub(crate) mod limit;
pub(crate) mod spent;
