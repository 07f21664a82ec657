//! The router's whole table: every path, method and credential class of the API, chapter by chapter.

use super::api::{account, auth, deliveries, inject, messages, routes, stubs, uploads};
use super::endpoint::Class::{Account, Public, Session};
use super::endpoint::Endpoint;
use super::error::Code;
use super::{files, pages, service};

/// Every endpoint.
pub fn table() -> Vec<Endpoint> {
    [service(), sign_in(), account(), routes(), messages(), deliveries(), uploads(), stubs()]
        .into_iter()
        .flatten()
        .collect()
}

fn service() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/", pages::landing).who(Public),
        Endpoint::get("/assets/landing.css", pages::style).who(Public),
        Endpoint::get("/metrics", service::metrics_with_token).who(Public),
        Endpoint::get("/api/health", service::health)
            .who(Public)
            .about("Service", "Does the process serve?")
            .gives::<service::Health>(200),
        Endpoint::get("/api/ready", service::ready)
            .who(Public)
            .about("Service", "Can mail be taken and webhooks be made?")
            .gives::<service::Ready>(200)
            .fails(&[Code::NotReady]),
        Endpoint::get("/api/openapi.json", service::openapi)
            .who(Public)
            .about("Service", "This document")
            .gives_media("application/json"),
        Endpoint::get("/att/{mid}/{idx}", files::download)
            .who(Public)
            .about("Attachments", "Download an attachment by its signed link")
            .more("`mid` is a message id without `msg_`, or an upload id. A single byte range is honoured.")
            .query::<files::Signed>()
            .gives_media("*/*")
            .fails(&[Code::BadSignature, Code::LinkExpired, Code::BadRange]),
    ]
}

fn sign_in() -> Vec<Endpoint> {
    const TAG: &str = "Signing in";
    vec![
        Endpoint::post("/api/auth/signup", auth::sign_up)
            .who(Public)
            .about(TAG, "Make an account")
            .more("With `signup = \"first\"` the first account needs the setup token, except over loopback.")
            .takes::<auth::SignUp>()
            .gives::<auth::Session>(201)
            .fails(&[
                Code::BadAddress,
                Code::WeakPassword,
                Code::SignupClosed,
                Code::SetupToken,
                Code::AccountExists,
                Code::RateLimited,
            ]),
        Endpoint::post("/api/auth/login", auth::log_in)
            .who(Public)
            .about(TAG, "Sign in")
            .takes::<auth::LogIn>()
            .gives::<auth::Session>(200)
            .fails(&[Code::BadLogin, Code::RateLimited]),
        Endpoint::post("/api/auth/google", auth::google)
            .who(Public)
            .about(TAG, "Sign in with Google")
            .takes::<auth::GoogleSignIn>()
            .gives::<auth::Session>(200)
            .fails(&[
                Code::GoogleNotConfigured,
                Code::GoogleRejected,
                Code::GoogleUnreachable,
                Code::SignupClosed,
                Code::SetupToken,
                Code::AccountExists,
                Code::RateLimited,
            ]),
        Endpoint::post("/api/auth/logout", auth::log_out)
            .who(Session)
            .about(TAG, "End this session")
            .gives::<super::body::Done>(200),
        Endpoint::post("/api/auth/password", auth::change_password)
            .who(Session)
            .about(TAG, "Change the password")
            .more("Every earlier session ends; keys stay.")
            .takes::<auth::ChangePassword>()
            .gives::<auth::PasswordChanged>(200)
            .fails(&[Code::WeakPassword, Code::WrongPassword]),
        Endpoint::post("/api/auth/verify/send", auth::send_verification)
            .who(Account)
            .about(TAG, "Mail a link that proves the account's e-mail")
            .gives::<auth::VerificationStatus>(200),
        Endpoint::get("/api/auth/verify", auth::verify)
            .who(Public)
            .about(TAG, "The page behind that link")
            .query::<auth::VerifyQuery>()
            .gives_media("text/html"),
    ]
}

fn account() -> Vec<Endpoint> {
    const TAG: &str = "Account";
    vec![
        Endpoint::get("/v1/me", account::me).about(TAG, "Who am I?").gives::<account::Me>(200),
        Endpoint::get("/api/billing/usage", account::usage)
            .about(TAG, "Messages sent this month")
            .gives::<account::Usage>(200),
        Endpoint::get("/api/keys", account::key)
            .who(Account)
            .about(TAG, "The account's API key, made if there is none")
            .gives::<account::Key>(200),
        Endpoint::post("/api/keys/rotate", account::rotate_key)
            .who(Account)
            .about(TAG, "Replace the account's API key")
            .more("The old key is dead at once.")
            .gives::<account::Key>(200),
        Endpoint::get("/api/keys/scoped", account::scoped_keys)
            .who(Account)
            .about(TAG, "Keys that are limited to one domain, newest first")
            .gives_list::<account::ScopedKey>(),
        Endpoint::post("/api/keys/scoped", account::new_scoped_key)
            .who(Account)
            .about(TAG, "Make a key for one domain")
            .takes::<account::NewScopedKey>()
            .gives::<account::ScopedKey>(201)
            .fails(&[Code::DomainNotOwned]),
        Endpoint::delete("/api/keys/scoped/{id}", account::delete_scoped_key)
            .who(Account)
            .about(TAG, "End a scoped key")
            .gives::<super::body::Done>(200),
        Endpoint::get("/api/webhooks/secret", account::webhook_secret)
            .who(Account)
            .about(TAG, "The secret of tracking webhooks, made if there is none")
            .gives::<account::Secret>(200),
        Endpoint::post("/api/webhooks/secret/rotate", account::rotate_webhook_secret)
            .who(Account)
            .about(TAG, "Replace the secret of tracking webhooks")
            .more("For 24 hours both secrets sign.")
            .gives::<account::RotatedSecret>(200),
    ]
}

