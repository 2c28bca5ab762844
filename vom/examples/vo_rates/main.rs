//! What the suite `vo` of `xos-bench` measures within this crate, as JSON: the name of each
//! measurement with its values.
//!
//! ```text
//! vo_rates rules                      decisions, beside casbin alone
//! vo_rates members COUNT              look-ups and changes in a VO of so many members
//! vo_rates audit DIR LINES            the audit, in a folder on the disk to measure
//! vo_rates fill REGISTRY VO COUNT     puts so many members into a VO of a core that does not run
//! ```
#![allow(clippy::print_stdout)]

mod audit;
mod fill;
mod members;
mod rules;
#[allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#[path = "../../tests/it/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

/// What everything here ends with.
type Outcome<T> = Result<T, Box<dyn Error>>;
/// The values of each measurement.
type Measured = BTreeMap<&'static str, Vec<f64>>;

/// Microseconds since then.
fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// Milliseconds since then.
fn millis(since: Instant) -> f64 {
    micros(since) / 1e3
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let measured = match args[..] {
        ["rules"] => rules::measure().await?,
        ["members", count] => members::measure(count.parse()?).await?,
        ["audit", dir, lines] => audit::measure(Path::new(dir), lines.parse()?).await?,
        ["fill", registry, vo, count] => {
            return fill::file(Path::new(registry), &vo.parse()?, count.parse()?).await;
        }
        _ => return Err("say what to measure: see the head of vo_rates/main.rs".into()),
    };
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}
