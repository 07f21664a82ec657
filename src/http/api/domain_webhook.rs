//! The webhook of a domain for all its addresses (contract 3.6, 4.2).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::account::{RotatedSecret, Secret};
use super::deliveries::AnswerView;
use super::domains::{DomainView, find_own_domain, view};
use super::route_fields::{ack_mode, webhook_url};
use super::routes::{remove, rotate};
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::{Body, Lenient, OK, OkView};
use crate::http::error::{ApiError, Code};
use crate::http::extract::Path;
use crate::id::RouteId;
use crate::limits::Kind;
use crate::secrets;
use crate::store;
use crate::store::accounts::domains;
use crate::store::accounts::domains::DomainRow;
use crate::store::webhooks::former_webhooks;
use crate::store::webhooks::routes;
use crate::store::webhooks::routes::{Action, Change, NewRoute, RouteRow, SECRET_PURPOSE};

/// `PUT /api/domains/:id/webhook`
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebhookFields {
    /// An https URL.
    #[serde(default)]
    #[schema(value_type = String, example = "https://app.acme.dev/hook")]
    url: Lenient<String>,
    /// `lenient` (default), `ack` or `control`.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "lenient")]
    ack_mode: Lenient<String>,
}

/// A domain's webhook.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebhookView {
    domain: DomainView,
    #[schema(example = "https://app.acme.dev/hook")]
    webhook_url: String,
    #[schema(example = "lenient")]
    ack_mode: &'static str,
    #[schema(example = "rte_9c31aB7KmPq2XwZe")]
    route_id: String,
    #[schema(example = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")]
    signing_secret: String,
}

/// `PUT /api/domains/:id/webhook`: keeps the route id and the secret.
pub(crate) async fn put(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<WebhookView>, ApiError> {
    let domain = find_own_domain(&app, &caller, &id).await?;
    let fields: WebhookFields = body.fields()?;
    let url = webhook_url(&app, fields.url, "url")?;
    let mode = ack_mode(fields.ack_mode)?.unwrap_or_default();
    if !domain.verified {
        return Err(Code::DomainNotVerified.into());
    }
    let (now, row_id) = (app.clock.now(), domain.id);
    let new_secret = app.secrets.seal(SECRET_PURPOSE, secrets::new_webhook_secret().as_bytes());
    let set_url = url.clone();
    let limits = Arc::clone(&app.account_limits);
    let route = app.db.write(move |tx| {
        if domains::find(tx, &domain.public_id)?.is_none() {
            return Ok(None);
        }
        let match_pattern = format!("*@{}", domain.name);
        let existing = match routes::find_domain_webhook(tx, domain.id)? {
            Some(route) => Some(route),
            // Contract 4.2: the first PUT adopts an existing route that does the same.
            None => routes::find_same(tx, domain.account_id, &match_pattern, Action::Webhook, Some(&set_url))?,
        };
        let id = match existing {
            Some(route) => {
                let change = Change {
                    domain_id: Some(domain.id),
                    match_pattern,
                    destination: Some(set_url),
                    ack_mode: Some(mode),
                    active: true,
                    is_domain_webhook: true,
                };
                routes::update(tx, &route.public_id, &change, now)?;
                route.public_id
            }
            None => {
                limits.admit(tx, domain.account_id, Kind::Routes)?;
                let new = NewRoute {
                    account_id: domain.account_id,
                    domain_id: Some(domain.id),
                    match_pattern,
                    action: Action::Webhook,
                    destination: Some(set_url),
                    ack_mode: Some(mode),
                    is_domain_webhook: true,
                    secret_sealed: Some(new_secret),
                };
                // A webhook set again gets its former id, so that its earlier deliveries still belong to it.
                let id = former_webhooks::take(tx, domain.id)?.unwrap_or_else(|| RouteId::new(now));
                routes::insert_as(tx, id, &new, now)?
            }
        };
        routes::find(tx, &id)
    });
    let route = route.await?.ok_or_else(ApiError::not_found)?;
    Ok(Json(WebhookView {
        domain: view(&app, &caller, row_id).await?,
        webhook_url: url,
        ack_mode: mode.as_str(),
        route_id: route.public_id.to_string(),
        signing_secret: open_secret(&app, &route)?,
    }))
}

fn open_secret(app: &AppState, route: &RouteRow) -> Result<String, ApiError> {
    let opened = route.secret_sealed.as_deref().map(|sealed| app.secrets.open_text(SECRET_PURPOSE, sealed));
    match opened {
        Some(Ok(secret)) => Ok(secret),
        Some(Err(_)) | None => Err(store::Error::Corrupt("signing secret").into()),
    }
}

async fn find(app: &AppState, domain: &DomainRow) -> Result<Option<RouteRow>, ApiError> {
    let id = domain.id;
    Ok(app.db.read(move |connection| routes::find_domain_webhook(connection, id)).await?)
}

/// `DELETE /api/domains/:id/webhook`
pub(crate) async fn delete(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OkView>, ApiError> {
    let domain = find_own_domain(&app, &caller, &id).await?;
    if let Some(route) = find(&app, &domain).await? {
        remove(&app, route.public_id).await?;
    }
    Ok(OK)
}

/// `GET /api/domains/:id/webhook/secret`
pub(crate) async fn secret(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Secret>, ApiError> {
    let domain = find_own_domain(&app, &caller, &id).await?;
    let route = find(&app, &domain).await?.ok_or(Code::NoWebhook)?;
    Ok(Json(Secret { secret: open_secret(&app, &route)? }))
}

/// `POST /api/domains/:id/webhook/secret/rotate`: for a day both secrets sign.
pub(crate) async fn rotate_secret(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RotatedSecret>, ApiError> {
    let domain = find_own_domain(&app, &caller, &id).await?;
    let route = find(&app, &domain).await?.ok_or(Code::NoWebhook)?;
    rotate(&app, route.public_id).await.map(Json)
}

/// `POST /api/domains/:id/webhook/test`
pub(crate) async fn test(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<AnswerView>, ApiError> {
    let domain = find_own_domain(&app, &caller, &id).await?;
    let route = find(&app, &domain).await?.ok_or(Code::NoWebhookToTest)?;
    Ok(Json(app.webhooks.test_webhook(&route, &domain.name, app.clock.now()).await?.into()))
}
