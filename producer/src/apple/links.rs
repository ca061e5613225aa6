//! Links in Apple's answers: looked at, never followed blindly.

use reqwest::header::{HeaderMap, LOCATION};
use url::{Origin, Url};

use super::error::DirectoryError;

/// Takes the cursor out of a next link; a link that leaves the configured origin is an error, whatever its cursor.
///
/// A link may be relative. `None` means that it has no cursor.
pub(super) fn cursor(api: &Url, path: &str, link: &str) -> Result<Option<String>, DirectoryError> {
    let foreign = |to: String| DirectoryError::ForeignLink { path: path.to_owned(), to, origin: named(&api.origin()) };
    // What URL parsers read differently is not read at all.
    if link.bytes().any(|byte| byte <= b' ' || byte == b'\\' || byte >= 0x7f) {
        return Err(foreign("a link with characters that no URL has".to_owned()));
    }
    let url = api.join(link).map_err(|_| foreign("something that is no link".to_owned()))?;
    if url.origin() != api.origin() {
        return Err(foreign(named(&url.origin())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(foreign("a link with a user name".to_owned()));
    }
    if url.path() != path {
        return Err(foreign("another path of the API".to_owned()));
    }
    Ok(url.query_pairs().find(|(name, _)| name == "cursor").map(|(_, cursor)| cursor.into_owned()))
}

/// Names where a redirect leads, without its path and query, which may hold anything.
pub(super) fn target(api: &Url, headers: &HeaderMap) -> String {
    let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
    match location.map(|location| api.join(location)) {
        Some(Ok(url)) => named(&url.origin()),
        Some(Err(_)) => "something that is no link".to_owned(),
        None => "nowhere".to_owned(),
    }
}

fn named(origin: &Origin) -> String {
    match origin {
        Origin::Opaque(_) => "a link without a host".to_owned(),
        Origin::Tuple(..) => origin.ascii_serialization(),
    }
}
