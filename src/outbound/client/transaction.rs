//! One mail transaction: MAIL, RCPT, DATA, and the outcomes that their replies mean.

use std::time::Duration;

use tokio::time::Instant;

use super::extensions::is_international;
use super::{Reply, Session, SessionError};
use crate::mail::address::Mailbox;
use crate::outbound::queue::refusal::Stage;
use crate::outbound::{DeliveryRequest, Outcome};

/// Octets of message data written at a time.
const BLOCK: usize = 32 * 1024;
/// Timeout for a reply that the host has sent already, if at all.
const PENDING_REPLY: Duration = Duration::from_secs(5);

/// The end of a transaction.
pub(crate) struct TransactionResult {
    /// For each recipient; `None` where the session broke before a reply decided.
    pub(crate) outcomes: Vec<Option<Outcome>>,
    /// The error that broke the session.
    pub(crate) error: Option<SessionError>,
    /// Message data was sent, so another host must not get it in this attempt.
    pub(crate) data_sent: bool,
    /// Another transaction may follow on the session.
    pub(crate) reusable: bool,
}

/// State of the session after a transaction.
enum State {
    /// Ready for another transaction.
    Ready,
    /// Within the transaction: RSET is needed.
    Open,
    /// Out of step with the host.
    Unusable,
}

impl TransactionResult {
    /// Gives an outcome to the recipients without one.
    fn settle_rest(&mut self, outcome: &Outcome) {
        self.outcomes.iter_mut().filter(|one| one.is_none()).for_each(|one| *one = Some(outcome.clone()));
    }

    /// Iterates over the missing outcomes, in their order.
    fn missing(&mut self) -> impl Iterator<Item = &mut Option<Outcome>> {
        self.outcomes.iter_mut().filter(|one| one.is_none())
    }
}

impl Session {
    /// Sends a request's message to `recipients`, which are some of its own, until `deadline`.
    pub(crate) async fn send(
        &mut self,
        request: &DeliveryRequest,
        recipients: &[Mailbox],
        deadline: Instant,
    ) -> TransactionResult {
        self.transactions += 1;
        self.deadline = deadline;
        let mut result = TransactionResult {
            outcomes: vec![None; recipients.len()],
            error: None,
            data_sent: false,
            reusable: false,
        };
        self.extensions.refuse_international(request, recipients, &mut result.outcomes);
        if result.outcomes.iter().all(Option::is_some) {
            result.reusable = true;
            return result;
        }
        let request = match self.extensions.adapt(request).await {
            Ok(request) => request,
            Err(refusal) => {
                result.settle_rest(&refusal);
                result.reusable = true;
                return result;
            }
        };
        match self.transact(&request, recipients, &mut result).await {
            Ok(State::Ready) => result.reusable = true,
            // RFC 5321 §4.1.1.5: the session is usable after a refusal.
            Ok(State::Open) => {
                result.reusable = self.command("RSET", "RSET").await.is_ok_and(|reply| reply.is_positive());
            }
            Ok(State::Unusable) => {}
            Err(error) => result.error = Some(error),
        }
        result
    }

    /// Runs one transaction for the recipients without an outcome.
    async fn transact(
        &mut self,
        request: &DeliveryRequest,
        recipients: &[Mailbox],
        result: &mut TransactionResult,
    ) -> Result<State, SessionError> {
        let undecided = recipients.iter().zip(&result.outcomes).filter(|(_, outcome)| outcome.is_none());
        let recipients: Vec<&Mailbox> = undecided.map(|(recipient, _)| recipient).collect();
        let mut commands = vec![self.mail_command(request, &recipients)];
        commands.extend(recipients.iter().map(|recipient| format!("RCPT TO:<{recipient}>")));
        let data = if self.extensions.pipelining {
            commands.push("DATA".to_owned());
            self.pipelined(&commands, result).await?
        } else {
            self.one_by_one(&commands, result).await?
        };
        let Some(data) = data else {
            // No recipient is left.
            return Ok(State::Open);
        };
        if data.code != 354 {
            if data.code == 421 || !(400..600).contains(&data.code) {
                return Err(SessionError::Refused(data));
            }
            result.settle_rest(&data.outcome(Stage::Data));
            return Ok(State::Open);
        }
        if !result.outcomes.iter().any(Option::is_none) {
            // RFC 2920 §3.1: DATA was accepted although no recipient was, so end it without data.
            self.transcript.client(".");
            self.write(b".\r\n").await?;
            let reply = self.read_reply("the final dot", self.timeouts.data).await?;
            return Ok(if reply.code == 421 { State::Unusable } else { State::Ready });
        }
        if !self.input.is_empty() {
            // The host replies before it has the data. Only a refusal can be believed; anything else would be taken
            // for the reply to the final dot.
            let early = self.read_reply("the rest of a reply", PENDING_REPLY).await?;
            return match early.code {
                421 => Err(SessionError::Refused(early)),
                400.. => {
                    result.settle_rest(&early.outcome(Stage::Data));
                    Ok(State::Unusable)
                }
                _ => Err(SessionError::Malformed("it answers what was not said")),
            };
        }
        result.data_sent = true;
        if let Err(error) = self.write_data(&request.data).await {
            // The host may have sent the reason before it closed.
            let pending = self.read_reply("the final dot", PENDING_REPLY).await;
            let reply = pending.ok().filter(|reply| reply.code >= 400 && reply.code != 421).ok_or(error)?;
            result.settle_rest(&reply.outcome(Stage::Data));
            return Ok(State::Unusable);
        }
        let last = self.read_reply("the reply to the final dot", self.timeouts.end_of_data).await?;
        if last.code == 421 {
            return Err(SessionError::Refused(last));
        }
        result.settle_rest(&last.outcome(Stage::Data));
        Ok(State::Ready)
    }

