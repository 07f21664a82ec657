//! Templates (contract 11): an account's own and the built-in ones.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::{Body, OK, OkView};
use crate::http::error::{ApiError, Code};
use crate::http::extract::Path;
use crate::id::TemplateId;
use crate::limits::Kind;
use crate::outbound::message::template::{BUILT_IN, BuiltIn, find_built_in};
use crate::store::sending::templates;
use crate::store::sending::templates::{TemplateContent, TemplateRow};

const MAX_NAME_CHARS: usize = 200;
const MAX_SUBJECT_CHARS: usize = 998;
/// Creation time of built-in templates.
const BASE_TIME: Timestamp = Timestamp::from_millis(0);

/// A template without its bodies.
#[derive(Serialize, ToSchema)]
pub(crate) struct MetaView {
    #[schema(example = "tpl_5TgB6yHn7UjM8iKo")]
    id: String,
    #[schema(example = "Welcome")]
    name: String,
    category: Option<String>,
    #[schema(example = "Hi {{name}}")]
    subject: Option<String>,
    is_base: bool,
    updated_at: Timestamp,
}

/// A template.
#[derive(Serialize, ToSchema)]
pub(crate) struct FullView {
    #[serde(flatten)]
    meta: MetaView,
    html: Option<String>,
    text: Option<String>,
    /// Data of an editor, returned unchanged.
    json: Option<String>,
    /// Data of an editor, returned unchanged.
    theme: Option<String>,
    /// Null for a built-in template.
    user_id: Option<String>,
    created_at: Timestamp,
}

/// `POST /api/templates` and `PUT /api/templates/:id`
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TemplateFields {
    /// Template to copy; only on creation.
    base_id: Option<String>,
    /// 1 to 200 characters; required without `baseId`.
    name: Option<String>,
    subject: Option<String>,
    html: Option<String>,
    text: Option<String>,
    json: Option<String>,
    theme: Option<String>,
    /// Only on update.
    category: Option<String>,
}

impl From<&TemplateRow> for MetaView {
    fn from(row: &TemplateRow) -> Self {
        Self {
            id: row.public_id.to_string(),
            name: row.content.name.clone(),
            category: row.content.category.clone(),
            subject: row.content.subject.clone(),
            is_base: false,
            updated_at: row.updated_at,
        }
    }
}

impl From<&BuiltIn> for MetaView {
    fn from(base: &BuiltIn) -> Self {
        Self {
            id: base.id.to_owned(),
            name: base.name.to_owned(),
            category: Some(base.category.to_owned()),
            subject: Some(base.subject.to_owned()),
            is_base: true,
            updated_at: BASE_TIME,
        }
    }
}

impl FullView {
    fn from_row(row: TemplateRow, caller: &Caller) -> Self {
        Self {
            meta: MetaView::from(&row),
            html: row.content.html,
            text: row.content.text,
            json: row.content.json,
            theme: row.content.theme,
            user_id: Some(caller.account.public_id.to_string()),
            created_at: row.created_at,
        }
    }

    fn from_built_in(base: &BuiltIn) -> Self {
        Self {
            meta: MetaView::from(base),
            html: Some(base.html.to_owned()),
            text: Some(base.text.to_owned()),
            json: None,
            theme: None,
            user_id: None,
            created_at: BASE_TIME,
        }
    }
}

/// `GET /api/templates`
pub(crate) async fn list(State(app): State<AppState>, caller: Caller) -> Result<Json<Vec<MetaView>>, ApiError> {
    let rows = app.db.read(move |connection| templates::list(connection, caller.id())).await?;
    Ok(Json(rows.iter().map(Into::into).collect()))
}

/// `GET /api/templates/base`
pub(crate) async fn list_base() -> Json<Vec<MetaView>> {
    Json(BUILT_IN.iter().map(Into::into).collect())
}

