//! `/search/contacts`.

use aldis_api::{HttpError, Json, Query, UserCaller, label};
use aldis_types::{Domain, Profile, SearchPolicy};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::app::App;

const DEFAULT_SIZE: usize = 15;
const MAX_SIZE: usize = 500;

#[derive(Deserialize)]
pub(crate) struct SearchQuery {
    q: String,
    domain: Option<Domain>,
    size: Option<usize>,
}

#[derive(Serialize)]
pub(crate) struct SearchResult {
    found: usize,
    returned: usize,
    took: u64,
    search_policy: SearchPolicy,
    documents: Vec<Value>,
}

fn document(profile: &Profile) -> Value {
    json!({
        "qualified_id": profile.id,
        "id": profile.id.id,
        "name": profile.name,
        "accent_id": profile.accent_id,
        "handle": profile.handle,
        "team": profile.team,
        "type": "regular",
    })
}

/// `GET /search/contacts?q&domain&size`: 403 `insufficient-permissions` for accounts that are not activated; the
/// federation errors when the other backend cannot be asked.
#[tracing::instrument(name = "http.search.contacts", skip_all, fields(user.domain))]
pub(crate) async fn contacts(
    State(app): State<App>,
    caller: UserCaller,
    Query(query): Query<SearchQuery>,
) -> Result<Json<SearchResult>, HttpError> {
    let size = query.size.unwrap_or(DEFAULT_SIZE);
    if !(1..=MAX_SIZE).contains(&size) {
        return Err(HttpError::with_message(label::BAD_REQUEST, "The size is 1 to 500"));
    }
    let domain = query.domain.as_ref().unwrap_or(&app.domain);
    tracing::Span::current().record("user.domain", domain.as_str());
    let begun = std::time::Instant::now();
    let found = app.search.search(caller.user, &query.q, domain, size).await?;
    let documents: Vec<_> = found.profiles.iter().map(document).collect();
    Ok(Json(SearchResult {
        found: documents.len(),
        returned: documents.len(),
        took: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        search_policy: found.policy,
        documents,
    }))
}