    fn mail_command(&self, request: &DeliveryRequest, recipients: &[&Mailbox]) -> String {
        let mut command = match &request.reverse_path {
            Some(mailbox) => format!("MAIL FROM:<{mailbox}>"),
            None => "MAIL FROM:<>".to_owned(),
        };
        if self.extensions.size.is_some() {
            command.push_str(&format!(" SIZE={}", request.data.len()));
        }
        if self.extensions.eight_bit && !request.data.is_ascii() {
            command.push_str(" BODY=8BITMIME");
        }
        let mut addresses = request.reverse_path.iter().chain(recipients.iter().copied());
        // RFC 6531 §3.4: also where only the header is international.
        if addresses.any(is_international) || (self.extensions.smtputf8 && request.ascii.is_some()) {
            command.push_str(" SMTPUTF8");
        }
        command
    }

    /// Sends MAIL, every RCPT and DATA in one group (RFC 2920 §3.1); returns the reply to DATA if data has to follow,
    /// or a recipient is left.
    async fn pipelined(
        &mut self,
        commands: &[String],
        result: &mut TransactionResult,
    ) -> Result<Option<Reply>, SessionError> {
        let recipients = result.outcomes.iter().filter(|one| one.is_none()).count();
        let mut octets = Vec::new();
        for command in commands {
            self.transcript.client(command);
            octets.extend_from_slice(command.as_bytes());
            octets.extend_from_slice(b"\r\n");
        }
        self.write(&octets).await?;
        let mail = self.reply_to("MAIL").await?;
        if !mail.is_positive() {
            // The reply counts even if the host closes now.
            result.settle_rest(&mail.outcome(Stage::Mail));
            for _ in 0..recipients {
                self.reply_to("RCPT").await?;
            }
        }
        for outcome in result.missing() {
            let reply = self.reply_to("RCPT").await?;
            if !reply.is_positive() {
                *outcome = Some(reply.outcome(Stage::Rcpt));
            }
        }
        let data = self.read_reply("DATA", self.timeouts.data).await?;
        Ok((data.code == 354 || result.outcomes.iter().any(Option::is_none)).then_some(data))
    }

    /// Sends one command at a time, and DATA only if a recipient was accepted; returns the reply to DATA.
    async fn one_by_one(
        &mut self,
        commands: &[String],
        result: &mut TransactionResult,
    ) -> Result<Option<Reply>, SessionError> {
        let Some((mail, recipients)) = commands.split_first() else { return Ok(None) };
        self.write_command(mail).await?;
        let reply = self.reply_to("MAIL").await?;
        if !reply.is_positive() {
            result.settle_rest(&reply.outcome(Stage::Mail));
            return Ok(None);
        }
        for (command, outcome) in recipients.iter().zip(result.missing()) {
            self.write_command(command).await?;
            let reply = self.reply_to("RCPT").await?;
            if !reply.is_positive() {
                *outcome = Some(reply.outcome(Stage::Rcpt));
            }
        }
        if result.outcomes.iter().all(Option::is_some) {
            return Ok(None);
        }
        self.write_command("DATA").await?;
        self.read_reply("DATA", self.timeouts.data).await.map(Some)
    }

    /// Reads the reply to MAIL or RCPT; 421 ends the session.
    async fn reply_to(&mut self, command: &'static str) -> Result<Reply, SessionError> {
        let reply = self.read_reply(command, self.timeouts.command).await?;
        if reply.code == 421 { Err(SessionError::Refused(reply)) } else { Ok(reply) }
    }

    /// Writes the message data, dot-stuffed (RFC 5321 §4.5.2), with the final dot, a block at a time.
    async fn write_data(&mut self, data: &[u8]) -> Result<(), SessionError> {
        self.transcript.client(&format!("<{} octets of mail data>", data.len()));
        let mut block = Vec::with_capacity(BLOCK + 1024);
        let mut rest = data;
        while !rest.is_empty() {
            let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
            let (line, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            if line.first() == Some(&b'.') {
                block.push(b'.');
            }
            block.extend_from_slice(line);
            rest = after;
            if block.len() >= BLOCK {
                self.write_within(&block, self.timeouts.data).await?;
                block.clear();
            }
        }
        if !data.is_empty() && !data.ends_with(b"\r\n") {
            block.extend_from_slice(b"\r\n");
        }
        block.extend_from_slice(b".\r\n");
        self.write_within(&block, self.timeouts.data).await
    }
}
