//! Opens a session: greeting, EHLO, STARTTLS, AUTH.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::ServerName;
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;

use super::extensions::Extensions;
use super::{ConnectOptions, GREETING, Session, SessionError};
use crate::net::tls;
use crate::outbound::{Host, TlsRule};

impl Session {
    pub(super) async fn begin(&mut self, host: &Host, options: &ConnectOptions<'_>) -> Result<(), SessionError> {
        if options.implicit_tls
            && let Some(connector) = &options.tls
        {
            self.tls_handshake(host, connector).await.map_err(|error| with_policy(error, &host.tls))?;
        }
        let greeting = self.read_reply(GREETING, options.greeting).await?;
        if !greeting.is_positive() {
            return Err(SessionError::Refused(greeting));
        }
        self.hello(options.helo).await?;
        if self.tls.is_none()
            && let Some(connector) = &options.tls
        {
            let started = self.start_tls(host, connector, options.helo).await;
            started.map_err(|error| with_policy(error, &host.tls))?;
        }
        if let Some((user, password)) = options.auth {
            self.authenticate(user, password).await?;
        }
        Ok(())
    }

    async fn hello(&mut self, helo: &str) -> Result<(), SessionError> {
        let reply = self.command(&format!("EHLO {helo}"), "EHLO").await?;
        if reply.is_positive() {
            self.extensions = Extensions::from_ehlo(&reply);
            return Ok(());
        }
        // RFC 5321 §3.2: an old host may know only HELO.
        self.extensions = Extensions::default();
        let reply = match reply.code {
            500..=504 | 550 => self.command(&format!("HELO {helo}"), "HELO").await?,
            _ => reply,
        };
        if reply.is_positive() { Ok(()) } else { Err(SessionError::Refused(reply)) }
    }

    async fn start_tls(&mut self, host: &Host, connector: &TlsConnector, helo: &str) -> Result<(), SessionError> {
        let optional = host.tls == TlsRule::Opportunistic;
        if !self.extensions.starttls {
            return if optional { Ok(()) } else { Err(SessionError::Tls("STARTTLS is not offered".to_owned())) };
        }
        let reply = self.command("STARTTLS", "STARTTLS").await.map_err(lost_over_tls)?;
        if reply.code == 421 {
            return Err(SessionError::Tls(format!("STARTTLS: {}", reply.text())));
        }
        if reply.code != 220 {
            self.refuses_tls = true;
            return if optional { Ok(()) } else { Err(SessionError::Tls(format!("STARTTLS: {}", reply.text()))) };
        }
        // RFC 3207 §6: plain text after the reply was injected by a man in the middle.
        if !self.input.is_empty() {
            return Err(SessionError::Tls("plain text came behind the reply to STARTTLS".to_owned()));
        }
        self.tls_handshake(host, connector).await?;
        // RFC 8446 §2: the client completes the handshake first, so an alert of the host may arrive only with the next
        // reply.
        self.hello(helo).await.map_err(lost_over_tls)
    }

    async fn tls_handshake(&mut self, host: &Host, connector: &TlsConnector) -> Result<(), SessionError> {
        let name = ServerName::try_from(host.name.clone())
            .map_err(|_| SessionError::Tls(format!("{} is no name for a certificate", host.name)))?;
        let plain = std::mem::replace(&mut self.wire, Box::new(tokio::io::empty()));
        let connected = timeout_at(self.until(self.timeouts.command), connector.connect(name, plain)).await;
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let reason = format!("TLS failed: {}", handshake_failure(&error));
                self.transcript.note(&reason);
                return Err(SessionError::Tls(reason));
            }
            Err(_) => return Err(SessionError::Tls("the TLS handshake has no end".to_owned())),
        };
        let version = stream.get_ref().1.protocol_version();
        self.tls = Some(match version {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3".to_owned(),
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2".to_owned(),
            other => format!("{other:?}"),
        });
        self.transcript.note(&format!("TLS: {}", self.tls.as_deref().unwrap_or_default()));
        self.wire = Box::new(stream);
        Ok(())
    }

    async fn authenticate(&mut self, user: &str, password: &str) -> Result<(), SessionError> {
        let supports = |mechanism: &str| self.extensions.auth.iter().any(|one| one.eq_ignore_ascii_case(mechanism));
        let reply = if supports("PLAIN") {
            let response = BASE64.encode(format!("\0{user}\0{password}"));
            self.transcript.client("AUTH PLAIN <credentials>");
            self.write(format!("AUTH PLAIN {response}\r\n").as_bytes()).await?;
            self.read_reply("AUTH", self.timeouts.command).await?
        } else if supports("LOGIN") {
            let mut reply = self.command("AUTH LOGIN", "AUTH").await?;
            for response in [user, password] {
                if reply.code != 334 {
                    break;
                }
                self.transcript.client("<credentials>");
                self.write(format!("{}\r\n", BASE64.encode(response)).as_bytes()).await?;
                reply = self.read_reply("AUTH", self.timeouts.command).await?;
            }
            reply
        } else {
            return Err(SessionError::Tls("neither AUTH PLAIN nor AUTH LOGIN is offered".to_owned()));
        };
        if reply.is_positive() { Ok(()) } else { Err(SessionError::Auth(reply)) }
    }
}

/// Adds to a TLS error whose policy requires TLS, unless it is opportunistic.
fn with_policy(error: SessionError, rule: &TlsRule) -> SessionError {
    let policy = match rule {
        TlsRule::Opportunistic | TlsRule::Never => return error,
        TlsRule::Verified { by: "MTA-STS" } => "the domain's MTA-STS policy requires TLS with a valid certificate",
        TlsRule::Verified { .. } => "the smarthost has to show a valid certificate",
        TlsRule::Dane(_) => "the host's TLSA records require TLS",
    };
    match error {
        SessionError::Tls(reason) => SessionError::Tls(format!("{reason} ({policy})")),
        other => other,
    }
}

fn handshake_failure(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(error) => tls::reason(error),
        None => error.to_string(),
    }
}

/// Counts a connection that is lost right after the handshake as a TLS error, so that plain text is tried.
fn lost_over_tls(error: SessionError) -> SessionError {
    match error {
        SessionError::Connection(reason) => SessionError::Tls(format!("TLS failed: {reason}")),
        SessionError::Timeout(step) => SessionError::Tls(format!("TLS failed: timed out waiting for {step}")),
        other => other,
    }
}
