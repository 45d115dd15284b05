//! The `/vN` prefix of paths.

use http::{Uri, uri::PathAndQuery};

use crate::{ApiVersion, HttpError, label};

/// Takes the prefix off. Without one, a request is of the lowest version. Versions that we don't speak, and anything
/// below `/vN/i/`, are answered 404 `unsupported-version`.
pub(crate) fn strip(uri: &Uri) -> Result<(Option<Uri>, ApiVersion), HttpError> {
    let path = uri.path();
    let Some((version, rest)) = split(path) else { return Ok((None, ApiVersion::MIN)) };
    let spoken =
        version.parse::<u8>().ok().map(ApiVersion).filter(|it| (ApiVersion::MIN..=ApiVersion::MAX).contains(it));
    // Clients ask for the list of versions before they know which to use.
    let version_list = rest == "/api-version";
    let internal = rest == "/i" || rest.starts_with("/i/");
    let version = match spoken {
        Some(version) if !internal => version,
        None if version_list => ApiVersion::MIN,
        _ => return Err(unsupported(version)),
    };
    let rest = if rest.is_empty() { "/" } else { rest };
    let stripped = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{rest}?{query}")),
        None => PathAndQuery::try_from(rest),
    };
    let stripped = stripped.map_err(|_| HttpError::from(label::NO_ENDPOINT))?;
    Ok((Some(Uri::from(stripped)), version))
}

/// `/v13/self` → `("13", "/self")`.
fn split(path: &str) -> Option<(&str, &str)> {
    let after = path.strip_prefix("/v")?;
    let end = after.find('/').unwrap_or(after.len());
    let (version, rest) = after.split_at(end);
    (!version.is_empty() && version.bytes().all(|b| b.is_ascii_digit())).then_some((version, rest))
}

fn unsupported(version: &str) -> HttpError {
    if version.len() > 5 {
        return label::UNSUPPORTED_VERSION.into();
    }
    HttpError::with_message(label::UNSUPPORTED_VERSION, format!("Version v{version} is not supported"))
}