/// `GET /api/templates/:id`
pub(crate) async fn detail(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<FullView>, ApiError> {
    if let Some(base) = find_built_in(&id) {
        return Ok(Json(FullView::from_built_in(base)));
    }
    let row = find(&app, &caller, &id).await?;
    Ok(Json(FullView::from_row(row, &caller)))
}

async fn find(app: &AppState, caller: &Caller, id: &str) -> Result<TemplateRow, ApiError> {
    let (account, id) = (caller.id(), TemplateId::parse(id).ok_or_else(ApiError::not_found)?);
    let found = app.db.read(move |connection| templates::find(connection, account, &id)).await?;
    found.ok_or_else(ApiError::not_found)
}

/// Looks up the template of a path.
///
/// # Errors
/// 404.
pub(crate) async fn exists(app: AppState, caller: Caller, id: String) -> Result<(), ApiError> {
    find(&app, &caller, &id).await.map(drop)
}

/// `POST /api/templates`
pub(crate) async fn create(
    State(app): State<AppState>,
    caller: Caller,
    body: Body,
) -> Result<(StatusCode, Json<FullView>), ApiError> {
    let fields = TemplateFields { category: None, ..body.fields()? }.without_empty();
    let base = match fields.base_id.as_deref() {
        None => None,
        Some(id) => Some(base_content(&app, &caller, id).await?),
    };
    if base.is_none() && fields.name.is_none() {
        return Err(ApiError::field(Code::BadRequest, "name", "name is required"));
    }
    let content = fields.merged_over(base.unwrap_or_default())?;
    let (account, now) = (caller.id(), app.clock.now());
    let limits = Arc::clone(&app.account_limits);
    let added = app.db.write(move |tx| {
        limits.admit(tx, account, Kind::Templates)?;
        limits.admit_bytes(tx, account, content.len() as u64)?;
        templates::insert(tx, account, content, now)
    });
    let row = added.await?;
    Ok((StatusCode::CREATED, Json(FullView::from_row(row, &caller))))
}

/// Finds the content that a new template is copied from.
async fn base_content(app: &AppState, caller: &Caller, id: &str) -> Result<TemplateContent, ApiError> {
    if let Some(base) = find_built_in(id) {
        return Ok(TemplateContent {
            name: base.name.to_owned(),
            category: Some(base.category.to_owned()),
            subject: Some(base.subject.to_owned()),
            html: Some(base.html.to_owned()),
            text: Some(base.text.to_owned()),
            json: None,
            theme: None,
        });
    }
    let found = find(app, caller, id).await.map(|row| row.content);
    found.map_err(|error| match error.code() {
        Code::NotFound => ApiError::at(Code::TemplateNotFound, "baseId"),
        _ => error,
    })
}

impl TemplateFields {
    /// Drops empty fields. On update they are kept, and empty the stored field.
    fn without_empty(self) -> Self {
        let given = |field: Option<String>| field.filter(|text| !text.is_empty());
        Self {
            base_id: given(self.base_id),
            name: given(self.name),
            subject: given(self.subject),
            html: given(self.html),
            text: given(self.text),
            json: given(self.json),
            theme: given(self.theme),
            category: given(self.category),
        }
    }

    /// Merges these fields over existing content.
    fn merged_over(self, content: TemplateContent) -> Result<TemplateContent, ApiError> {
        let content = TemplateContent {
            name: self.name.filter(|name| !name.is_empty()).map_or(content.name, |name| name.trim().to_owned()),
            category: self.category.or(content.category),
            subject: self.subject.or(content.subject),
            html: self.html.or(content.html),
            text: self.text.or(content.text),
            json: self.json.or(content.json),
            theme: self.theme.or(content.theme),
        };
        let bad = |field, message: &'static str| Err(ApiError::field(Code::BadRequest, field, message));
        if !(1..=MAX_NAME_CHARS).contains(&content.name.chars().count()) || content.name.chars().any(char::is_control)
        {
            return bad("name", "a name has 1 to 200 characters");
        }
        if content.subject.as_ref().is_some_and(|subject| subject.chars().count() > MAX_SUBJECT_CHARS) {
            return bad("subject", "a subject has at most 998 characters");
        }
        if content.category.as_ref().is_some_and(|category| category.chars().count() > MAX_NAME_CHARS) {
            return bad("category", "a category has at most 200 characters");
        }
        Ok(content)
    }
}

/// `PUT /api/templates/:id`
pub(crate) async fn update(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<FullView>, ApiError> {
    let row = find(&app, &caller, &id).await?;
    let fields: TemplateFields = body.fields()?;
    let old_len = row.content.len();
    let content = fields.merged_over(row.content)?;
    let (account, now) = (caller.id(), app.clock.now());
    let limits = Arc::clone(&app.account_limits);
    let updated = app.db.write(move |tx| {
        // Shrinking is always allowed.
        if content.len() > old_len {
            limits.admit_bytes(tx, account, content.len().saturating_sub(old_len) as u64)?;
        }
        templates::update(tx, account, &row.public_id, &content, now)
    });
    let updated = updated.await?;
    Ok(Json(FullView::from_row(updated.ok_or_else(ApiError::not_found)?, &caller)))
}

/// `DELETE /api/templates/:id`
pub(crate) async fn delete(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OkView>, ApiError> {
    let row = find(&app, &caller, &id).await?;
    app.db.write_removal(move |tx| templates::delete(tx, caller.id(), &row.public_id)).await?;
    Ok(OK)
}
