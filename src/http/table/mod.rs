//! The router's whole table: every path, method and credential class of the API, chapter by chapter.

mod account;
mod domains;
mod messages;
mod sending;

use super::api::{overview, server, unsupported};
use super::endpoint::Class::{Account, Public};
use super::endpoint::{Endpoint, FILES, Header};
use super::error::Code;
use super::{dashboard, files, pages, service};

/// Every endpoint.
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

/// A part of a file.
const RANGE: Header =
    Header { name: "Range", about: "One range of octets; several get the whole.", example: "bytes=0-1023" };

fn service() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/", dashboard::index).who(Public),
        Endpoint::post("/frame", dashboard::frame).who(Public),
        Endpoint::get("/assets/{version}/{*name}", pages::asset).who(Public),
        Endpoint::get("/metrics", service::metrics_with_token).who(Public),
        Endpoint::get("/api/health", service::health)
            .who(Public)
            .about("Service", "getHealth", "Does the process serve?")
            .gives::<service::Health>(200),
        Endpoint::get("/api/ready", service::ready)
            .who(Public)
            .about("Service", "getReadiness", "Can mail be taken and webhooks be made?")
            .gives::<service::Ready>(200)
            .fails(&[Code::NotReady]),
        Endpoint::get("/api/overview", overview::overview)
            .who(Account)
            .about(
                "Service",
                "getOverview",
                "How the account's mail goes: counts over time, latency, endpoints, what needs somebody",
            )
            .more("An answer serves for two seconds.")
            .query::<overview::OverviewQuery>()
            .choice("range", &["hour", "day", "week"])
            .gives::<overview::Overview>(200),
        Endpoint::get("/api/server", server::facts)
            .who(Account)
            .about("Service", "getServer", "Facts about this server")
            .gives::<server::ServerView>(200),
        Endpoint::get("/api/openapi.json", service::openapi)
            .who(Public)
            .about("Service", "getOpenApi", "This document")
            .gives_document(),
        Endpoint::get("/att/{mid}/{idx}", files::download)
            .who(Public)
            .about("Attachments", "downloadAttachment", "Download an attachment by its signed link")
            .more("`mid` is a message id without `msg_`, or an upload id. A single byte range is honoured.")
            .query::<files::Signed>()
            .header(RANGE)
            .partial()
            .gives_file(FILES)
            .fails(&[Code::BadSignature, Code::LinkExpired, Code::ContentDamaged, Code::BadRange]),
    ]
}

fn stubs() -> Vec<Endpoint> {
    const TAG: &str = "For compatibility";
    vec![
        Endpoint::get("/api/domains/register/check", unsupported::register_check)
            .about(TAG, "checkDomainAvailability", "Can a domain be bought here? No.")
            .query::<unsupported::RegisterQuery>()
            .gives::<unsupported::RegisterView>(200)
            .fails(&[Code::BadRequest]),
        Endpoint::get("/v1/docs/search", unsupported::docs_search)
            .who(Public)
            .about(TAG, "semanticSearch", "Search the documentation; finds nothing")
            .query::<unsupported::DocsQuery>()
            .gives::<unsupported::DocsView>(200),
    ]
}
