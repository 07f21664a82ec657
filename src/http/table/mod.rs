//! The endpoint table: every path, method and credential class of the API, one file per group of chapters. It uses the
//! handlers in `api` and the sibling files; nothing but `http` itself and `openapi`'s tests uses it.
//!
//! A new endpoint is a row here; a new property of rows belongs to `endpoint`, and its enforcement to `authorize`.

mod account;
mod domains;
mod messages;
mod sending;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};

use super::AppState;
use super::api::{overview, server, unsupported};
use super::endpoint::Class::{Account, Public};
use super::endpoint::{Endpoint, FILES, Header};
use super::error::Code;
use super::{dashboard, files, metrics, openapi, pages, service};

/// Returns every endpoint.
pub fn table() -> Vec<Endpoint> {
    [
        service(),
        account::sign_in(),
        account::account(),
        domains::domains(),
        domains::domain_settings(),
        domains::forwards(),
        domains::routes(),
        messages::messages(),
        messages::deliveries(),
        messages::realtime(),
        sending::uploads(),
        sending::sending(),
        sending::recipients_lists(),
        sending::templates(),
        stubs(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// `GET /api/openapi.json`
async fn openapi_document(State(app): State<AppState>) -> Response {
    let document = async {
        let document = openapi::document(&table(), &app.config.public_url);
        Bytes::from(serde_json::to_vec(&document).unwrap_or_default())
    };
    let document = app.openapi.get_or_init(|| document).await.clone();
    ([(CONTENT_TYPE, "application/json")], document).into_response()
}

const RANGE: Header =
    Header { name: "Range", about: "One byte range; several ranges get the whole file.", example: "bytes=0-1023" };

fn service() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/", dashboard::index).auth(Public),
        Endpoint::post("/frame", dashboard::frame).auth(Public),
        Endpoint::get("/assets/{version}/{*name}", pages::asset).auth(Public),
        Endpoint::get("/metrics", metrics::page_with_token).auth(Public),
        Endpoint::get("/api/health", service::health)
            .auth(Public)
            .summary("Service", "getHealth", "Does the process serve?")
            .response::<service::Health>(200),
        Endpoint::get("/api/ready", service::ready)
            .auth(Public)
            .summary("Service", "getReadiness", "Can mail be taken and webhooks be made?")
            .response::<service::Ready>(200)
            .errors(&[Code::NotReady]),
        Endpoint::get("/api/overview", overview::overview)
            .auth(Account)
            .summary(
                "Service",
                "getOverview",
                "Overview of the account's mail: counts over time, latency, endpoints, problems",
            )
            .description("Answers are cached for two seconds.")
            .query::<overview::OverviewQuery>()
            .choice("range", &["hour", "day", "week"])
            .response::<overview::Overview>(200),
        Endpoint::get("/api/server", server::facts)
            .auth(Account)
            .summary("Service", "getServer", "Facts about this server")
            .response::<server::ServerView>(200),
        Endpoint::get("/api/openapi.json", openapi_document)
            .auth(Public)
            .summary("Service", "getOpenApi", "This document")
            .gives_document(),
        Endpoint::get("/att/{mid}/{idx}", files::download)
            .auth(Public)
            .summary("Attachments", "downloadAttachment", "Download an attachment by its signed link")
            .description("`mid` is a message id without `msg_`, or an upload id. A single byte range is honoured.")
            .query::<files::Signed>()
            .header(RANGE)
            .partial()
            .gives_file(FILES)
            .errors(&[Code::BadSignature, Code::LinkExpired, Code::ContentDamaged, Code::BadRange]),
    ]
}

fn stubs() -> Vec<Endpoint> {
    const TAG: &str = "For compatibility";
    vec![
        Endpoint::get("/api/domains/register/check", unsupported::register_check)
            .summary(TAG, "checkDomainAvailability", "Can a domain be bought here? No.")
            .query::<unsupported::RegisterQuery>()
            .response::<unsupported::RegisterView>(200)
            .errors(&[Code::BadRequest]),
        Endpoint::get("/v1/docs/search", unsupported::docs_search)
            .auth(Public)
            .summary(TAG, "semanticSearch", "Search the documentation; finds nothing")
            .query::<unsupported::DocsQuery>()
            .response::<unsupported::DocsView>(200),
    ]
}
