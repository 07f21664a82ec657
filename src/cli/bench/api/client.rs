//! A keep-alive HTTP connection to the API under test.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, HOST};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

/// Where the API is and what opens it.
pub struct Api {
    address: SocketAddr,
    authorization: String,
}

/// One connection; a request at a time.
pub struct Client {
    requests: SendRequest<Empty<Bytes>>,
    authorization: String,
    host: String,
}

/// What is read of a row of a list.
#[derive(Debug, Deserialize)]
pub struct ListedRow {
    /// Public id.
    pub id: String,
    /// The cursor.
    pub received_at: i64,
}

impl Api {
    /// Of a server, with an account's key.
    pub fn new(address: SocketAddr, key: &str) -> Self {
        Self { address, authorization: format!("Bearer {key}") }
    }

    /// Opens a connection.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(self.address).await.context("connecting to the API")?;
        stream.set_nodelay(true)?;
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client { requests, authorization: self.authorization.clone(), host: self.address.to_string() })
    }
}

impl Client {
    /// The body of a 200.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Bytes> {
        let request = Request::get(path)
            .header(HOST, &self.host)
            .header(AUTHORIZATION, &self.authorization)
            .body(Empty::new())?;
        self.requests.ready().await?;
        let response = self.requests.send_request(request).await.with_context(|| format!("asking for {path}"))?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status != hyper::StatusCode::OK {
            bail!("{path} was answered {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    /// The rows of a list.
    pub async fn rows(&mut self, path: &str) -> anyhow::Result<Vec<ListedRow>> {
        Ok(serde_json::from_slice(&self.get(path).await?)?)
    }
}
