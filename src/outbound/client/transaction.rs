//! One mail transaction: MAIL, RCPT, DATA, and the verdicts that the replies to them are.

use std::time::Duration;

use tokio::time::Instant;

use super::extensions::is_international;
use super::{Reply, Session, SessionError};
use crate::mail::address::Mailbox;
use crate::outbound::queue::refusal::Stage;
use crate::outbound::{DeliveryRequest, Outcome};

/// Octets written at a time.
const PIECE: usize = 32 * 1024;
/// For a reply that was said already, if at all.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How a transaction ended: what it decided, and whether the session is of further use.
pub(crate) struct TransactionResult {
    /// For each recipient; none: the host's trouble came before a decision.
    pub(crate) outcomes: Vec<Option<Outcome>>,
    /// What broke it.
    pub(crate) fault: Option<SessionError>,
    /// Whether mail data went out, so that another host must not get it at once.
    pub(crate) data_sent: bool,
    /// Whether another transaction may follow.
    pub(crate) reusable: bool,
}

/// Where a transaction leaves the session.
enum State {
    /// Ready for another.
    Done,
    /// In the middle of it.
    Open,
    /// Nobody knows.
    Lost,
}

impl TransactionResult {
    /// Gives an outcome to all who have none.
    fn settle_rest(&mut self, outcome: &Outcome) {
        self.outcomes.iter_mut().filter(|one| one.is_none()).for_each(|one| *one = Some(outcome.clone()));
    }

    /// The places of those who have none, in their order.
    fn open(&mut self) -> impl Iterator<Item = &mut Option<Outcome>> {
        self.outcomes.iter_mut().filter(|one| one.is_none())
    }
}

impl Session {
    /// Takes a parcel's mail to some of its recipients, until `deadline`.
    pub(crate) async fn send(
        &mut self,
        parcel: &DeliveryRequest,
        recipients: &[Mailbox],
        deadline: Instant,
    ) -> TransactionResult {
        self.transactions += 1;
        self.deadline = deadline;
        let mut ended = TransactionResult {
            outcomes: vec![None; recipients.len()],
            fault: None,
            data_sent: false,
            reusable: false,
        };
        self.offers.refuse_international(parcel, recipients, &mut ended.outcomes);
        if ended.outcomes.iter().all(Option::is_some) {
            ended.reusable = true;
            return ended;
        }
        let parcel = match self.offers.adapt(parcel).await {
            Ok(parcel) => parcel,
            Err(refusal) => {
                ended.settle_rest(&refusal);
                ended.reusable = true;
                return ended;
            }
        };
        match self.transact(&parcel, recipients, &mut ended).await {
            Ok(State::Done) => ended.reusable = true,
            // A refusal costs no connection (RFC 5321 §4.1.1.5).
            Ok(State::Open) => {
                ended.reusable = self.command("RSET", "RSET").await.is_ok_and(|reply| reply.is_positive());
            }
            Ok(State::Lost) => {}
            Err(fault) => ended.fault = Some(fault),
        }
        ended
    }

    /// One transaction for the recipients that have no verdict yet.
    async fn transact(
        &mut self,
        parcel: &DeliveryRequest,
        recipients: &[Mailbox],
        ended: &mut TransactionResult,
    ) -> Result<State, SessionError> {
        let open = recipients.iter().zip(&ended.outcomes).filter(|(_, outcome)| outcome.is_none());
        let recipients: Vec<&Mailbox> = open.map(|(recipient, _)| recipient).collect();
        let mut commands = vec![self.mail_command(parcel, &recipients)];
        commands.extend(recipients.iter().map(|recipient| format!("RCPT TO:<{recipient}>")));
        let data = if self.offers.pipelining {
            commands.push("DATA".to_owned());
            self.pipelined(&commands, ended).await?
        } else {
            self.in_turn(&commands, ended).await?
        };
        let Some(data) = data else {
            // No recipient is left; the session stands, but in the middle of a transaction.
            return Ok(State::Open);
        };
        if data.code != 354 {
            if data.code == 421 || !(400..600).contains(&data.code) {
                return Err(SessionError::Refused(data));
            }
            ended.settle_rest(&data.outcome(Stage::Data));
            return Ok(State::Open);
        }
        if !ended.outcomes.iter().any(Option::is_none) {
            // It waits for data that nobody is to have.
            self.transcript.client(".");
            self.write(b".\r\n").await?;
            let reply = self.read_reply("the final dot", self.timeouts.data).await?;
            return Ok(if reply.code == 421 { State::Lost } else { State::Done });
        }
        if !self.input.is_empty() {
            // It decides before it has the data. That is nothing to believe unless it is a refusal; and whatever else it
            // says would be taken for the reply to the final dot.
            let early = self.read_reply("the rest of a reply", LAST_WORDS).await?;
            return match early.code {
                421 => Err(SessionError::Refused(early)),
                400.. => {
                    ended.settle_rest(&early.outcome(Stage::Data));
                    Ok(State::Lost)
                }
                _ => Err(SessionError::Malformed("it answers what was not said")),
            };
        }
        ended.data_sent = true;
        if let Err(fault) = self.write_data(&parcel.data).await {
            // It may have said why it hung up.
            let said = self.read_reply("the final dot", LAST_WORDS).await;
            let reply = said.ok().filter(|reply| reply.code >= 400 && reply.code != 421).ok_or(fault)?;
            ended.settle_rest(&reply.outcome(Stage::Data));
            return Ok(State::Lost);
        }
        let last = self.read_reply("the reply to the final dot", self.timeouts.end_of_data).await?;
        if last.code == 421 {
            return Err(SessionError::Refused(last));
        }
        ended.settle_rest(&last.outcome(Stage::Data));
        Ok(State::Done)
    }

