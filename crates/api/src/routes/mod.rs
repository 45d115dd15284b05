//! The table of client routes: each path with its handler, its versions, and all that it can answer.
//!
//! A service lists its routes here once. What clients reach, in which version of the API, what `openapi.json` says
//! and what `docs/client-api.md` shows all come from that list. Bodies, paths, queries and most answers are read off
//! the handlers themselves ([`Described`]).

mod describe;
mod openapi;
mod serve;

#[cfg(test)]
mod tests;

use axum::{
    Router,
    extract::Request,
    handler::Handler,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use tower::{Layer, Service};

pub(crate) use self::serve::router;
pub use self::{
    describe::{Described, Extracts, Gives, Input, Output},
    openapi::{Description, MAY_BE_EMPTY},
};
use crate::{ApiVersion, Label, label};

/// Makes the schema of a type.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The schema of `T`, by reference where it has a name.
pub(crate) fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// The content of a body.
#[derive(Debug, Clone, Copy)]
pub enum Content {
    /// None.
    Empty,
    /// JSON of this schema.
    Json(SchemaOf),
    /// Something else, of this media type.
    Other(&'static str),
}

/// One way in which a route succeeds.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// What comes with it.
    pub content: Content,
    /// The lowest and highest version of the API in which it is given.
    pub versions: (ApiVersion, ApiVersion),
}

/// One row of the table.
#[derive(Debug, Clone)]
pub struct Route {
    /// HTTP method in capitals.
    pub method: &'static str,
    /// Path without version prefix, with `{names}`.
    pub path: &'static str,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// The part of the API that it belongs to.
    pub group: &'static str,
    /// The lowest version of the API that has it.
    pub since: ApiVersion,
    /// The highest version of the API that has it.
    pub until: ApiVersion,
    /// Clients call it without a version prefix.
    pub unprefixed: bool,
    /// What it reads.
    pub input: Input,
    /// How it succeeds. Empty: it does not, it is there for an honest error.
    pub answers: Vec<Answer>,
    /// Errors beyond those that any route of its kind has.
    pub errors: Vec<Label>,
    /// Errors whose body deviates from the usual one.
    pub deviations: Vec<(u16, SchemaOf)>,
    /// Neither the table says nor the handler's type shows how it succeeds.
    unknown: bool,
    /// The table says how it succeeds, whatever the handler's type suggests.
    said: bool,
}

impl Route {
    /// Whether a version of the API has it.
    pub fn is_in(&self, version: ApiVersion) -> bool {
        (self.since..=self.until).contains(&version)
    }

    /// Whether it reads JSON.
    pub fn reads_json(&self) -> bool {
        self.input.body.iter().any(|body| matches!(body, Content::Json(_)))
    }

    /// Whether it does something; else it is there for an honest error.
    pub fn is_built(&self) -> bool {
        !self.answers.is_empty()
    }
}

/// A route while it is described. Made by [`get`], [`post`], [`put`], [`delete`] and [`head`].
pub struct Endpoint<S> {
    router: MethodRouter<S>,
    route: Route,
}

fn endpoint<H, T, S, A>(filter: MethodFilter, method: &'static str, handler: H, summary: &'static str) -> Endpoint<S>
where
    H: Handler<T, S> + Described<A>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    let mut input = Input::default();
    let mut output = Output::default();
    H::describe(&mut input, &mut output);
    let route = Route {
        method,
        path: "",
        summary,
        group: "",
        since: ApiVersion::MIN,
        until: ApiVersion::MAX,
        unprefixed: false,
        input,
        answers: output.answers,
        errors: Vec::new(),
        deviations: Vec::new(),
        unknown: output.unknown,
        said: false,
    };
    Endpoint { router: on(filter, handler), route }
}

