//! What handlers say about themselves by their types.

use axum::{
    extract::{ConnectInfo, Extension, State},
    response::{Html, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, request::Parts};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::{Answer, Content, SchemaOf, schema_of};
use crate::{ApiVersion, HttpError, Json, Label, Path, Query, UserCaller};

/// What a route reads.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// An access token is needed (`Some(true)`) or looked at.
    pub token: Option<bool>,
    /// The cookie is read.
    pub cookie: bool,
    /// The parameters in the path.
    pub path: Option<SchemaOf>,
    /// The parameters in the query.
    pub query: Option<SchemaOf>,
    /// The body, in any of these forms.
    pub body: Vec<Content>,
    /// The body may be left out.
    pub body_is_optional: bool,
}

/// How a route succeeds, as far as its handler's type shows it.
#[derive(Debug, Default)]
pub struct Output {
    pub(super) answers: Vec<Answer>,
    pub(super) unknown: bool,
}

impl Output {
    fn add(&mut self, status: u16, content: Content) {
        self.answers.push(Answer { status, content, versions: (ApiVersion::MIN, ApiVersion::MAX) });
    }
}

/// A handler that describes itself; `A` are its arguments.
pub trait Described<A> {
    /// Notes what it reads and answers.
    fn describe(input: &mut Input, output: &mut Output);
}

/// An argument of a handler. The default notes nothing.
pub trait Extracts {
    /// Notes what it reads.
    fn extracts(_: &mut Input) {}
}

/// What a handler gives back.
pub trait Gives {
    /// Notes how it succeeds.
    fn gives(output: &mut Output);
}

macro_rules! described {
    ($($argument:ident)*) => {
        impl<F, Fut, $($argument),*> Described<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> Fut,
            Fut: Future,
            Fut::Output: Gives,
            $($argument: Extracts),*
        {
            fn describe(_input: &mut Input, output: &mut Output) {
                $($argument::extracts(_input);)*
                <Fut::Output as Gives>::gives(output);
            }
        }
    };
}

described!();
described!(A1);
described!(A1 A2);
described!(A1 A2 A3);
described!(A1 A2 A3 A4);
described!(A1 A2 A3 A4 A5);
described!(A1 A2 A3 A4 A5 A6);
described!(A1 A2 A3 A4 A5 A6 A7);

impl<T> Extracts for State<T> {}
impl<T> Extracts for Extension<T> {}
impl<T> Extracts for ConnectInfo<T> {}
impl Extracts for ApiVersion {}
impl Extracts for HeaderMap {}
impl Extracts for Method {}
impl Extracts for Uri {}
impl Extracts for Parts {}
impl Extracts for axum::extract::Request {}

impl Extracts for UserCaller {
    fn extracts(input: &mut Input) {
        input.token = Some(true);
    }
}

impl Extracts for Option<UserCaller> {
    fn extracts(input: &mut Input) {
        input.token = input.token.or(Some(false));
    }
}

impl<T: JsonSchema> Extracts for Json<T> {
    fn extracts(input: &mut Input) {
        input.body = vec![Content::Json(schema_of::<T>)];
    }
}

impl<T: JsonSchema> Extracts for Option<Json<T>> {
    fn extracts(input: &mut Input) {
        input.body = vec![Content::Json(schema_of::<T>)];
        input.body_is_optional = true;
    }
}

/// What is in them has to be said in the table.
impl Extracts for Bytes {}

/// The schema of `T` itself, so that its parts can be told apart.
fn schema_in_full<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

impl<T: JsonSchema> Extracts for Path<T> {
    fn extracts(input: &mut Input) {
        input.path = Some(schema_in_full::<T>);
    }
}

impl<T: JsonSchema> Extracts for Query<T> {
    fn extracts(input: &mut Input) {
        input.query = Some(schema_in_full::<T>);
    }
}

impl<T: JsonSchema + 'static> Gives for Json<T> {
    fn gives(output: &mut Output) {
        // JSON of any form says nothing.
        if std::any::TypeId::of::<T>() == std::any::TypeId::of::<Value>() {
            output.unknown = true;
        } else {
            output.add(200, Content::Json(schema_of::<T>));
        }
    }
}

impl Gives for StatusCode {
    fn gives(output: &mut Output) {
        output.add(200, Content::Empty);
    }
}

impl<T> Gives for Html<T> {
    fn gives(output: &mut Output) {
        output.add(200, Content::Other("text/html"));
    }
}

impl Gives for Response {
    fn gives(output: &mut Output) {
        output.unknown = true;
    }
}

/// Only ever fails.
impl Gives for HttpError {
    fn gives(_: &mut Output) {}
}

/// Only ever fails.
impl Gives for Label {
    fn gives(_: &mut Output) {}
}

/// Headers, and what comes with them.
impl<const N: usize, T: Gives> Gives for ([(HeaderName, HeaderValue); N], T) {
    fn gives(output: &mut Output) {
        T::gives(output);
    }
}

impl<T: Gives, E> Gives for Result<T, E> {
    fn gives(output: &mut Output) {
        T::gives(output);
    }
}
