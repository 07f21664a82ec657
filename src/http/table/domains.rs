//! Domains and their settings, routes, and addresses that mail is forwarded to.

use crate::http::api::{
    account, deliveries, domain_settings, domain_webhook, domains, forwards, replay, route_match, routes,
};
use crate::http::body::Done;
use crate::http::endpoint::Class::{Account, Public};
use crate::http::endpoint::Endpoint;
use crate::http::error::Code;

pub(super) fn domains() -> Vec<Endpoint> {
    const TAG: &str = "Domains";
    vec![
        Endpoint::get("/api/domains", domains::list)
            .about(TAG, "listDomains", "List domains, oldest first")
            .gives_list::<domains::DomainView>(),
        Endpoint::post("/api/domains", domains::add)
            .who(Account)
            .about(TAG, "createDomain", "Add a domain")
            .more("It is pending until its DNS records are found; its DKIM keys are made now.")
            .takes::<domains::NewDomain>()
            .needs(&["domain"])
            .gives::<domains::DomainWithRecords>(201)
            .fails(&[Code::LimitReached, Code::BadDomain, Code::DomainExists, Code::DomainTaken]),
        Endpoint::get("/api/domains/{id}", domains::detail)
            .about(TAG, "getDomain", "One domain with its DNS records")
            .more("`id` is the domain's id or its name, here and below.")
            .gives::<domains::DomainWithRecords>(200),
        Endpoint::delete("/api/domains/{id}", domains::delete)
            .who(Account)
            .about(TAG, "deleteDomain", "Remove a domain")
            .more("Its webhook, keys and routes go with it; stored messages stay until their retention ends.")
            .gives::<Done>(200),
        Endpoint::post("/api/domains/{id}/verify", domains::verify)
            .about(TAG, "verifyDomain", "Look the domain's DNS records up")
            .gives::<domains::VerifiedView>(200)
            .fails(&[Code::DomainTaken]),
        Endpoint::put("/api/domains/{id}/webhook", domain_webhook::put)
            .about(TAG, "setWebhook", "Set the domain's webhook")
            .takes::<domain_webhook::WebhookFields>()
            .needs(&["url"])
            .gives::<domain_webhook::WebhookView>(200)
            .fails(&[Code::LimitReached, Code::BadUrl, Code::DomainNotVerified]),
        Endpoint::delete("/api/domains/{id}/webhook", domain_webhook::delete)
            .about(TAG, "deleteWebhook", "Remove the domain's webhook")
            .gives::<Done>(200),
        Endpoint::get("/api/domains/{id}/webhook/secret", domain_webhook::secret)
            .about(TAG, "getWebhookSecret", "The signing secret of the domain's webhook")
            .gives::<account::Secret>(200)
            .fails(&[Code::NoWebhook]),
        Endpoint::post("/api/domains/{id}/webhook/secret/rotate", domain_webhook::rotate_secret)
            .about(TAG, "rotateWebhookSecret", "Replace the signing secret of the domain's webhook")
            .more("For 24 hours both secrets sign.")
            .gives::<account::RotatedSecret>(200)
            .fails(&[Code::NoWebhook]),
        Endpoint::post("/api/domains/{id}/webhook/test", domain_webhook::test)
            .about(TAG, "testWebhook", "Post one signed test event to the domain's webhook")
            .gives::<deliveries::AnswerView>(200)
            .fails(&[Code::EmailNotVerified, Code::NoWebhookToTest, Code::RouteGone, Code::DeliveryFailed]),
    ]
}

