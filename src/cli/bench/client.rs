//! A keep-alive HTTP connection to the API under test.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

/// The address and credential of the API.
pub(crate) struct Api {
    address: SocketAddr,
    authorization: String,
}

/// One connection; sends one request at a time.
pub(crate) struct Client {
    requests: SendRequest<Full<Bytes>>,
    authorization: String,
    host: String,
}

/// The fields read of a row of a list.
#[derive(Debug, Deserialize)]
pub(crate) struct ListedRow {
    pub(crate) id: String,
    /// The cursor.
    pub(crate) received_at: i64,
}

impl Api {
    /// Takes a server's address and an account's key.
    pub(crate) fn new(address: SocketAddr, key: &str) -> Self {
        Self { address, authorization: format!("Bearer {key}") }
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(self.address).await.context("connecting to the API")?;
        stream.set_nodelay(true)?;
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client { requests, authorization: self.authorization.clone(), host: self.address.to_string() })
    }
}

impl Client {
    /// Returns the body of a 200.
    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<Bytes> {
        self.ask(Method::GET, path, Bytes::new(), StatusCode::OK).await
    }

    /// Posts JSON and returns the body of a 202.
    pub(crate) async fn post(&mut self, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        self.ask(Method::POST, path, body, StatusCode::ACCEPTED).await
    }

    async fn ask(&mut self, method: Method, path: &str, body: Bytes, wanted: StatusCode) -> anyhow::Result<Bytes> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.host)
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        self.requests.ready().await?;
        let response = self.requests.send_request(request).await.with_context(|| format!("requesting {path}"))?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status != wanted {
            bail!("{path} was answered {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    /// Returns the rows of a list.
    pub(crate) async fn rows(&mut self, path: &str) -> anyhow::Result<Vec<ListedRow>> {
        Ok(serde_json::from_slice(&self.get(path).await?)?)
    }
}
