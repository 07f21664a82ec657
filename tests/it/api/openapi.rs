//! The document and the router's table say the same, and the document is one.

use std::collections::BTreeSet;

use mailkite::testing::http::endpoint::Class;
use mailkite::testing::http::error::Code;
use mailkite::testing::http::table;
use serde_json::{Map, Value, json};

use crate::support::api::resolved;
use crate::support::server::Server;

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
    let tags: BTreeSet<&str> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let used: BTreeSet<&str> = table().iter().map(|endpoint| endpoint.tag).filter(|tag| !tag.is_empty()).collect();
    assert_eq!(tags, used);
    let mut ids = BTreeSet::new();
    for endpoint in table().iter().filter(|endpoint| !endpoint.tag.is_empty()) {
        let operation = &document["paths"][endpoint.path][endpoint.method.as_str().to_lowercase()];
        let name = format!("{} {}", endpoint.method, endpoint.path);
        assert!(!endpoint.summary.is_empty(), "{name}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{name}");
        assert_eq!(operation["security"].as_array().unwrap().is_empty(), endpoint.class == Class::Public, "{name}");
        for code in &endpoint.errors {
            let response = resolved(&document, &operation["responses"][code.status().to_string()]);
            let examples = &response["content"]["application/json"]["examples"];
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

/// Every schema with properties below a value, unless it is a component.
fn unnamed(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            let is_part = path.contains("/allOf/");
            if object.get("properties").is_some_and(Value::is_object) && !is_part {
                found.push(path.to_owned());
            }
            object.iter().for_each(|(key, inner)| unnamed(inner, &format!("{path}/{key}"), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, inner)| unnamed(inner, &format!("{path}/{at}"), found));
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_schema_has_a_name_and_errors_have_one() {
    let server = Server::start().await;
    let document = server.anonymous().exchange("GET", "/api/openapi.json", &[], None).await.expect(200);
    let mut found = Vec::new();
    unnamed(&document["paths"], "paths", &mut found);
    unnamed(&document["components"]["responses"], "responses", &mut found);
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric()) && name.starts_with(char::is_uppercase), "{name}");
        schema.as_object().unwrap().iter().for_each(|(key, inner)| match inner {
            Value::Object(properties) if key == "properties" => {
                properties.iter().for_each(|(field, inner)| unnamed(inner, &format!("{name}.{field}"), &mut found));
            }
            _ => unnamed(inner, &format!("{name}/{key}"), &mut found),
        });
    }
    assert_eq!(found, Vec::<String>::new());
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                let schema = &resolved(&document, response)["content"]["application/json"]["schema"]["$ref"];
                let wanted = match (status.as_str(), path.as_str()) {
                    ("503", "/api/ready") => "#/components/schemas/NotReady",
                    _ => "#/components/schemas/Error",
                };
                assert!(status.starts_with('2') || schema == wanted, "{method} {path} {status}: {schema}");
            }
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_have_names_that_code_can_have() {
    for endpoint in table().iter().filter(|endpoint| !endpoint.tag.is_empty()) {
        let (head, rest) = endpoint.id.split_at(1);
        assert!(head.chars().all(|c| c.is_ascii_lowercase()), "{} {}", endpoint.method, endpoint.path);
        assert!(rest.chars().all(|c| c.is_ascii_alphanumeric()), "{}", endpoint.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_has_to_be_there_is_refused_without_each_field_it_needs() {
    let server = Server::start().await;
    let session = server.anonymous().with(server.owner_session().await);
    let route = server.webhook("https://app.example/hook").await.route;
    let document = server.anonymous().exchange("GET", "/api/openapi.json", &[], None).await.expect(200);
    let mut walked = 0;
    for endpoint in table().iter().filter(|endpoint| !endpoint.tag.is_empty()) {
        let operation = &document["paths"][endpoint.path][endpoint.method.as_str().to_lowercase()];
        let body = &operation["requestBody"];
        if body.is_null() {
            continue;
        }
        let path = match endpoint.path {
            path if path.starts_with("/api/domains/") => path.replace("{id}", "inbox.test"),
            path => path.replace("{id}", route.as_str()),
        };
        let schema = resolved(&document, &body["content"]["application/json"]["schema"]);
        let needed: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert!(needed.is_empty() || body["required"] == true, "{path}");
        if body["required"] == false {
            continue;
        }
        walked += 1;
        let empty = session.post_as(endpoint.method.as_str(), &path, json!({})).await;
        assert_eq!(empty.status, 400, "{path} {}", empty.json);
        let examples = schema["properties"].as_object().unwrap();
        let full: Map<String, Value> =
            needed.iter().map(|field| ((*field).to_owned(), examples[*field]["example"].clone())).collect();
        for field in needed {
            let mut without = full.clone();
            without.remove(field);
            let answer = session.post_as(endpoint.method.as_str(), &path, Value::Object(without)).await;
            assert_eq!(answer.status, 400, "{path} without {field}: {}", answer.json);
        }
    }
    assert!(walked > 15, "{walked}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_takes_the_values_that_the_document_lists_and_no_others() {
    let server = Server::start().await;
    let owner = server.owner().await;
    let document = server.anonymous().exchange("GET", "/api/openapi.json", &[], None).await.expect(200);
    let mut walked = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for parameter in item["get"]["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            for value in parameter["schema"]["enum"].as_array().into_iter().flatten() {
                owner.get(&format!("{path}?{name}={}", value.as_str().unwrap())).await.expect(200);
            }
            if parameter["schema"]["enum"].is_array() {
                owner.get(&format!("{path}?{name}=other")).await.expect_field(400, "bad_query", name);
                walked.push(format!("{path} {name}"));
            }
        }
    }
    walked.sort();
    assert_eq!(
        walked,
        ["/api/deliveries status", "/api/messages direction", "/api/messages status", "/api/overview range"]
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_limits_are_those_that_the_server_knows() {
    let server = Server::start().await;
    let document = server.anonymous().exchange("GET", "/api/openapi.json", &[], None).await.expect(200);
    let mut headers = BTreeSet::new();
    let mut limits = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            for parameter in operation["parameters"].as_array().unwrap() {
                let name = parameter["name"].as_str().unwrap().to_owned();
                let schema = &parameter["schema"];
                match parameter["in"].as_str().unwrap() {
                    "header" => drop(headers.insert((path.as_str(), name))),
                    _ if name == "limit" => {
                        limits.insert((path.as_str(), schema["maximum"].as_i64(), schema["default"].as_i64()));
                    }
                    _ => {}
                }
                assert!(!schema["type"].is_array(), "{path} {parameter}");
            }
        }
    }
    let expected = [
        ("/att/{mid}/{idx}", "Range"),
        ("/v1/realtime", "Last-Event-ID"),
        ("/v1/send", "Idempotency-Key"),
        ("/v1/send/batch", "Idempotency-Key"),
    ];
    assert_eq!(headers, expected.map(|(path, name)| (path, name.to_owned())).into_iter().collect());
    let expected = [
        ("/api/contacts/suppressions", Some(1000), Some(1000)),
        ("/api/deliveries", Some(200), Some(100)),
        ("/api/messages", Some(200), Some(100)),
        ("/api/routes/{id}/candidates", Some(100), Some(50)),
    ];
    assert_eq!(limits, expected.into_iter().collect());
    server.stop().await;
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