pub(super) fn domain_settings() -> Vec<Endpoint> {
    const TAG: &str = "Domains";
    vec![
        Endpoint::put("/api/domains/{id}/tracking-webhook", domain_settings::put_tracking)
            .about(TAG, "setTrackingWebhook", "Set where sending events go")
            .takes::<domain_settings::TrackingFields>().needs(&["url"])
            .gives::<domain_settings::TrackingView>(200)
            .fails(&[Code::BadUrl]),
        Endpoint::delete("/api/domains/{id}/tracking-webhook", domain_settings::delete_tracking)
            .about(TAG, "deleteTrackingWebhook", "Sending events go nowhere of their own")
            .gives::<Done>(200),
        Endpoint::put("/api/domains/{id}/webhook-events", domain_settings::put_events)
            .about(TAG, "setWebhookEvents", "Choose the sending events that the domain's webhook gets")
            .takes::<domain_settings::EventsFields>().needs(&["events"])
            .gives::<domain_settings::EventsView>(200)
            .fails(&[Code::BadEvents]),
        Endpoint::delete("/api/domains/{id}/webhook-events", domain_settings::delete_events)
            .about(TAG, "deleteWebhookEvents", "The domain's webhook gets no sending events")
            .gives::<Done>(200),
        Endpoint::put("/api/domains/{id}/retention", domain_settings::put_retention)
            .about(TAG, "setRetention", "Set how long the domain's messages are kept")
            .more("With `zeroRetention` nothing of its mail is stored: one attempt for each webhook, attachments inside.")
            .takes::<domain_settings::RetentionFields>().needs(&[])
            .gives::<domain_settings::RetentionView>(200)
            .fails(&[Code::BadRetention]),
    ]
}

pub(super) fn routes() -> Vec<Endpoint> {
    const TAG: &str = "Routes";
    vec![
        Endpoint::get("/api/routes", routes::list)
            .about(TAG, "listRoutes", "List routes, oldest first")
            .gives_list::<routes::RouteView>(),
        Endpoint::get("/api/routes/match", route_match::find)
            .about(TAG, "matchRoutes", "Which routes an address reaches")
            .query::<route_match::MatchQuery>()
            .gives::<route_match::MatchView>(200),
        Endpoint::post("/api/routes", routes::create)
            .about(TAG, "createRoute", "Make a route")
            .takes::<routes::NewRouteFields>()
            .needs(&["match"])
            .gives::<routes::CreatedRoute>(201)
            .fails(&[
                Code::LimitReached,
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
            .about(TAG, "updateRoute", "Change, pause or resume a route")
            .takes::<routes::RouteChange>()
            .gives::<routes::RouteView>(200)
            .fails(&[
                Code::LimitReached,
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
            .about(TAG, "deleteRoute", "Remove a route")
            .more("Its pending deliveries end as failed.")
            .gives::<Done>(200),
        Endpoint::post("/api/routes/{id}/secret/rotate", routes::rotate_secret)
            .about(TAG, "rotateRouteSecret", "Replace a webhook's secret")
            .more("For 24 hours both secrets sign.")
            .gives::<account::RotatedSecret>(200)
            .fails(&[Code::RouteAction]),
        Endpoint::get("/api/routes/{id}/candidates", replay::candidates)
            .about(TAG, "listRouteCandidates", "Stored messages that a webhook route covers")
            .query::<replay::CandidatesQuery>()
            .limit(100, 50)
            .gives::<replay::CandidatesView>(200)
            .fails(&[Code::RouteAction]),
        Endpoint::post("/api/routes/{id}/deliver", replay::deliver)
            .about(TAG, "deliverToRoute", "Post stored messages to a webhook route")
            .takes::<replay::Replay>()
            .needs(&["messageIds"])
            .gives::<deliveries::Results>(200)
            .fails(&[Code::RouteAction, Code::LimitReached]),
    ]
}

pub(super) fn forwards() -> Vec<Endpoint> {
    const TAG: &str = "Routes";
    vec![
        Endpoint::get("/api/forwards/confirm", forwards::show_confirm)
            .who(Public)
            .about(TAG, "showForwardConfirmation", "Ask an address whether it wants what is forwarded to it")
            .query::<forwards::TokenQuery>()
            .gives_media("text/html"),
        Endpoint::post("/api/forwards/confirm", forwards::confirm)
            .who(Public)
            .about(TAG, "confirmForward", "Confirm that forwarded mail is wanted")
            .query::<forwards::TokenQuery>()
            .gives_media("text/html"),
        Endpoint::get("/api/forwards/decline", forwards::show_decline)
            .who(Public)
            .about(TAG, "showForwardRefusal", "Ask an address whether it declines")
            .query::<forwards::TokenQuery>()
            .gives_media("text/html"),
        Endpoint::post("/api/forwards/decline", forwards::decline)
            .who(Public)
            .about(TAG, "declineForward", "Decline forwarded mail")
            .query::<forwards::TokenQuery>()
            .gives_media("text/html"),
    ]
}
