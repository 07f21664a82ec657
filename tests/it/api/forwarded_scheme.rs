//! Plain HTTP from remote clients, and what a trusted proxy says about the scheme (contract 1.1).

use std::net::SocketAddr;

use mailkite::testing::clock::Clock;

use super::conventions::assert_conventions;
use crate::support::machine::own_address;
use crate::support::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_from_afar_needs_a_trusted_proxy_that_says_https() {
    let Some(outer) = own_address() else { return };
    for trusted in [false, true] {
        let server = Server::start_with(Clock::System, |config| {
            config.http.listen = vec![SocketAddr::new(outer, 0)];
            config.http.trusted_proxies = if trusted { vec![outer.into()] } else { Vec::new() };
        })
        .await;
        let (api, owner) = (server.anonymous(), server.owner().await);
        assert!(!server.http.ip().is_loopback());
        let proto = |value: &'static str| [("X-Forwarded-Proto", value)];
        for path in ["/v1/me", "/api/nothing", "/api/ready", "/att/x/0", "/v1/agent", "/api/health/", "/api//health"]
        {
            let refused = owner.exchange("GET", path, &[], None).await;
            refused.expect_error(403, "https_required");
            assert_conventions(path, &refused);
            owner.exchange("GET", path, &proto("http"), None).await.expect_error(403, "https_required");
        }
        for told in ["https", "HTTPS", "http, https"] {
            let proxied = owner.exchange("GET", "/v1/me", &proto(told), None).await;
            if trusted {
                proxied.expect(200);
            } else {
                proxied.expect_error(403, "https_required");
            }
        }
        owner.exchange("GET", "/v1/me", &proto("https, http"), None).await.expect_error(403, "https_required");
        // Who asks whether the process lives may have no TLS.
        for headers in [&[][..], &proto("http"), &proto("https")] {
            for method in ["GET", "HEAD"] {
                assert_eq!(api.exchange(method, "/api/health", headers, None).await.status, 200);
            }
        }
        assert_eq!(api.exchange("OPTIONS", "/v1/me", &[], None).await.status, 204);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_on_this_machine_that_says_http_speaks_for_a_client_from_afar() {
    for trusted in [false, true] {
        let server = Server::start_with(Clock::System, |config| {
            config.http.trusted_proxies = if trusted { vec!["127.0.0.0/8".parse().unwrap()] } else { Vec::new() };
        })
        .await;
        let owner = server.owner().await;
        let ask = async |path: &str, told: &[&'static str]| {
            let headers: Vec<_> = told.iter().map(|proto| ("X-Forwarded-Proto", *proto)).collect();
            owner.exchange("GET", path, &headers, None).await
        };
        for told in [&[][..], &["https"], &["http", "https"], &["http,https"]] {
            ask("/v1/me", told).await.expect(200);
        }
        for told in [&["http"][..], &["HTTP"], &["ws"], &[""], &["https", "http"], &["https, http"]] {
            let answer = ask("/v1/me", told).await;
            if trusted {
                answer.expect_error(403, "https_required");
            } else {
                // Anybody on this machine may say anything.
                answer.expect(200);
            }
            ask("/api/health", told).await.expect(200);
        }
        server.stop().await;
    }
}
