//! The document and the router's table say the same, and the document is one.

use std::collections::BTreeSet;

use mailkite::http::endpoint::Class;
use mailkite::http::error::Code;
use mailkite::http::table;
use serde_json::Value;

use super::support::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_the_table_is_in_the_document_and_nothing_else() {
    let server = Server::start().await;
    let document = server.anonymous().exchange("GET", "/api/openapi.json", &[], None).await.expect(200);
    assert_eq!(document["openapi"], "3.1.0");
    let routed: BTreeSet<(String, String)> = table()
        .iter()
        .filter(|endpoint| ["/api/", "/v1/", "/att/"].iter().any(|family| endpoint.path.starts_with(family)))
        .map(|endpoint| (endpoint.path.to_owned(), endpoint.method.as_str().to_lowercase()))
        .collect();
    let documented: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(|method| (path.clone(), method.clone())))
        .collect();
    assert_eq!(documented, routed);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_resolves_says_who_may_ask_and_names_every_error() {
    let server = Server::start().await;
    let document = server.anonymous().exchange("GET", "/api/openapi.json", &[], None).await.expect(200);
    let mut references = Vec::new();
    collect(&document, &mut references);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let mut ids = BTreeSet::new();
    for endpoint in table().iter().filter(|endpoint| !endpoint.tag.is_empty()) {
        let operation = &document["paths"][endpoint.path][endpoint.method.as_str().to_lowercase()];
        let name = format!("{} {}", endpoint.method, endpoint.path);
        assert!(!endpoint.summary.is_empty(), "{name}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{name}");
        assert_eq!(operation["security"].as_array().unwrap().is_empty(), endpoint.class == Class::Public, "{name}");
        for code in endpoint.errors {
            let examples =
                &operation["responses"][code.status().to_string()]["content"]["application/json"]["examples"];
            assert_eq!(examples[code.as_str()]["value"]["code"], code.as_str(), "{name}");
        }
    }
    for code in Code::ALL {
        assert!((400..=503).contains(&code.status()) && !code.sentence().is_empty(), "{code:?}");
    }
    server.stop().await;
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            references.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|inner| collect(inner, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_fit_their_schemas() {
    let server = Server::start().await;
    let owner = server.owner().await;
    server.anonymous().get("/api/health").await.expect(200);
    server.anonymous().get("/api/ready").await.expect(200);
    owner.get("/v1/me").await.expect(200);
    owner.get("/api/billing/usage").await.expect(200);
    owner.get("/api/keys").await.expect(200);
    owner.get("/api/routes").await.expect(200);
    let id = server.accepted("a@inbox.test", "hello").await;
    owner.get("/api/messages").await.expect(200);
    owner.get(&format!("/api/messages/{id}")).await.expect(200);
    server.stop().await;
}
