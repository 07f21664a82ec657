//! Endpoints for compatibility, with constant answers (contract 12).

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::error::{ApiError, Code};
use crate::http::extract::Query;

/// `GET /api/domains/register/check`
#[derive(Deserialize, IntoParams)]
pub(crate) struct RegisterQuery {
    /// Name of the domain.
    #[param(required = true)]
    domain: Option<String>,
}

/// This server sells no domains.
#[derive(Serialize, ToSchema)]
pub(crate) struct RegisterView {
    configured: bool,
    #[schema(example = "acme.dev")]
    domain: String,
    available: bool,
}

/// `GET /api/domains/register/check`
pub(crate) async fn register_check(Query(query): Query<RegisterQuery>) -> Result<Json<RegisterView>, ApiError> {
    let domain = query.domain.filter(|domain| !domain.is_empty());
    let domain = domain.ok_or_else(|| ApiError::field(Code::BadRequest, "domain", "domain is required"))?;
    Ok(Json(RegisterView { configured: false, domain, available: false }))
}

/// A search of the documentation.
#[derive(Deserialize, IntoParams)]
pub(crate) struct DocsQuery {
    /// Search text.
    #[serde(default)]
    query: String,
}

/// This server has no searchable documentation.
#[derive(Serialize, ToSchema)]
pub(crate) struct DocsView {
    query: String,
    matches: Vec<String>,
}

/// `GET /v1/docs/search`
pub(crate) async fn docs_search(Query(query): Query<DocsQuery>) -> Json<DocsView> {
    Json(DocsView { query: query.query, matches: Vec::new() })
}
