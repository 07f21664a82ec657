//! Conventions of every request and answer (contract 1), over real sockets.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::api::Answer;
use crate::support::server::{DEADLINE, Server};

/// Reads until the server closes; the client's side stays open.
pub(super) async fn talk(address: SocketAddr, bytes: &[u8]) -> String {
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

pub(super) fn answers(text: &str) -> Vec<u16> {
    text.split("HTTP/1.").skip(1).map(|rest| rest[2..5].parse().unwrap()).collect()
}

/// Asserts the headers and the form that every answer of the API has.
pub(super) fn assert_conventions(what: &str, answer: &Answer) {
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
