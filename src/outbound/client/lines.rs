//! Writes commands and reads replies, each within its timeout.

use std::time::Duration;

use bytes::Buf as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout_at;

use super::reply::{Reply, ReplyLine};
use super::{Session, SessionError};

/// Octets of one line of a reply.
const MAX_LINE: usize = 2 * 1024;
/// Octets of a whole reply.
const MAX_REPLY: usize = 64 * 1024;

impl Session {
    pub(super) async fn command(&mut self, command: &str, step: &'static str) -> Result<Reply, SessionError> {
        self.write_command(command).await?;
        self.read_reply(step, self.timeouts.command).await
    }

    pub(super) async fn write_command(&mut self, command: &str) -> Result<(), SessionError> {
        self.transcript.client(command);
        self.write(format!("{command}\r\n").as_bytes()).await
    }

    pub(super) async fn write(&mut self, octets: &[u8]) -> Result<(), SessionError> {
        self.write_within(octets, self.timeouts.command).await
    }

    pub(super) async fn write_within(&mut self, octets: &[u8], limit: Duration) -> Result<(), SessionError> {
        let until = self.until(limit);
        let writing = async {
            self.wire.write_all(octets).await?;
            self.wire.flush().await
        };
        match timeout_at(until, writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(SessionError::Connection(format!("the connection was lost: {error}"))),
            Err(_) => Err(SessionError::Timeout("what we send to be taken")),
        }
    }

    pub(super) async fn read_reply(&mut self, step: &'static str, limit: Duration) -> Result<Reply, SessionError> {
        let reply =
            timeout_at(self.until(limit), self.read_lines()).await.unwrap_or(Err(SessionError::Timeout(step)))?;
        self.transcript.server(&reply);
        Ok(reply)
    }

    async fn read_lines(&mut self) -> Result<Reply, SessionError> {
        let mut lines = Vec::new();
        let mut octets = 0;
        loop {
            let line = self.read_line().await?;
            octets += line.len();
            if octets > MAX_REPLY {
                return Err(SessionError::Malformed("its reply does not end"));
            }
            let ReplyLine { code, is_last, text } =
                ReplyLine::parse(&line).ok_or(SessionError::Malformed("it does not speak SMTP"))?;
            lines.push(text);
            if is_last {
                return Ok(Reply { code, lines });
            }
        }
    }

    async fn read_line(&mut self) -> Result<Vec<u8>, SessionError> {
        let mut searched = 0;
        loop {
            let unread = self.input.get(searched..).unwrap_or_default();
            if let Some(end) = memchr::memchr(b'\n', unread) {
                let mut line = self.input.split_to(searched + end + 1);
                line.truncate(line.len() - 1);
                if line.last() == Some(&b'\r') {
                    line.truncate(line.len() - 1);
                }
                return Ok(line.to_vec());
            }
            searched = self.input.len();
            if searched > MAX_LINE {
                self.input.advance(searched);
                return Err(SessionError::Malformed("a line of its reply does not end"));
            }
            match self.wire.read_buf(&mut self.input).await {
                Ok(0) => return Err(SessionError::Connection("the connection was closed".to_owned())),
                Ok(_) => {}
                Err(error) => return Err(SessionError::Connection(format!("the connection was lost: {error}"))),
            }
        }
    }
}
