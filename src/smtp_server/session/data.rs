//! DATA: reads the mail to its end whatever the reply will be, then stores or submits it.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::log::{Answer, Transaction};
use super::{Accepted, End, READ_FIRST, READ_LARGE, Session};
use crate::inbound::ReceiveError;
use crate::mail::envelope::Envelope;
use crate::mail::reply::Reply;
use crate::memory_budget::Reservation;
use crate::metrics::MessageRefused;
use crate::smtp_server::data::{DataReader, MailDataBuffer, Progress};
use crate::store::blobs::pending::MailData;

/// Data that stays slower than this beyond the grace period is refused.
const MIN_DATA_BYTES_PER_SEC: u64 = 500;
const DATA_RATE_GRACE: Duration = Duration::from_secs(30);
/// A client that pauses for longer may hold no more than …
const SPILL_AFTER: Duration = Duration::from_secs(2);
/// … this many octets in memory.
const MAX_HELD_WHILE_IDLE: usize = 4 * 1024;

/// The reasons that mail data does not come to its end.
enum Broken {
    /// We close, with this reply.
    Closed(Reply),
    Disconnected,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Executes DATA: reads the mail and replies.
    pub(super) async fn data(&mut self) -> Result<(), End> {
        let envelope = match self.phase.data() {
            Ok(envelope) => envelope,
            Err(reply) => return self.refuse_data(&reply),
        };
        let transaction = Transaction::begin(&envelope);
        let budget = self.shared.budget.clone();
        if budget.must_refuse() {
            self.log_broken_off(transaction, Some(&Reply::STORAGE_FULL));
            return self.refuse_data(&Reply::STORAGE_FULL);
        }
        let mut memory = budget.reservation();
        self.reply(&Reply::START_DATA);
        self.has_sent_data = true;
        let mut reader = DataReader::default();
        let mut buffer = MailDataBuffer::new(self.shared.limits.max_message_bytes, budget.clone());
        match self.read_data(&mut reader, &mut buffer, &mut memory).await {
            Ok(()) => {}
            Err(Broken::Closed(reply)) => {
                self.log_broken_off(transaction, Some(&reply));
                return self.close_with(&reply);
            }
            Err(Broken::Disconnected) => {
                self.log_broken_off(transaction, None);
                return Err(End::Disconnected);
            }
        }
        if self.input.is_empty() {
            // Ten thousand idle sessions must not hold a large buffer each.
            self.input = BytesMut::new();
        }
        let ended = Instant::now();
        // Boxed to keep sessions that wait for data small.
        let answer = Box::pin(self.finish_data(envelope, &reader, buffer)).await;
        self.log_answer(transaction, &answer);
        let reply = answer.reply;
        if reply == Reply::TOO_LARGE {
            self.count_refused(MessageRefused::TooLarge);
        }
        if reply.code == 250 {
            self.shared.metrics.accepted_within(self.shared.role.service(), ended.elapsed());
            (self.errors, self.refused, self.idle_commands) = (0, 0, 0);
            self.last_accepted_at = Instant::now();
        }
        self.reply(&reply);
        Ok(())
    }

    /// RFC 2920 §3.1: DATA ends a group of commands. Input after a refused DATA is mail data whose sender did not
    /// wait for the reply, and no line of it may be taken for a command.
    fn refuse_data(&mut self, reply: &Reply) -> Result<(), End> {
        if !self.input.is_empty() {
            return self.close_with(reply);
        }
        if reply.is_permanent_failure() {
            return self.refuse(reply);
        }
        self.reply(reply);
        Ok(())
    }

