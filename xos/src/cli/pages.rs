//! Lists that come in pages.

use xos_api::Request;
use xos_base::Error;
use xos_net::Client;

/// A whole list. `ask` makes the request for what comes after an entry; `open` takes a page apart,
/// into its entries and what the next page is asked for by.
///
/// # Errors
/// As [`Client::call`].
pub async fn all<R: Request, T, A>(
    client: &Client,
    ask: impl Fn(Option<A>) -> R,
    open: impl Fn(R::Reply) -> (Vec<T>, Option<A>),
) -> Result<Vec<T>, Error> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let (entries, next) = open(client.call(ask(after)).await?);
        all.extend(entries);
        if next.is_none() {
            return Ok(all);
        }
        after = next;
    }
}
