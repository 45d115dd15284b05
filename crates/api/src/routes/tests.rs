//! The kit on routes made up for the purpose.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use axum::{
    body::Body,
    extract::{ConnectInfo, FromRef, State},
};
use http::{Method, Request, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::{
    HttpError, Json, Path, Query, TokenVerifier, UserCaller,
    serve::{ClientConfig, Front},
};

#[derive(Clone)]
struct App(TokenVerifier);

impl FromRef<App> for TokenVerifier {
    fn from_ref(app: &App) -> Self {
        app.0.clone()
    }
}

/// A thing.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Thing {
    name: String,
    #[serde(default)]
    size: u16,
    note: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
struct Filter {
    from: u8,
    /// How many.
    limit: Option<u8>,
}

async fn list(State(_): State<App>, Query(filter): Query<Filter>) -> Json<Vec<Thing>> {
    let count = filter.limit.unwrap_or(1).saturating_sub(filter.from);
    Json((0..count).map(|size| Thing { name: "thing".to_owned(), size: size.into(), note: None }).collect())
}

async fn add(_: UserCaller, Json(thing): Json<Thing>) -> Result<Json<Thing>, HttpError> {
    Ok(Json(thing))
}

async fn change(Path((kind, id)): Path<(String, u8)>, body: Option<Json<Thing>>) -> Json<Option<String>> {
    Json(body.map(|Json(thing)| format!("{kind} {id} {}", thing.name)))
}

async fn either() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

async fn never() -> HttpError {
    label::NOT_IMPLEMENTED.into()
}

fn routes() -> Routes<App> {
    Routes::new()
        .group("Things")
        .route("/things", get(list, "All things"))
        .route("/things", post(add, "Adds a thing").errors(&[label::HANDLE_EXISTS, label::KEY_EXISTS]))
        .route("/things/{kind}/{id}", put(change, "Changes a thing").since(10).until(11))
        .route("/either", get(either, "One of two").answers::<Thing>(200).empty(204).deviates::<Thing>(409))
        .route("/shapes", get(either, "Two shapes").answers_in::<Thing>(200, 8, 9).answers_in::<String>(200, 10, 13))
        .route("/never", get(never, "Nothing yet").errors(&[label::NOT_IMPLEMENTED]))
        .route("/silent", get(either, "Does not say"))
}

fn front() -> Front {
    let (router, table) = routes().split();
    let router = router.with_state(App(TokenVerifier::new()));
    let mut config = ClientConfig::default();
    config.throttle.enabled = false;
    Front::new(router, Arc::new(Description::new(table)), config, TokenVerifier::new()).unwrap()
}

async fn send(method: Method, path: &str, body: &str) -> (u16, BTreeMap<String, String>, String) {
    let mut request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([203, 0, 113, 9], 4000))));
    let response = front().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let text =
        |(name, value): (&http::HeaderName, &http::HeaderValue)| (name.to_string(), value.to_str().unwrap().to_owned());
    let headers = response.headers().iter().map(text).collect();
    let body = axum::body::to_bytes(response.into_body(), 1 << 23).await.unwrap();
    (status, headers, String::from_utf8(body.to_vec()).unwrap())
}

