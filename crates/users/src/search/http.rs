//! `/search/contacts`.

use aldis_api::{HttpError, Json, Query, UserCaller, label};
use aldis_types::{AccentId, Domain, Handle, Name, Profile, Qualified, SearchPolicy, TeamId, UserId};
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::App;

const DEFAULT_SIZE: usize = 15;
const MAX_SIZE: usize = 500;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct SearchQuery {
    q: String,
    domain: Option<Domain>,
    #[schemars(range(min = 1, max = 500))]
    size: Option<usize>,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct SearchResult {
    found: usize,
    returned: usize,
    took: u64,
    search_policy: SearchPolicy,
    documents: Vec<Contact>,
}

/// A user who was found.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Contact {
    qualified_id: Qualified<UserId>,
    id: UserId,
    name: Name,
    accent_id: AccentId,
    handle: Option<Handle>,
    team: Option<TeamId>,
    #[serde(rename = "type")]
    kind: &'static str,
}

fn document(profile: Profile) -> Contact {
    Contact {
        id: profile.id.id,
        qualified_id: profile.id,
        name: profile.name,
        accent_id: profile.accent_id,
        handle: profile.handle,
        team: profile.team,
        kind: "regular",
    }
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
    let documents: Vec<_> = found.profiles.into_iter().map(document).collect();
    Ok(Json(SearchResult {
        found: documents.len(),
        returned: documents.len(),
        took: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        search_policy: found.policy,
        documents,
    }))
}