    /// Reads to the end of data, whatever the reply will be.
    async fn read_data(
        &mut self,
        reader: &mut DataReader,
        buffer: &mut MailDataBuffer,
        memory: &mut Reservation,
    ) -> Result<(), Broken> {
        let deadline = Instant::now() + self.shared.data_timeout;
        let mut taken: u64 = 0;
        // Only time spent waiting for the client counts: our own disk may be slow.
        let mut waited = Duration::ZERO;
        // A silent or slow client needs a small buffer; one that fills it gets a larger one.
        let mut piece = READ_FIRST;
        loop {
            let progress = reader.feed(&self.input, buffer.buffer());
            taken += self.input.len() as u64;
            match progress {
                Progress::End(used) => {
                    self.input.advance(used);
                    return Ok(());
                }
                Progress::BareNewline => {
                    self.count_refused(MessageRefused::BareNewline);
                    return Err(Broken::Closed(Reply::BARE_NEWLINE));
                }
                Progress::More => self.input.clear(),
            }
            let short = !memory.resize(buffer.in_memory());
            buffer.spill(self.shared.inbound.objects(), short).await;
            self.flush().await.map_err(|_| Broken::Disconnected)?;
            if waited > DATA_RATE_GRACE && taken < waited.as_secs() * MIN_DATA_BYTES_PER_SEC {
                self.count_refused(MessageRefused::TooSlow);
                return Err(Broken::Closed(Reply::TOO_SLOW));
            }
            let read_started = Instant::now();
            let read_deadline = deadline.min(read_started + DATA_RATE_GRACE.max(self.shared.command_timeout / 2));
            let holds = buffer.in_memory() > MAX_HELD_WHILE_IDLE;
            let until = if holds { read_deadline.min(read_started + SPILL_AFTER) } else { read_deadline };
            let abort = self.shared.abort.clone();
            self.input.reserve(piece);
            tokio::select! {
                read = timeout_at(until, self.stream.read_buf(&mut self.input)) => match read {
                    Ok(Ok(0) | Err(_)) => return Err(Broken::Disconnected),
                    Ok(Ok(read)) if read >= piece => piece = READ_LARGE,
                    Ok(Ok(_)) => {}
                    Err(_) if until < read_deadline => {
                        buffer.spill_all(self.shared.inbound.objects()).await;
                        memory.resize(buffer.in_memory());
                        (self.input, piece) = (BytesMut::new(), READ_FIRST);
                    }
                    Err(_) => return Err(Broken::Closed(Reply::TIMEOUT)),
                },
                () = abort.cancelled() => return Err(Broken::Closed(Reply::SHUTTING_DOWN)),
            }
            waited += read_started.elapsed();
        }
    }

    /// Returns the answer to the end of data.
    async fn finish_data(
        &mut self,
        envelope: Envelope<Accepted>,
        reader: &DataReader,
        mut buffer: MailDataBuffer,
    ) -> Answer {
        let objects = self.shared.inbound.objects();
        buffer.spill(objects, false).await;
        if buffer.too_large() {
            return Reply::TOO_LARGE.into();
        }
        if reader.line_too_long() {
            self.count_refused(MessageRefused::LineTooLong);
            return Reply::DATA_LINE_TOO_LONG.into();
        }
        let data = match buffer.finish(objects).await {
            Ok(data) => data,
            Err(error) => {
                let full = error.is_full();
                self.count_refused(if full { MessageRefused::StorageFull } else { MessageRefused::Storage });
                return Answer::fault(if full { Reply::STORAGE_FULL } else { Reply::STORAGE_FAILURE }, error);
            }
        };
        let size = Some(data.len());
        let answer = match self.caller.clone() {
            Some(caller) => {
                let answer = self.submit(caller, envelope, data).await;
                self.count_unsubmitted(&answer.reply);
                answer
            }
            None => self.receive(envelope, data).await,
        };
        Answer { size, ..answer }
    }

    async fn receive(&self, envelope: Envelope<Accepted>, data: MailData) -> Answer {
        let envelope = envelope.map(|recipient| match recipient {
            Accepted::Received(recipient) => Some(recipient),
            Accepted::Submitted(_) => None,
        });
        match self.shared.inbound.receive(&self.peer, envelope, data).await {
            Ok(accepted) => Answer::accepted(&accepted.id, accepted.all_ids),
            Err(ReceiveError::MailLoop) => Reply::MAIL_LOOP.into(),
            Err(ReceiveError::AccountFull) => Reply::MAILBOX_FULL.into(),
            Err(ReceiveError::NotAReport) => Reply::NOT_A_REPORT.into(),
            Err(ReceiveError::StorageFull(fault)) => Answer::fault(Reply::STORAGE_FULL, fault),
            Err(ReceiveError::Storage(fault)) => Answer::fault(Reply::STORAGE_FAILURE, fault),
            Err(error @ ReceiveError::Busy) => Answer::fault(Reply::STORAGE_FAILURE, error),
        }
    }
}