fn label_of(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap();
    body["label"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_route_exists_in_its_versions_only() {
    for version in 8..=13 {
        let (status, _, body) = send(Method::PUT, &format!("/v{version}/things/a/1"), "").await;
        if (10..=11).contains(&version) {
            assert_eq!((status, body.as_str()), (200, "null"), "v{version}");
        } else {
            assert_eq!((status, label_of(&body).as_str()), (404, "no-endpoint"), "v{version}");
        }
    }
    // Without a prefix a request is of the lowest version.
    assert_eq!(send(Method::PUT, "/things/a/1", "").await.0, 404);
    for version in ["0", "7", "14", "255", "99999"] {
        let (status, _, body) = send(Method::PUT, &format!("/v{version}/things/a/1"), "").await;
        assert_eq!((status, label_of(&body).as_str()), (404, "unsupported-version"), "v{version}");
    }
}

#[tokio::test]
async fn a_body_may_be_left_out_where_the_handler_says_so() {
    let body = r#"{"name":"x"}"#;
    assert_eq!(send(Method::PUT, "/v10/things/a/1", body).await.2, r#""a 1 x""#);
    let (status, _, body) = send(Method::PUT, "/v10/things/a/1", "{").await;
    assert_eq!((status, label_of(&body).as_str()), (400, "bad-request"));
}

#[test]
fn the_table_tells_what_is_not_described() {
    let (_, table) = routes().split();
    assert_eq!(table.undescribed(), ["GET /silent"]);
    let built: Vec<bool> = table.rows().iter().map(Route::is_built).collect();
    assert_eq!(built, [true, true, true, true, true, false, false]);
}

#[test]
fn descriptions_are_read_off_handlers_and_table() {
    let (_, table) = routes().split();
    let document = Description::new(table).openapi(ApiVersion(10));
    let things = &document["paths"]["/things"];

    let query = &things["get"]["parameters"];
    assert_eq!(query[0]["name"], "from");
    assert_eq!(query[0]["required"], true);
    assert_eq!((&query[1]["description"], &query[1]["required"]), (&json!("How many."), &json!(false)));
    assert_eq!(query[1]["schema"]["type"], "integer");
    assert_eq!(things["get"]["security"], json!([]));
    let listed = &things["get"]["responses"]["200"]["content"]["application/json"]["schema"];
    assert_eq!(listed["items"]["$ref"], "#/components/schemas/Thing");

    // A field with a default may be left out of a request and is always in an answer.
    let schemas = &document["components"]["schemas"];
    let read = &things["post"]["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(read["$ref"], "#/components/schemas/ThingInput");
    assert_eq!(schemas["ThingInput"]["required"], json!(["name"]));
    assert_eq!(schemas["Thing"]["required"], json!(["name", "size", "note"]));
    assert_eq!(things["post"]["security"], json!([{ "token": [] }]));
    let conflict = &things["post"]["responses"]["409"];
    assert_eq!(conflict["description"], "handle-exists, key-exists");
    let own = &conflict["content"]["application/json"]["schema"]["allOf"][1]["properties"];
    assert_eq!(own["label"]["enum"], json!(["handle-exists", "key-exists"]));
    for status in ["200", "400", "401", "408", "413", "415", "420", "500", "503"] {
        assert!(things["post"]["responses"][status].is_object(), "{status}");
    }

    let change = &document["paths"]["/things/{kind}/{id}"]["put"];
    assert_eq!(change["parameters"][1]["name"], "id");
    assert_eq!(change["parameters"][1]["schema"]["maximum"], 255);
    assert_eq!(change["requestBody"]["required"], false);

    let either = &document["paths"]["/either"]["get"]["responses"];
    assert!(either["200"]["content"].is_object() && either["204"]["content"].is_null());
    assert_eq!(either["409"]["content"]["application/json"]["schema"]["$ref"], "#/components/schemas/Thing");
    assert!(document["paths"]["/never"]["get"]["responses"]["200"].is_null());
}

#[test]
fn each_version_has_its_own_routes_and_shapes() {
    let (_, table) = routes().split();
    let description = Description::new(table);
    let shape = |version: u8| {
        let document = description.openapi(ApiVersion(version));
        let schema =
            document["paths"]["/shapes"]["get"]["responses"]["200"]["content"]["application/json"]["schema"].clone();
        (document["paths"]["/things/{kind}/{id}"].is_object(), schema)
    };
    assert_eq!(shape(9), (false, json!({ "$ref": "#/components/schemas/Thing" })));
    assert_eq!(shape(10), (true, json!({ "type": "string" })));
    assert_eq!(shape(12), (false, json!({ "type": "string" })));
}

#[tokio::test]
async fn the_description_is_served_for_each_version() {
    for (path, version) in
        [("/api/openapi.json", "v13"), ("/v8/api/openapi.json", "v8"), ("/v13/api/openapi.json", "v13")]
    {
        let (status, headers, body) = send(Method::GET, path, "").await;
        let document: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, 200);
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(document["info"]["version"], version);
        assert_eq!(document["servers"][0]["url"], format!("/{version}"));
        assert!(document["paths"]["/api/openapi.json"].is_object());
    }
}

#[tokio::test]
async fn the_viewer_asks_nobody_else() {
    let (status, headers, page) = send(Method::GET, "/api", "").await;
    assert_eq!(status, 200);
    let policy = &headers["content-security-policy"];
    assert!(policy.starts_with("default-src 'none'") && policy.contains("script-src 'self'"), "{policy}");
    assert!(!page.contains("://"), "{page}");
    let mut parts = 0;
    for name in page.split('"').filter(|text| text.starts_with('/')) {
        let (status, headers, body) = send(Method::GET, name, "").await;
        assert_eq!(status, 200, "{name}");
        assert!(!body.is_empty());
        assert!(["text/css", "text/javascript"].contains(&headers["content-type"].as_str()), "{name}");
        parts += 1;
    }
    assert_eq!(parts, 3);
    assert_eq!(send(Method::GET, "/api/viewer/other.js", "").await.0, 404);
}