fn messages() -> Vec<Endpoint> {
    const TAG: &str = "Messages";
    vec![
        Endpoint::get("/api/messages", messages::list)
            .about(TAG, "List messages, newest first")
            .query::<messages::ListQuery>()
            .gives_list::<messages::MessageView>(),
        Endpoint::get("/api/messages/{id}", messages::detail)
            .about(TAG, "One message with its deliveries and attachments")
            .gives::<messages::Detail>(200),
        Endpoint::get("/api/messages/{id}/raw", messages::raw)
            .about(TAG, "The bytes as received")
            .gives_media("message/rfc822")
            .fails(&[Code::RawExpired]),
        Endpoint::delete("/api/messages/{id}", messages::delete)
            .about(TAG, "Remove a message with everything of it")
            .gives::<super::body::Done>(200)
            .fails(&[Code::MessageInQueue]),
        Endpoint::post("/v1/route", inject::inject)
            .about(TAG, "Hand a message to a route as if it had arrived by mail")
            .takes::<inject::InjectFields>()
            .gives::<inject::InjectedView>(202)
            .fails(&[Code::NotFound]),
    ]
}

fn deliveries() -> Vec<Endpoint> {
    const TAG: &str = "Deliveries";
    vec![
        Endpoint::post("/api/deliveries/{id}/retry", deliveries::retry)
            .about(TAG, "Attempt a delivery now")
            .gives::<deliveries::AnswerView>(200)
            .fails(&[Code::DeliveryFailed, Code::MessageExpired, Code::RouteGone, Code::AttemptInProgress]),
        Endpoint::post("/api/deliveries/retry", deliveries::retry_many)
            .about(TAG, "Attempt several deliveries now")
            .more("1 to 50 ids in all, and at most 50 attempts.")
            .takes::<deliveries::BulkRetry>()
            .gives::<deliveries::Results>(200),
        Endpoint::get("/api/deliveries/{id}/attempts", deliveries::attempts)
            .about(TAG, "The attempts of a delivery, newest first")
            .gives_list::<deliveries::AttemptView>(),
    ]
}

fn routes() -> Vec<Endpoint> {
    const TAG: &str = "Routes";
    vec![
        Endpoint::get("/api/routes", routes::list)
            .about(TAG, "List routes, oldest first")
            .gives_list::<routes::RouteView>(),
        Endpoint::post("/api/routes", routes::create)
            .about(TAG, "Make a route")
            .takes::<routes::NewRouteFields>()
            .gives::<routes::CreatedRoute>(201)
            .fails(&[
                Code::MatchRequired,
                Code::BadMatch,
                Code::BadUrl,
                Code::BadAddress,
                Code::AgentNotSupported,
                Code::DomainNotOwned,
                Code::DomainNotVerified,
                Code::RouteExists,
            ]),
        Endpoint::patch("/api/routes/{id}", routes::change)
            .about(TAG, "Change, pause or resume a route")
            .takes::<routes::RouteChange>()
            .gives::<routes::RouteView>(200)
            .fails(&[
                Code::MatchRequired,
                Code::BadMatch,
                Code::BadUrl,
                Code::BadAddress,
                Code::DomainNotOwned,
                Code::DomainNotVerified,
                Code::RouteExists,
                Code::DomainWebhookRoute,
            ]),
        Endpoint::delete("/api/routes/{id}", routes::delete)
            .about(TAG, "Remove a route")
            .more("Its pending deliveries end as failed.")
            .gives::<super::body::Done>(200),
        Endpoint::post("/api/routes/{id}/secret/rotate", routes::rotate_secret)
            .about(TAG, "Replace a webhook's secret")
            .more("For 24 hours both secrets sign.")
            .gives::<super::api::account::RotatedSecret>(200)
            .fails(&[Code::RouteAction]),
        Endpoint::get("/api/routes/{id}/candidates", routes::candidates)
            .about(TAG, "Stored messages that a webhook route covers")
            .query::<routes::CandidatesQuery>()
            .gives::<routes::CandidatesView>(200)
            .fails(&[Code::RouteAction]),
        Endpoint::post("/api/routes/{id}/deliver", routes::deliver)
            .about(TAG, "Post stored messages to a webhook route")
            .takes::<routes::Replay>()
            .gives::<deliveries::Results>(200)
            .fails(&[Code::RouteAction]),
    ]
}

fn uploads() -> Vec<Endpoint> {
    vec![
        Endpoint::post("/v1/attachments", uploads::create)
            .about("Attachments", "Upload a file, or have it fetched")
            .more("As JSON, or with the file as the body and its name in the query.")
            .query::<uploads::UploadQuery>()
            .takes::<uploads::UploadFields>()
            .takes_bytes()
            .gives::<uploads::UploadView>(201)
            .fails(&[
                Code::BadAttachment,
                Code::AttachmentTooLarge,
                Code::BadUrl,
                Code::AttachmentFetchFailed,
                Code::BadRetention,
            ]),
    ]
}

fn stubs() -> Vec<Endpoint> {
    const TAG: &str = "For compatibility";
    vec![
        Endpoint::get("/api/domains/register/check", stubs::register_check)
            .about(TAG, "Can a domain be bought here? No.")
            .query::<stubs::RegisterQuery>()
            .gives::<stubs::RegisterView>(200)
            .fails(&[Code::BadRequest]),
        Endpoint::get("/v1/docs/search", stubs::docs_search)
            .who(Public)
            .about(TAG, "Search the documentation; finds nothing")
            .query::<stubs::DocsQuery>()
            .gives::<stubs::DocsView>(200),
    ]
}
