//! A client of the API that checks every answer against the server's own OpenAPI document.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);

/// The document, read once: all servers of the tests have the same.
static DOCUMENT: OnceLock<Value> = OnceLock::new();

/// A client with or without credential.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub address: SocketAddr,
    /// Sent as `Authorization: Bearer`.
    pub credential: Option<String>,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Lower-case names.
    pub headers: BTreeMap<String, String>,
    /// The body as sent.
    pub body: Vec<u8>,
    /// The body as JSON; null when it is none.
    pub json: Value,
}

impl Answer {
    /// The answer's `code`, or "".
    pub(crate) fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    /// A header of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Asserts the status and returns the JSON.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json
    }

    /// Asserts an error.
    #[track_caller]
    pub(crate) fn expect_error(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code()), (status, code), "{}", String::from_utf8_lossy(&self.body));
        assert!(self.json["error"].as_str().is_some_and(|sentence| !sentence.is_empty()), "{}", self.json);
        assert_eq!(self.headers.get("www-authenticate").map(String::as_str), (status == 401).then_some("Bearer"));
        if status == 429 {
            assert!(self.headers["retry-after"].parse::<u64>().is_ok_and(|secs| secs > 0), "{:?}", self.headers);
        }
    }

    /// Asserts an error of one field.
    #[track_caller]
    pub(crate) fn expect_field(&self, status: u16, code: &str, field: &str) {
        self.expect_error(status, code);
        assert_eq!(self.json["field"], field, "{}", self.json);
    }
}

impl Api {
    /// A client without credential.
    pub(crate) fn anonymous(address: SocketAddr) -> Self {
        Self { address, credential: None }
    }

    /// The same server with another credential.
    pub(crate) fn with(&self, credential: impl Into<String>) -> Self {
        Self { address: self.address, credential: Some(credential.into()) }
    }

    /// `GET`
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None).await
    }

    /// `POST` with a JSON body.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], Some(body.to_string().as_bytes())).await
    }

    /// As [`Self::post`], by another method.
    pub(crate) async fn post_as(&self, method: &str, path: &str, body: Value) -> Answer {
        self.send(method, path, &[("content-type", "application/json")], Some(body.to_string().as_bytes())).await
    }

    /// `POST` without a body, as the SDKs do: no content type, no content length.
    pub(crate) async fn post_nothing(&self, path: &str) -> Answer {
        self.send("POST", path, &[], None).await
    }

    /// `PUT` with a JSON body.
    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, &[("content-type", "application/json")], Some(body.to_string().as_bytes())).await
    }

    /// `PATCH` with a JSON body.
    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send("PATCH", path, &[("content-type", "application/json")], Some(body.to_string().as_bytes())).await
    }

    /// `DELETE`
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], None).await
    }

    /// Any request; the answer is checked against the document.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        let answer = self.exchange(method, path, headers, body).await;
        let document = self.document().await;
        check(document, method, path, &answer);
        answer
    }

    /// Any request, unchecked.
    pub(crate) async fn exchange(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {}\r\n", self.address));
        }
        if let Some(credential) = &self.credential {
            head.push_str(&format!("Authorization: Bearer {credential}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("Connection: close\r\n\r\n");
        let exchange = async {
            let mut tcp = tokio::net::TcpStream::connect(self.address).await.unwrap();
            tcp.write_all(head.as_bytes()).await.unwrap();
            // A server that refuses a body may close before it has read it all.
            drop(tcp.write_all(body.unwrap_or_default()).await);
            let mut answer = Vec::new();
            drop(tcp.read_to_end(&mut answer).await);
            answer
        };
        parse(&timeout(DEADLINE, exchange).await.unwrap())
    }

    /// The server's OpenAPI document.
    pub(crate) async fn document(&self) -> &'static Value {
        if let Some(document) = DOCUMENT.get() {
            return document;
        }
        let anonymous = Self::anonymous(self.address);
        let mut document = anonymous.exchange("GET", "/api/openapi.json", &[], None).await.json;
        forbid_unknown_properties(&mut document["paths"], false);
        forbid_unknown_properties(&mut document["components"], false);
        DOCUMENT.get_or_init(|| document)
    }
}

fn parse(answer: &[u8]) -> Answer {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| {
        panic!("no answer but {:?}", String::from_utf8_lossy(answer));
    });
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().unwrap()[9..12].parse().unwrap();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let mut body = answer[end + 4..].to_vec();
    if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        body = unchunked(&body);
    }
    let json = serde_json::from_slice(&body).unwrap_or_default();
    Answer { status, headers, body, json }
}

/// RFC 9112 §7.1: joins the chunks, up to the end of the octets.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        rest = &rest[end + 2..];
        body.extend_from_slice(&rest[..size.min(rest.len())]);
        rest = rest.get(size + 2..).unwrap_or_default();
    }
    body
}

/// Closes every use of a schema, so that a key which the document does not know is a failure.
fn forbid_unknown_properties(value: &mut Value, part_of_all: bool) {
    match value {
        Value::Object(object) => {
            if object.contains_key("$ref") && !part_of_all {
                object.insert("unevaluatedProperties".to_owned(), Value::Bool(false));
            }
            for (key, inner) in object.iter_mut() {
                if key == "allOf" {
                    inner.as_array_mut().into_iter().flatten().for_each(|part| forbid_unknown_properties(part, true));
                } else {
                    forbid_unknown_properties(inner, false);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| forbid_unknown_properties(item, false)),
        _ => {}
    }
}

/// The template of the document that a path fits: literal segments before parameters.
pub(crate) fn template<'d>(document: &'d Value, path: &str) -> Option<&'d str> {
    let path = path.split('?').next().unwrap_or(path);
    let asked: Vec<&str> = path.split('/').collect();
    let is_parameter = |segment: &str| segment.starts_with('{');
    let fits = |template: &str| {
        let parts: Vec<&str> = template.split('/').collect();
        parts.len() == asked.len()
            && parts
                .iter()
                .zip(&asked)
                .all(|(part, segment)| part == segment || (is_parameter(part) && !segment.is_empty()))
    };
    let fitting = document["paths"].as_object().unwrap().keys().filter(|template| fits(template));
    fitting.map(String::as_str).min_by_key(|template| template.split('/').filter(|part| is_parameter(part)).count())
}

/// Follows a `$ref`; returns any other value as it is.
pub(crate) fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    let pointer = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    pointer.map_or(value, |pointer| document.pointer(pointer).unwrap())
}

/// Checks an answer against the document.
fn check(document: &Value, method: &str, path: &str, answer: &Answer) {
    let Some(template) = template(document, path) else { return };
    let verb = if method == "HEAD" { "get".to_owned() } else { method.to_lowercase() };
    let operation = &document["paths"][template][&verb];
    if operation.is_null() {
        return;
    }
    if method == "OPTIONS" {
        return;
    }
    let response = resolved(document, &operation["responses"][answer.status.to_string()]);
    assert!(
        !response.is_null(),
        "{method} {template} does not document {}: {}",
        answer.status,
        String::from_utf8_lossy(&answer.body)
    );
    let schema = &response["content"]["application/json"]["schema"];
    if schema.is_null() || method == "HEAD" {
        return;
    }
    let whole = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "components": document["components"],
        "allOf": [schema],
    });
    let validator = jsonschema::validator_for(&whole).unwrap();
    let problems: Vec<String> =
        validator.iter_errors(&answer.json).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(problems.is_empty(), "{method} {template} {}: {problems:#?}\n{}", answer.status, answer.json);
}
