//! Which web pages may use this backend.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS");
const EXPOSED: HeaderValue = HeaderValue::from_static("Request-Id, Location, Replay-Nonce");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const ANY: HeaderValue = HeaderValue::from_static("*");
/// How long a browser may remember a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// Routes that set or need the cookie.
const WITH_CREDENTIALS: [&str; 4] = ["/access", "/login", "/register", "/activate"];
/// Files for apps that don't know the backend yet; any page may read them.
const PUBLIC: [&str; 3] = ["/deeplink.json", "/config.json", "/api-version"];

#[derive(Debug)]
pub(super) struct Cors {
    origins: Vec<String>,
    loopback: bool,
}

impl Cors {
    pub(super) fn new(origins: Vec<String>, loopback: bool) -> Self {
        Self { origins, loopback }
    }

    /// The answer to `OPTIONS` on any route.
    pub(super) fn preflight<B: Default>(&self, path: &str, request: &HeaderMap) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        if self.admit(path, request, headers) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
            if let Some(asked) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
            }
        }
        response
    }

    /// Adds to an answer what the page's browser needs.
    pub(super) fn decorate(&self, path: &str, origin: Option<&HeaderValue>, response: &mut HeaderMap) {
        if self.admit_origin(path, origin, response) {
            response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }

    fn admit(&self, path: &str, request: &HeaderMap, response: &mut HeaderMap) -> bool {
        self.admit_origin(path, request.get(header::ORIGIN), response)
    }

    fn admit_origin(&self, path: &str, origin: Option<&HeaderValue>, response: &mut HeaderMap) -> bool {
        let Some(origin) = origin else { return false };
        if origin.to_str().is_ok_and(|origin| self.allows(origin)) {
            response.append(header::VARY, HeaderValue::from_static("Origin"));
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            if WITH_CREDENTIALS.iter().any(|prefix| is_below(path, prefix)) {
                response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
            }
            true
        } else if PUBLIC.contains(&path) {
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
            true
        } else {
            false
        }
    }

    fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
            || (self.loopback && is_loopback(origin))
    }
}

/// Whether `path` is `prefix` or lies below it.
pub(super) fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `http://localhost:3000`, `https://127.0.0.1`, `http://[::1]:8080`.
fn is_loopback(origin: &str) -> bool {
    let Some(rest) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else { return false };
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
    };
    let port_ok = port.is_none_or(|port| port.parse::<u16>().is_ok());
    port_ok
        && (host == "localhost"
            || host.ends_with(".localhost")
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()))
}
