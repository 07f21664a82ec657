//! Conventions of every request and answer (contract 1), over real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use mailkite::testing::clock::{Clock, Timestamp};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::api::{Answer, Api};
use crate::support::machine::own_address;
use crate::support::server::{DEADLINE, Server};

const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);
const SECOND: Duration = Duration::from_secs(1);

/// Reads until the server closes; the client's side stays open.
async fn talk(address: SocketAddr, bytes: &[u8]) -> String {
    let exchange = async {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        // A server that refuses may close before it has read everything.
        drop(tcp.write_all(bytes).await);
        let mut answer = Vec::new();
        drop(tcp.read_to_end(&mut answer).await);
        String::from_utf8_lossy(&answer).into_owned()
    };
    timeout(DEADLINE, exchange).await.expect("the server keeps the connection")
}

fn answers(text: &str) -> Vec<u16> {
    text.split("HTTP/1.").skip(1).map(|rest| rest[2..5].parse().unwrap()).collect()
}

/// Asserts the headers and the form that every answer of the API has.
fn assert_conventions(what: &str, answer: &Answer) {
    let header = |name: &str| answer.headers.get(name).map_or("", String::as_str);
    assert_eq!(header("access-control-allow-origin"), "*", "{what}");
    assert_eq!(header("access-control-expose-headers"), "Retry-After, Idempotent-Replayed, X-Request-Id", "{what}");
    assert!(!answer.headers.contains_key("access-control-allow-credentials"), "{what}");
    assert!(!answer.headers.contains_key("set-cookie"), "{what}");
    assert_eq!(header("cache-control"), "no-store", "{what}");
    assert!(!header("x-request-id").is_empty(), "{what}");
    if !answer.body.is_empty() {
        assert_eq!(header("content-type"), "application/json", "{what}");
        assert!(!answer.json.is_null(), "{what}");
        let text = String::from_utf8(answer.body.clone()).unwrap();
        assert!(!text.contains("\": ") && !text.contains('\n'), "{what}: not compact: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_has_one_form() {
    let server = Server::start().await;
    let (api, key) = (server.anonymous(), server.api_key().await);
    let with = async |value: &str| api.send("GET", "/v1/me", &[("Authorization", value)], None).await;
    for malformed in
        ["", "Bearer", "Bearer ", "Bearer  ", "Basic YTpi", &key, &format!("Token {key}"), &format!("Bearer{key}")]
    {
        with(malformed).await.expect_error(401, "unauthorized");
    }
    let refused = api.get("/v1/me").await;
    refused.expect_error(401, "unauthorized");
    assert_eq!(refused.json["error"], "missing or invalid credential");
    let changed = format!("{}x", &key[..key.len() - 1]);
    for unknown in ["mk_live_x", "mk_", &key.to_lowercase(), &changed, &format!("{key}x"), &format!("{key} x")] {
        with(&format!("Bearer {unknown}")).await.expect_error(401, "bad_key");
    }
    for good in
        [format!("Bearer {key}"), format!("bearer {key}"), format!("BEARER   {key}"), format!("bEaReR {key} ")]
    {
        with(&good).await.expect(200);
    }
    // Not in the query, and not where none is needed.
    api.get(&format!("/v1/me?access_token={key}&key={key}")).await.expect_error(401, "unauthorized");
    api.with("mk_live_rubbish").get("/api/health").await.expect(200);
    api.with(&key).get("/api/messages").await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_methods_are_404_before_the_credential() {
    let server = Server::start().await;
    let api = server.anonymous();
    for (method, path) in [
        ("GET", "/api/nothing"),
        ("GET", "/v1/"),
        ("GET", "/api/"),
        ("GET", "/api"),
        ("GET", "/v1"),
        ("POST", "/v1/me"),
        ("PUT", "/api/messages"),
        ("DELETE", "/api/keys"),
        ("PATCH", "/api/auth/login"),
        ("GET", "/api/auth/login"),
        ("TRACE", "/api/health"),
        ("CONNECT", "/api/health"),
        ("FROB", "/api/health"),
        ("GET", "/v1/me/"),
        ("GET", "//v1/me"),
        ("GET", "/v1//me"),
        ("GET", "/api/../v1/me"),
        ("GET", "/V1/me"),
        ("GET", "/api/messages/"),
        ("GET", "/api/health/"),
        ("POST", "/api/auth/login/"),
        ("GET", "/api/keys/scoped/"),
        ("GET", "/att/x"),
        ("POST", "/api/openapi.json"),
    ] {
        let answer = api.exchange(method, path, &[], None).await;
        answer.expect_error(404, "not_found");
        assert_eq!(answer.json["error"], "not found");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_appliance_does_not_have_says_so() {
    let server = Server::start().await;
    let api = server.anonymous();
    for path in [
        "/api/lists",
        "/api/lists/a/b",
        "/api/contacts",
        "/api/contacts/x",
        "/api/contacts/suppressionsx",
        "/api/broadcasts",
        "/api/broadcasts/x",
        "/v1/events",
        "/v1/events/x",
        "/v1/sequences",
        "/v1/sequences/x/y",
        "/v1/triggers/x",
        "/v1/enrollments/x",
        "/v1/agent",
        "/api/domains/register",
        "/api/domains/subdomain",
        "/api/domains/subdomain/x",
        "/api/v1/provision",
        "/oauth/token",
        "/.well-known/oauth-authorization-server",
        "/api/app-passwords",
        "/api/app-passwords/x",
        "/api/mailbox/x",
        "/api/auth/signin-link",
        "/api/auth/signin",
        "/api/auth/github",
        "/api/auth/password/forgot",
        "/api/auth/password/reset",
        "/api/ingest",
        "/api/relay",
        "/api/mx/x",
        "/api/smtp/x",
        "/api/imap/x",
    ] {
        for method in ["GET", "POST", "DELETE"] {
            let answer = api.exchange(method, path, &[], None).await;
            answer.expect_error(404, "not_supported");
            assert_eq!(answer.json["error"], "not supported by this server", "{path}");
        }
    }
    for path in ["/v1/agents", "/v1/triggers", "/api/mx", "/api/listsx", "/api/relay/x", "/oauth", "/v1/eventsx"] {
        api.exchange("GET", path, &[], None).await.expect_error(404, "not_found");
    }
    let owner = server.owner().await;
    let answer = owner.get("/api/domains/register/check?domain=Acme.dev").await.expect(200);
    assert_eq!(answer, json!({"configured": false, "domain": "Acme.dev", "available": false}));
    owner.get("/api/domains/register/check").await.expect_error(400, "bad_request");
    api.get("/api/domains/register/check?domain=a.dev").await.expect_error(401, "unauthorized");
    let answer = api.get("/v1/docs/search?query=web%20hook%26").await.expect(200);
    assert_eq!(answer, json!({"query": "web hook&", "matches": []}));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_answered_wherever_get_is() {
    let server = Server::start().await;
    let owner = server.owner().await;
    let document = owner.document().await;
    let mut asked = 0;
    for (template, operations) in document["paths"].as_object().unwrap() {
        if operations["get"].is_null() {
            continue;
        }
        asked += 1;
        let path = template.split('/').map(|part| if part.starts_with('{') { "unknown" } else { part });
        let path = path.collect::<Vec<_>>().join("/");
        let head = owner.exchange("HEAD", &path, &[], None).await;
        if path == "/v1/realtime" {
            // It has no end that could be waited for.
            let kind = head.headers.get("content-type").map(String::as_str);
            assert_eq!((head.status, head.body.len(), kind), (200, 0, Some("text/event-stream")));
            continue;
        }
        let got = owner.exchange("GET", &path, &[], None).await;
        assert_eq!((head.status, head.body.len()), (got.status, 0), "{path}");
        assert_eq!(head.headers.get("content-type"), got.headers.get("content-type"), "{path}");
        let length = got.body.len().to_string();
        assert!(head.headers.get("content-length").is_none_or(|told| *told == length), "{path}");
    }
    assert!(asked > 15, "{asked}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_the_headers_of_the_conventions() {
    let server = Server::start().await;
    let (api, owner) = (server.anonymous(), server.owner().await);
    let mut ids = Vec::new();
    for (what, answer) in [
        ("health", api.get("/api/health").await),
        ("200", owner.get("/v1/me").await),
        ("201", owner.post("/api/keys/scoped", json!({"domainId": "inbox.test", "name": "blog"})).await),
        ("head", owner.send("HEAD", "/v1/me", &[], None).await),
        ("400", owner.send("POST", "/api/auth/login", &[], Some(b"{")).await),
        ("401", api.get("/v1/me").await),
        ("403", owner.post_nothing("/api/auth/logout").await),
        ("403 att", api.get("/att/2Hk9QpVn4tLdA1B2/0").await),
        ("404", api.get("/api/nothing").await),
        ("404 att", api.get("/att/nothing").await),
        ("404 v1", api.get("/v1/agent").await),
        ("413", api.send("POST", "/api/auth/login", &[], Some(&vec![b' '; 1_048_577])).await),
    ] {
        assert_conventions(what, &answer);
        ids.push(answer.headers["x-request-id"].clone());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 12, "a request has an id of its own");
    for path in ["/v1/me", "/api/nothing", "/api/", "/att/x/0", "/v1/agent", "/api/auth/login"] {
        let headers = [("Origin", "https://mail.mailkite.test"), ("Access-Control-Request-Method", "PUT")];
        let answer = api.exchange("OPTIONS", path, &headers, None).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{path}");
        assert_conventions(path, &answer);
        assert_eq!(answer.headers["access-control-allow-methods"], "GET, HEAD, POST, PUT, PATCH, DELETE");
        let allowed = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID";
        assert_eq!(answer.headers["access-control-allow-headers"], allowed);
        assert_eq!(answer.headers["access-control-max-age"], "600");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_refused_for_a_header_that_says_nothing() {
    let server = Server::start().await;
    let owner = server.owner().await;
    let body = br#"{"domainId":"inbox.test","name":"blog"}"#;
    for headers in [
        vec![],
        vec![("Content-Type", "application/json; charset=utf-8")],
        vec![("Content-Type", "text/plain")],
        vec![("Content-Type", "application/x-www-form-urlencoded")],
        vec![("Content-Type", "multipart/form-data")],
        vec![("Content-Type", "rubbish")],
        vec![("Content-Type", "")],
        vec![("Accept", "text/html"), ("User-Agent", "")],
        vec![("Accept", "rubbish"), ("User-Agent", "curl/8"), ("Cookie", "session=1; a=b")],
        vec![("Accept-Encoding", "gzip"), ("Accept-Charset", "x"), ("Accept-Language", "tlh")],
        vec![("Expect", "100-continue")],
        vec![("X-HTTP-Method-Override", "DELETE")],
    ] {
        let made = owner.exchange("POST", "/api/keys/scoped", &headers, Some(body)).await;
        assert!(made.status == 201 || made.status == 100, "{headers:?}: {}", String::from_utf8_lossy(&made.body));
    }
    // Neither body nor length nor type.
    owner.post_nothing("/api/keys/rotate").await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_one_object_of_bounded_depth() {
    let server = Server::start().await;
    let owner = server.owner().await;
    let post = async |body: &[u8]| owner.send("POST", "/api/keys/scoped", &[], Some(body)).await;
    for bad in [
        "[]",
        "null",
        "5",
        "\"x\"",
        "true",
        "{",
        "}",
        "{}{}",
        "{'a':1}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{}\u{feff}",
        "{\"a\":NaN}",
        "a=b",
        "{\"a\":01}",
    ] {
        post(bad.as_bytes()).await.expect_error(400, "bad_json");
    }
    post(b"{\"name\":\"\xff\xfe\"}").await.expect_error(400, "bad_json");
    let nested = |depth: usize| {
        let inner = format!("{}{}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        format!("{{\"domainId\":\"inbox.test\",\"name\":\"n\",\"other\":{inner}}}")
    };
    post(nested(64).as_bytes()).await.expect(201);
    post(nested(65).as_bytes()).await.expect_error(400, "bad_json");
    post(&[b"{\"a\":".as_slice(), &b"[".repeat(500_000)].concat()).await.expect_error(400, "bad_json");
    // Nothing at all is an empty object.
    let nothing =
        ["", " ", "\r\n\t ", "{}", "{\"domainId\":null,\"name\":null}", "{\"domainId\":\"\",\"name\":\"\"}"];
    for empty in nothing.into_iter().chain(["\u{feff}", "\u{feff} {}", "{\"a\":\"\\ud800\"}"]) {
        post(empty.as_bytes()).await.expect_field(400, "bad_request", "domainId");
    }
    owner.post_nothing("/api/keys/scoped").await.expect_field(400, "bad_request", "domainId");
    post(br#"{"domainId":5,"name":"n"}"#).await.expect_field(400, "bad_request", "domainId");
    post(br#"{"domainId":"inbox.test","name":["n"]}"#).await.expect_field(400, "bad_request", "name");

    // Unknown fields are ignored and assign nothing.
    let made = owner.post(
        "/api/keys/scoped",
        json!({"domainId": "inbox.test", "name": "n", "id": "key_0000000000000000", "key": "mk_live_mine", "prefix": "mine",
            "user_id": 1, "account_id": 2, "isAdmin": true, "createdAt": 1, "lastUsedAt": 1, "__proto__": {"a": 1},
            "constructor": [], "": 0}),
    );
    let made = made.await.expect(201);
    assert_ne!((&made["id"], &made["key"]), (&json!("key_0000000000000000"), &json!("mk_live_mine")));
    assert!(made["createdAt"].as_i64().unwrap() > 1 && made["lastUsedAt"].is_null());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_a_mebibyte_declared_or_not() {
    let server = Server::start().await;
    let (owner, key) = (server.owner().await, server.api_key().await);
    let padded = |length: usize| {
        let mut body = br#"{"domainId":"inbox.test","name":"n"}"#.to_vec();
        body.resize(length, b' ');
        body
    };
    owner.send("POST", "/api/keys/scoped", &[], Some(&padded(1_048_576))).await.expect(201);
    owner.send("POST", "/api/keys/scoped", &[], Some(&padded(1_048_577))).await.expect_error(413, "body_too_large");
    let head = format!(
        "POST /api/keys/scoped HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
    );
    // Refused by what it declares, before any of it was sent.
    for length in ["1048577", "99999999999", "9223372036854775807"] {
        let answer = talk(owner.address, format!("{head}Content-Length: {length}\r\n\r\n").as_bytes()).await;
        assert_eq!(answers(&answer), [413], "{length}: {answer}");
    }
    let answer = talk(owner.address, format!("{head}Content-Length: 18446744073709551616\r\n\r\n").as_bytes()).await;
    assert!(matches!(answers(&answer)[..], [400 | 413 | 431]), "{answer}");
    let chunked = |length: usize| {
        let mut request = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
        for chunk in padded(length).chunks(65_536) {
            request.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            request.extend([chunk, b"\r\n"].concat());
        }
        request.extend(b"0\r\n\r\n");
        request
    };
    assert_eq!(answers(&talk(owner.address, &chunked(1_048_576)).await), [201]);
    assert_eq!(answers(&talk(owner.address, &chunked(1_048_577)).await), [413]);
    // A credential is looked at before the size, the size before the id.
    let anything = json!({"name": "x".repeat(1_048_576)});
    owner.patch("/api/routes/rte_0000000000000000", anything).await.expect_error(413, "body_too_large");
    owner.patch("/api/routes/rte_0000000000000000", json!({"name": 5})).await.expect_error(404, "not_found");
    let answer = owner.with("mk_live_x").send("POST", "/api/keys/scoped", &[], Some(&padded(1_048_577))).await;
    answer.expect_error(401, "bad_key");
    owner.get("/v1/me").await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_are_split_before_they_are_decoded() {
    let server = Server::start().await;
    let owner = server.owner().await;
    let id = server.accepted("a@inbox.test", "one").await;
    owner.get(&format!("/api/messages/{id}")).await.expect(200);
    owner.get(&format!("/api/messages/{}", id.replace('_', "%5F"))).await.expect(200);
    for other in [
        &format!("{id}%2Fraw"),
        &format!("{id}%2fraw"),
        &format!("..%2Fmessages%2F{id}"),
        &format!("{id}%00"),
        &format!("{id}%20"),
        &format!("%20{id}"),
        &format!("{id}+"),
        &format!("{id};a=b"),
        &id.to_lowercase(),
        &id.to_uppercase(),
        "%",
        "%2",
        "%zz",
        "%FF%FE",
        "%ED%A0%80",
        "%2e%2e",
        "..",
        "'%20OR%201=1",
        "msg_",
        &format!("msg_{}", "0".repeat(4000)),
    ] {
        let answer = owner.exchange("GET", &format!("/api/messages/{other}"), &[], None).await;
        answer.expect_error(404, "not_found");
    }
    // Literals win over ids: this is the list, not a key named so.
    assert_eq!(owner.get("/api/keys/scoped").await.expect(200), json!([]));
    owner.post("/api/deliveries/retry", json!({})).await.expect_error(400, "bad_request");
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_read_leniently_but_integers_are_integers() {
    let server = Server::start().await;
    let owner = server.owner().await;
    server.accepted("a@inbox.test", "one").await;
    let list = async |query: &str| owner.get(&format!("/api/messages?{query}")).await;
    for bad in [
        "limit=x",
        "limit=1.0",
        "limit=1e2",
        "limit=0x10",
        "limit=%2B",
        "limit=--1",
        "limit=1%00",
        "before=now",
        "after=99999999999999999999",
        "limit=1%202",
        "limit=\u{661}",
    ] {
        let name = bad.split('=').next().unwrap();
        let path = format!("/api/messages?{bad}");
        let refused = owner.exchange("GET", &path, &[], None).await;
        if path.is_ascii() {
            refused.expect_field(400, "bad_query", name);
        } else {
            assert_eq!(refused.status, 400, "{bad}");
        }
    }
    for good in [
        "limit=0",
        "limit=-5",
        "limit=201",
        "limit=9223372036854775807",
        "limit=1&limit=x",
        "limit=&before=",
        "limit=1&unknown=%FF%FE&&&=x&y",
        "limit=1&a[]=1&a[]=2",
        "before=9223372036854775807",
        "after=-9223372036854775808",
        "",
    ] {
        let rows = list(good).await.expect(200);
        assert_eq!(rows.as_array().unwrap().len(), 1, "{good}");
    }
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_credential_has_a_bucket_that_fills_again() {
    let clock = Clock::manual(NOW);
    let server = Server::start_with(clock, |config| config.http.rate_limit = 5).await;
    let owner = server.owner().await;
    let made = owner.post("/api/keys/scoped", json!({"domainId": "inbox.test", "name": "n"})).await.expect(201);
    let scoped = owner.with(made["key"].as_str().unwrap());
    for _ in 0..9 {
        owner.get("/v1/me").await.expect(200);
    }
    let refused = owner.get("/v1/me").await;
    refused.expect_error(429, "rate_limited");
    assert_eq!(refused.headers["retry-after"], "1");
    assert_conventions("429", &refused);
    // The limit stands before the body and the class of the credential.
    owner.send("POST", "/api/keys/scoped", &[], Some(b"{")).await.expect_error(429, "rate_limited");
    owner.post_nothing("/api/auth/logout").await.expect_error(429, "rate_limited");
    owner.get("/api/nothing").await.expect_error(404, "not_found");
    scoped.get("/v1/me").await.expect(200);
    server.anonymous().get("/api/health").await.expect(200);
    server.clock.advance(SECOND);
    for _ in 0..5 {
        owner.get("/v1/me").await.expect(200);
    }
    owner.get("/v1/me").await.expect_error(429, "rate_limited");
    server.stop().await;

    let server = Server::start_with(Clock::manual(NOW), |config| config.http.rate_limit = 0).await;
    let owner = server.owner().await;
    for _ in 0..250 {
        assert_eq!(owner.exchange("GET", "/v1/me", &[], None).await.status, 200);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_failed_credentials_a_minute_are_enough_and_valid_ones_still_work() {
    let server = Server::start_with(Clock::manual(NOW), |config| {
        config.http.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let owner = server.owner().await;
    let from =
        async |api: &Api, address: &str| api.exchange("GET", "/v1/me", &[("X-Forwarded-For", address)], None).await;
    let wrong = owner.with("mk_live_wrong");
    for n in 0..60 {
        // What a client claims to the left of what the proxy saw changes nothing.
        let claimed = format!("192.0.2.{n}, 203.0.113.5");
        from(&wrong, &claimed).await.expect_error(401, "bad_key");
    }
    for failing in [&wrong, &server.anonymous(), &owner.with("a.b.c")] {
        from(failing, "203.0.113.5").await.expect_error(429, "rate_limited");
    }
    from(&owner, "203.0.113.5").await.expect(200);
    from(&wrong, "203.0.113.6").await.expect_error(401, "bad_key");
    from(&wrong, "203.0.113.5, 127.0.0.1").await.expect_error(429, "rate_limited");
    from(&wrong, "203.0.113.5:8080").await.expect_error(429, "rate_limited");
    server.clock.advance(60 * SECOND);
    from(&wrong, "203.0.113.5").await.expect_error(401, "bad_key");

    for n in 0..60 {
        from(&wrong, &format!("2001:db8::{n:x}")).await.expect_error(401, "bad_key");
    }
    from(&wrong, "2001:db8::ffff:1").await.expect_error(429, "rate_limited");
    from(&wrong, "2001:db8:0:1::1").await.expect_error(401, "bad_key");
    server.stop().await;

    // Nobody trusts this proxy: whatever it says, it is the client.
    let server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    let wrong = server.anonymous().with("mk_live_wrong");
    for n in 0..60 {
        from(&wrong, &format!("192.0.2.{n}")).await.expect_error(401, "bad_key");
    }
    from(&wrong, "192.0.2.99").await.expect_error(429, "rate_limited");
    server.stop().await;
}

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

#[tokio::test(flavor = "multi_thread")]
async fn oversize_headers_are_refused_and_the_server_lives() {
    let server = Server::start().await;
    let (address, owner) = (server.http, server.owner().await);
    let get = |rest: &str| format!("GET /api/health HTTP/1.1\r\nHost: localhost\r\n{rest}Connection: close\r\n\r\n");
    let many: String = (0..1000).map(|n| format!("X-{n}: y\r\n")).collect();
    for (what, request) in [
        ("a long field", get(&format!("X: {}\r\n", "y".repeat(70_000)))),
        ("many fields", get(&many)),
        ("a long name", get(&format!("{}: y\r\n", "X".repeat(70_000)))),
        ("a long path", format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "y".repeat(70_000))),
        ("a line that never ends", "G".repeat(100_000)),
        ("a field without colon", get("X y\r\n")),
        ("a space before the colon", get("X : y\r\n")),
        ("a folded field", get("X: a\r\n b\r\n")),
        ("a control character", get("X: a\u{0}b\r\n")),
        ("a bare CR", get("X: a\rb: c\r\n")),
        ("no host", "GET /api/health HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned()),
        ("two hosts", get("Host: y\r\n")),
        ("no version", "GET /api/health\r\n\r\n".to_owned()),
        ("another version", "GET /api/health HTTP/3.0\r\n\r\n".to_owned()),
        ("spaces in the path", "GET /api/health x HTTP/1.1\r\n\r\n".to_owned()),
        ("SMTP", "EHLO mx.example.com\r\n\r\n".to_owned()),
    ] {
        let answer = talk(address, request.as_bytes()).await;
        let status = answers(&answer);
        assert!(status.iter().all(|status| [400, 414, 431].contains(status)), "{what}: {answer}");
        assert!(status.len() <= 1, "{what}: {answer}");
    }
    owner.get("/v1/me").await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_smuggles_a_request_behind_another() {
    let server = Server::start().await;
    let address = server.http;
    let hidden = "GET /api/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let post = |fields: &str, body: &str| {
        format!("POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}{hidden}").into_bytes()
    };
    for (what, request) in [
        ("two lengths", post("Content-Length: 2\r\nContent-Length: 3\r\n", "{}")),
        ("a list of lengths", post("Content-Length: 2, 3\r\n", "{}")),
        ("a signed length", post("Content-Length: +2\r\n", "{}")),
        ("a negative length", post("Content-Length: -2\r\n", "{}")),
        ("a hexadecimal length", post("Content-Length: 0x2\r\n", "{}")),
        ("length, then chunks", post("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n")),
        ("chunks, then length", post("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", "2\r\n{}\r\n0\r\n\r\n")),
        ("another coding", post("Transfer-Encoding: identity\r\nContent-Length: 2\r\n", "{}")),
        ("chunks not last", post("Transfer-Encoding: chunked, gzip\r\n", "2\r\n{}\r\n0\r\n\r\n")),
        ("a coding in disguise", post("Transfer-Encoding: xchunked\r\nContent-Length: 2\r\n", "{}")),
        ("a vertical tab", post("Transfer-Encoding: \u{b}chunked\r\nContent-Length: 2\r\n", "{}")),
        ("a bad chunk", post("Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n")),
        ("a huge chunk", post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n{}\r\n0\r\n\r\n")),
    ] {
        let answer = talk(address, &request).await;
        assert!(!answer.contains("openapi"), "{what}: {answer}");
        assert!(answers(&answer).iter().all(|status| *status == 400), "{what}: {answer}");
    }
    let old = talk(address, b"POST /api/auth/login HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
    assert_eq!(answers(&old), [400]);
    server.anonymous().get("/api/health").await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_pipelined_requests_are_answered_in_order() {
    let server = Server::start().await;
    let address = server.http;
    let old = talk(address, b"GET /api/health HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200") && old.ends_with("{\"ok\":true}"), "{old}");
    let pipeline = "POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}\
        GET /api/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n\
        HEAD /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n\
        GET /api/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(answers(&talk(address, pipeline.as_bytes()).await), [400, 404, 200, 200]);
    // A client that goes away in the middle harms nobody.
    for cut in [10, 60, pipeline.len() - 3] {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(&pipeline.as_bytes()[..cut]).await.unwrap();
    }
    for (host, status) in [("localhost", 200), ("evil.test", 403)] {
        let absolute =
            format!("GET http://{host}/api/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_eq!(answers(&talk(address, absolute.as_bytes()).await), [status], "{host}");
    }
    let body: Value = server.anonymous().get("/api/health").await.expect(200);
    assert_eq!(body, json!({"ok": true}));
    server.stop().await;
}