macro_rules! methods {
    ($($function:ident $filter:ident;)*) => {
        $(
            #[doc = concat!("A route for `", stringify!($filter), "`, with what it does in a few words.")]
            pub fn $function<H, T, S, A>(handler: H, summary: &'static str) -> Endpoint<S>
            where
                H: Handler<T, S> + Described<A>,
                T: 'static,
                S: Clone + Send + Sync + 'static,
            {
                endpoint(MethodFilter::$filter, stringify!($filter), handler, summary)
            }
        )*
    };
}

methods! {
    get GET;
    post POST;
    put PUT;
    delete DELETE;
    head HEAD;
}

impl<S> Endpoint<S>
where
    S: Clone + Send + Sync + 'static,
{
    fn answer(mut self, status: u16, content: Content, versions: (ApiVersion, ApiVersion)) -> Self {
        if !self.route.said {
            self = self.not_available();
        }
        self.route.answers.push(Answer { status, content, versions });
        self
    }

    /// Succeeds with JSON.
    #[must_use]
    pub fn answers<B: JsonSchema>(self, status: u16) -> Self {
        self.answer(status, Content::Json(schema_of::<B>), (ApiVersion::MIN, ApiVersion::MAX))
    }

    /// Succeeds with JSON of this form in some versions only.
    #[must_use]
    pub fn answers_in<B: JsonSchema>(self, status: u16, first: u8, last: u8) -> Self {
        self.answer(status, Content::Json(schema_of::<B>), (ApiVersion(first), ApiVersion(last)))
    }

    /// Succeeds without a body.
    #[must_use]
    pub fn empty(self, status: u16) -> Self {
        self.answer(status, Content::Empty, (ApiVersion::MIN, ApiVersion::MAX))
    }

    /// Succeeds with a body of this media type.
    #[must_use]
    pub fn answers_as(self, status: u16, media_type: &'static str) -> Self {
        self.answer(status, Content::Other(media_type), (ApiVersion::MIN, ApiVersion::MAX))
    }

    /// Never succeeds: it is there for an honest error.
    #[must_use]
    pub fn not_available(mut self) -> Self {
        self.route.answers.clear();
        self.route.said = true;
        self
    }

    /// Can answer these, beyond what any route of its kind can.
    #[must_use]
    pub fn errors(mut self, labels: &[Label]) -> Self {
        self.route.errors.extend_from_slice(labels);
        self
    }

    /// Asks another backend, and can answer the federation errors.
    #[must_use]
    pub fn federated(self) -> Self {
        self.errors(&label::FEDERATION)
    }

    /// Can answer this status with a body that is not the usual error.
    #[must_use]
    pub fn deviates<B: JsonSchema>(mut self, status: u16) -> Self {
        self.route.deviations.push((status, schema_of::<B>));
        self
    }

    /// Reads a body of this media type, beside those said before.
    #[must_use]
    pub fn reads(mut self, media_type: &'static str) -> Self {
        self.route.input.body.push(Content::Other(media_type));
        self
    }

    /// Reads JSON of this form, beside what was said before.
    #[must_use]
    pub fn reads_json<B: JsonSchema>(mut self) -> Self {
        self.route.input.body.push(Content::Json(schema_of::<B>));
        self
    }

    /// Reads the cookie and, where there is one, the access token.
    #[must_use]
    pub fn with_cookie(mut self) -> Self {
        self.route.input.cookie = true;
        self
    }

    /// Exists from this version on.
    #[must_use]
    pub fn since(mut self, version: u8) -> Self {
        self.route.since = ApiVersion(version);
        self
    }

    /// Exists up to this version.
    #[must_use]
    pub fn until(mut self, version: u8) -> Self {
        self.route.until = ApiVersion(version);
        self
    }

    /// Clients call it without a version prefix.
    #[must_use]
    pub fn unprefixed(mut self) -> Self {
        self.route.unprefixed = true;
        self
    }

    /// Puts a layer around the handler.
    #[must_use]
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<axum::routing::Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request, Error = std::convert::Infallible> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        self.router = self.router.layer(layer);
        self
    }
}

/// The routes of a service while they are listed.
pub struct Routes<S> {
    router: Router<S>,
    table: Table,
    group: &'static str,
}

impl<S> Default for Routes<S>
where
    S: Clone + Send + Sync + 'static,
{
    fn default() -> Self {
        Self { router: Router::new(), table: Table::default(), group: "" }
    }
}

impl<S> Routes<S>
where
    S: Clone + Send + Sync + 'static,
{
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the part of the API that the routes after this one belong to.
    #[must_use]
    pub fn group(mut self, name: &'static str) -> Self {
        self.group = name;
        self
    }

    /// Adds one. In versions that do not have it, it answers 404 `no-endpoint`.
    #[must_use]
    pub fn route(mut self, path: &'static str, endpoint: Endpoint<S>) -> Self {
        let Endpoint { mut router, mut route } = endpoint;
        route.path = path;
        route.group = self.group;
        if route.since > ApiVersion::MIN || route.until < ApiVersion::MAX {
            let versions = (route.since, route.until);
            router = router.layer(from_fn(move |version, request, next| in_versions(versions, version, request, next)));
        }
        self.router = self.router.route(path, router);
        self.table.0.push(route);
        self
    }

    /// Adds an answer for whatever lies below a path; it is not part of the description.
    #[must_use]
    pub fn below(mut self, path: &'static str, router: MethodRouter<S>) -> Self {
        self.router = self.router.route(path, router);
        self
    }

    /// The router, and the table that describes it.
    pub fn split(self) -> (Router<S>, Table) {
        (self.router, self.table)
    }
}

async fn in_versions(
    (since, until): (ApiVersion, ApiVersion),
    version: ApiVersion,
    request: Request,
    next: Next,
) -> Response {
    if (since..=until).contains(&version) { next.run(request).await } else { label::NO_ENDPOINT.into_response() }
}

/// Described routes.
#[derive(Debug, Clone, Default)]
pub struct Table(Vec<Route>);

impl Table {
    /// Adds the routes of another service.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Every route, in the order in which they were listed.
    pub fn rows(&self) -> &[Route] {
        &self.0
    }

    /// The routes whose answers neither the table nor the handler shows, as `METHOD /path`.
    pub fn undescribed(&self) -> Vec<String> {
        let unknown = self.0.iter().filter(|route| route.unknown && !route.said);
        unknown.map(|route| format!("{} {}", route.method, route.path)).collect()
    }
}
