//! The HTTP API: conventions of all endpoints, lists, the event stream, connections and proxies.
//!
//! Tests use `support::api`, which checks every answer against the OpenAPI document.
//! A rule of every request goes to `conventions`, of who may see what to `tenancy`, of one resource to its own file.

mod attachment_urls;
mod connections;
mod conventions;
mod cross_origin;
mod event_stream;
mod forwarded_scheme;
mod http1;
mod lenient_input;
mod message_list;
mod messages;
mod openapi;
mod packaged_proxies;
mod rate_limits;
mod readiness;
mod sdk_flows;
mod search;
mod tenancy;
mod tls;
mod untrusted_proxy;
