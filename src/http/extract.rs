//! Extractors for the path and query of a request, with errors in the form of the contract.

use axum::extract::{FromRequestParts, Path as AxumPath};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::AppState;
use super::error::{ApiError, Code};

/// Segments of the path, percent-decoded one by one; what cannot be decoded is no id of anything: 404.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        let found = AxumPath::<T>::from_request_parts(parts, app).await;
        found.map(|AxumPath(value)| Self(value)).map_err(|_| ApiError::not_found())
    }
}

/// Query parameters as text, the first of each name; unknown ones are ignored, empty ones count as absent (contract
/// 1.1).
pub(crate) struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let mut fields = Map::new();
        let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        for (name, value) in pairs.filter(|(_, value)| !value.is_empty()) {
            fields.entry(name.into_owned()).or_insert_with(|| Value::String(value.into_owned()));
        }
        serde_json::from_value(Value::Object(fields)).map(Self).map_err(|_| Code::BadQuery.into())
    }
}

/// A query parameter that is an integer; empty counts as absent.
///
/// # Errors
/// 400 `bad_query` that names it.
pub(crate) fn integer(name: &'static str, text: Option<&str>) -> Result<Option<i64>, ApiError> {
    let parse = |text: &str| {
        text.parse().map_err(|_| ApiError::field(Code::BadQuery, name, format!("{name} must be an integer")))
    };
    text.filter(|text| !text.is_empty()).map(parse).transpose()
}