    fn mail_command(&self, parcel: &DeliveryRequest, recipients: &[&Mailbox]) -> String {
        let mut command = match &parcel.reverse_path {
            Some(mailbox) => format!("MAIL FROM:<{mailbox}>"),
            None => "MAIL FROM:<>".to_owned(),
        };
        if self.offers.size.is_some() {
            command.push_str(&format!(" SIZE={}", parcel.data.len()));
        }
        if self.offers.eight_bit && !parcel.data.is_ascii() {
            command.push_str(" BODY=8BITMIME");
        }
        let mut addresses = parcel.reverse_path.iter().chain(recipients.iter().copied());
        // RFC 6531 §3.4: also where only the header is international.
        if addresses.any(is_international) || (self.offers.smtputf8 && parcel.ascii.is_some()) {
            command.push_str(" SMTPUTF8");
        }
        command
    }

    /// MAIL, every RCPT and DATA in one go (RFC 2920 §3.1); returns the reply to DATA.
    async fn pipelined(
        &mut self,
        commands: &[String],
        ended: &mut TransactionResult,
    ) -> Result<Option<Reply>, SessionError> {
        let recipients = ended.outcomes.iter().filter(|one| one.is_none()).count();
        let mut octets = Vec::new();
        for command in commands {
            self.transcript.client(command);
            octets.extend_from_slice(command.as_bytes());
            octets.extend_from_slice(b"\r\n");
        }
        self.write(&octets).await?;
        let mail = self.reply_to("MAIL").await?;
        if !mail.is_positive() {
            // It may hang up now; what it said counts nevertheless.
            ended.settle_rest(&mail.outcome(Stage::Mail));
            for _ in 0..recipients {
                self.reply_to("RCPT").await?;
            }
        }
        for outcome in ended.open() {
            let reply = self.reply_to("RCPT").await?;
            if !reply.is_positive() {
                *outcome = Some(reply.outcome(Stage::Rcpt));
            }
        }
        let data = self.read_reply("DATA", self.timeouts.data).await?;
        Ok((data.code == 354 || ended.outcomes.iter().any(Option::is_none)).then_some(data))
    }

    /// One command at a time; DATA only when a recipient was accepted.
    async fn in_turn(
        &mut self,
        commands: &[String],
        ended: &mut TransactionResult,
    ) -> Result<Option<Reply>, SessionError> {
        let Some((mail, recipients)) = commands.split_first() else { return Ok(None) };
        self.write_command(mail).await?;
        let reply = self.reply_to("MAIL").await?;
        if !reply.is_positive() {
            ended.settle_rest(&reply.outcome(Stage::Mail));
            return Ok(None);
        }
        for (command, outcome) in recipients.iter().zip(ended.open()) {
            self.write_command(command).await?;
            let reply = self.reply_to("RCPT").await?;
            if !reply.is_positive() {
                *outcome = Some(reply.outcome(Stage::Rcpt));
            }
        }
        if ended.outcomes.iter().all(Option::is_some) {
            return Ok(None);
        }
        self.write_command("DATA").await?;
        self.read_reply("DATA", self.timeouts.data).await.map(Some)
    }

    /// A reply to MAIL or RCPT; 421 ends the session.
    async fn reply_to(&mut self, what: &'static str) -> Result<Reply, SessionError> {
        let reply = self.read_reply(what, self.timeouts.command).await?;
        if reply.code == 421 { Err(SessionError::Refused(reply)) } else { Ok(reply) }
    }

    /// Dot-stuffed (RFC 5321 §4.5.2) and ended by the final dot, a piece at a time.
    async fn write_data(&mut self, data: &[u8]) -> Result<(), SessionError> {
        self.transcript.client(&format!("<{} octets of mail data>", data.len()));
        let mut piece = Vec::with_capacity(PIECE + 1024);
        let mut rest = data;
        while !rest.is_empty() {
            let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
            let (line, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            if line.first() == Some(&b'.') {
                piece.push(b'.');
            }
            piece.extend_from_slice(line);
            rest = after;
            if piece.len() >= PIECE {
                self.write_within(&piece, self.timeouts.data).await?;
                piece.clear();
            }
        }
        if !data.is_empty() && !data.ends_with(b"\r\n") {
            piece.extend_from_slice(b"\r\n");
        }
        piece.extend_from_slice(b".\r\n");
        self.write_within(&piece, self.timeouts.data).await
    }
}
