//! The console's pages as its source lists them: each route's method, path, and for whom it is.

use std::fs;
use std::path::Path;

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `get` or `post`.
    pub method: String,
    /// With variable places, as `/vo/{vo}`.
    pub path: String,
    /// Only for those who signed in.
    pub signed_in: bool,
}

/// All that stands in the files of a folder, and of those in it, as the macro `routes!` reads it.
pub fn routes(folder: &Path) -> Vec<Route> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the console's source") {
        let path = entry.expect("a file").path();
        if path.is_dir() {
            found.extend(routes(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            found.extend(text.split(';').filter_map(one));
        }
    }
    found
}

/// `get "/vo/{vo}" Visit vo::show`, at the end of a text.
fn one(text: &str) -> Option<Route> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [.., method, path, who, _page] = words.as_slice() else { return None };
    let path = path.strip_prefix('"')?.strip_suffix('"')?;
    let signed_in = match *who {
        "Visit" => true,
        "Guest" => false,
        _ => return None,
    };
    let known = matches!(*method, "get" | "post") && path.starts_with('/');
    known.then(|| Route { method: (*method).to_owned(), path: path.to_owned(), signed_in })
}
