//! Messages, webhook deliveries, and the event stream.

use crate::http::api::{deliveries, delivery_list, inject, messages, transmissions};
use crate::http::body::OkView;
use crate::http::endpoint::Class::Stream;
use crate::http::endpoint::{Endpoint, Header};
use crate::http::error::Code;
use crate::http::realtime;
use crate::store::messages::{Direction, MessageStatus};
use crate::store::stored_enum::Words as _;
use crate::store::webhooks::deliveries::DeliveryStatus;

/// Position from which a stream continues.
const LAST_EVENT_ID: Header = Header {
    name: "Last-Event-ID",
    about: "The id of the last event that was seen; those after it come first.",
    example: "evt_6PzL0dFk3VbN9xQr",
};

pub(super) fn messages() -> Vec<Endpoint> {
    const TAG: &str = "Messages";
    vec![
        Endpoint::get("/api/messages", messages::list)
            .summary(TAG, "listMessages", "List messages, newest first")
            .query::<messages::ListQuery>()
            .choice("direction", Direction::WORDS)
            .choice("status", MessageStatus::WORDS)
            .limit(200, 100)
            .gives_list::<messages::MessageView>(),
        Endpoint::get("/api/messages/{id}", messages::detail)
            .summary(TAG, "getMessage", "One message with its deliveries and attachments")
            .response::<messages::Detail>(200),
        Endpoint::get("/api/messages/{id}/raw", messages::raw)
            .summary(TAG, "getRawMessage", "The bytes as received")
            .gives_file(&["message/rfc822"])
            .errors(&[Code::RawExpired, Code::ContentDamaged]),
        Endpoint::get("/api/messages/{id}/transmissions", transmissions::list)
            .summary(TAG, "listTransmissions", "List remote hosts, with the SMTP dialog of the last attempt")
            .description("One entry per destination; empty for mail that was not sent.")
            .gives_list::<transmissions::TransmissionView>(),
        Endpoint::delete("/api/messages/{id}", messages::delete)
            .summary(TAG, "deleteMessage", "Delete a message and everything that belongs to it")
            .response::<OkView>(200)
            .errors(&[Code::MessageInQueue]),
        Endpoint::post("/v1/route", inject::inject)
            .summary(TAG, "route", "Process a message by a route as if it had arrived by mail")
            .request::<inject::InjectFields>()
            .large()
            .verified_email()
            .needs(&["from"])
            .response::<inject::InjectedView>(202)
            .errors(&[Code::LimitReached, Code::NotFound, Code::DomainNotOwned, Code::KeyScope, Code::FromDomain]),
    ]
}

pub(super) fn deliveries() -> Vec<Endpoint> {
    const TAG: &str = "Deliveries";
    vec![
        Endpoint::post("/api/deliveries/{id}/retry", deliveries::retry)
            .summary(TAG, "retryDelivery", "Attempt a delivery now")
            .response::<deliveries::AnswerView>(200)
            .errors(&[
                Code::DeliveryFailed,
                Code::MessageExpired,
                Code::ContentDamaged,
                Code::RouteGone,
                Code::AttemptInProgress,
                Code::LimitReached,
            ]),
        Endpoint::post("/api/deliveries/retry", deliveries::retry_many)
            .summary(TAG, "retryDeliveries", "Attempt several deliveries now")
            .description("1 to 50 ids in all, and at most 50 attempts.")
            .request::<deliveries::BulkRetry>()
            .needs(&[])
            .response::<deliveries::Results>(200)
            .errors(&[Code::LimitReached]),
        Endpoint::get("/api/deliveries", delivery_list::list)
            .summary(TAG, "listDeliveries", "List deliveries of all messages, newest first")
            .query::<delivery_list::ListQuery>()
            .choice("status", DeliveryStatus::WORDS)
            .limit(200, 100)
            .response::<delivery_list::DeliveryPage>(200),
        Endpoint::get("/api/deliveries/{id}/attempts", deliveries::attempts)
            .summary(TAG, "listDeliveryAttempts", "The attempts of a delivery, newest first")
            .gives_list::<deliveries::AttemptView<'_>>(),
    ]
}

pub(super) fn realtime() -> Vec<Endpoint> {
    const TAG: &str = "Realtime";
    vec![
        Endpoint::post("/v1/realtime/token", realtime::token)
            .summary(TAG, "createRealtimeToken", "A token that opens one stream")
            .description("Valid for five minutes and one use, with the rights of the caller's credential.")
            .response::<realtime::StreamToken>(200),
        Endpoint::get("/v1/realtime", realtime::stream)
            .auth(Stream)
            .summary(TAG, "streamEvents", "The account's events as they happen, as server-sent events")
            .description(
                "`email.received`, `email.sent`, `email.bounced` and `delivery.updated`, each with its id. With \
                 `Last-Event-ID` those after it come first, of the last 1,000; `stream.gap` says that it is not \
                 known any more. At most 20 streams for an account.",
            )
            .query::<realtime::StreamQuery>()
            .header(LAST_EVENT_ID)
            .gives_media("text/event-stream")
            .errors(&[Code::NotFound]),
    ]
}
