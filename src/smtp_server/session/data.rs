//! DATA of a session: the mail is read to its end whatever will be said of it, then judged.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::{Accepted, End, READ_FIRST, READ_LARGE, Session};
use crate::inbound::ReceiveError;
use crate::mail::envelope::Envelope;
use crate::mail::reply::Reply;
use crate::memory_budget::Reservation;
use crate::metrics::Counter;
use crate::smtp_server::data::{DataReader, Gathered, Progress};

/// Data slower than this for longer than the grace is given up.
const MIN_DATA_BYTES_PER_SEC: u64 = 500;
const DATA_RATE_GRACE: Duration = Duration::from_secs(30);
/// A client that pauses for longer holds no memory while it does …
const PAUSE: Duration = Duration::from_secs(2);
/// … beyond this, in octets.
const HELD_IN_PAUSE: usize = 4 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// DATA: reads the mail and says what becomes of it.
    pub(super) async fn data(&mut self) -> Result<(), End> {
        let envelope = match self.phase.data() {
            Ok(envelope) => envelope,
            Err(reply) => return self.refuse_data(&reply),
        };
        let room = self.shared.room.clone();
        if room.refuses() {
            return self.refuse_data(&Reply::STORAGE_FULL);
        }
        let mut memory = room.share();
        self.reply(&Reply::START_DATA);
        self.had_data = true;
        let mut reader = DataReader::default();
        let mut gathered = Gathered::new(self.shared.bounds.max_message_bytes, room.clone());
        self.read_data(&mut reader, &mut gathered, &mut memory).await?;
        if self.input.is_empty() {
            // Ten thousand idle sessions must not hold a large buffer each.
            self.input = BytesMut::new();
        }
        // On the heap, as a session that waits for data should be small too.
        let reply = Box::pin(self.finish_data(envelope, &reader, gathered)).await;
        if reply == Reply::TOO_LARGE {
            self.shared.metrics.add(Counter::RefusedTooLarge);
        }
        if reply.code == 250 {
            (self.errors, self.refused, self.idle_commands) = (0, 0, 0);
            self.useful_at = Instant::now();
        }
        self.reply(&reply);
        Ok(())
    }

    /// RFC 2920 §3.1: DATA ends a group of commands. What stands behind one that is refused is mail data whose sender did
    /// not wait for the answer, and no line of it may be taken for a command.
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

    /// Reads to the end of data, whatever will be said of it.
    async fn read_data(
        &mut self,
        reader: &mut DataReader,
        gathered: &mut Gathered,
        memory: &mut Reservation,
    ) -> Result<(), End> {
        let deadline = Instant::now() + self.shared.data_timeout;
        let mut taken: u64 = 0;
        // Only waits for the client count: our own disk may be slow.
        let mut waited = Duration::ZERO;
        // Whoever is silent or slow needs little room; who fills it gets more.
        let mut piece = READ_FIRST;
        loop {
            let progress = reader.feed(&self.input, gathered.buffer());
            taken += self.input.len() as u64;
            match progress {
                Progress::End(used) => {
                    self.input.advance(used);
                    return Ok(());
                }
                Progress::BareNewline => {
                    self.shared.metrics.add(Counter::RefusedBareLine);
                    return self.close_with(&Reply::BARE_NEWLINE);
                }
                Progress::More => self.input.clear(),
            }
            let short = !memory.resize(gathered.in_memory());
            gathered.settle(self.shared.inbound.objects(), short).await;
            self.flush().await?;
            if waited > DATA_RATE_GRACE && taken < waited.as_secs() * MIN_DATA_BYTES_PER_SEC {
                return self.close_with(&Reply::TOO_SLOW);
            }
            let asked = Instant::now();
            let patience = deadline.min(asked + DATA_RATE_GRACE.max(self.shared.command_timeout / 2));
            let holds = gathered.in_memory() > HELD_IN_PAUSE;
            let until = if holds { patience.min(asked + PAUSE) } else { patience };
            let abort = self.shared.abort.clone();
            self.input.reserve(piece);
            tokio::select! {
                read = timeout_at(until, self.stream.read_buf(&mut self.input)) => match read {
                    Ok(Ok(0) | Err(_)) => return Err(End::Disconnected),
                    Ok(Ok(read)) if read >= piece => piece = READ_LARGE,
                    Ok(Ok(_)) => {}
                    Err(_) if until < patience => {
                        gathered.set_aside(self.shared.inbound.objects()).await;
                        memory.resize(gathered.in_memory());
                        (self.input, piece) = (BytesMut::new(), READ_FIRST);
                    }
                    Err(_) => return self.close_with(&Reply::TIMEOUT),
                },
                () = abort.cancelled() => return self.close_with(&Reply::SHUTTING_DOWN),
            }
            waited += asked.elapsed();
        }
    }

    /// What is said at the end of data.
    async fn finish_data(
        &mut self,
        envelope: Envelope<Accepted>,
        reader: &DataReader,
        mut gathered: Gathered,
    ) -> Reply {
        let objects = self.shared.inbound.objects();
        gathered.settle(objects, false).await;
        if gathered.too_large() {
            return Reply::TOO_LARGE;
        }
        if reader.line_too_long() {
            return Reply::DATA_LINE_TOO_LONG;
        }
        let data = match gathered.finish(objects).await {
            Ok(data) => data,
            Err(error) => {
                tracing::warn!(%error, "mail data could not be written and was refused");
                return if error.is_full() { Reply::STORAGE_FULL } else { Reply::STORAGE_TROUBLE };
            }
        };
        if let Some(caller) = self.caller.clone() {
            return self.hand_in(caller, envelope, data).await;
        }
        let envelope = envelope.map(|recipient| match recipient {
            Accepted::Received(recipient) => Some(recipient),
            Accepted::Submitted(_) => None,
        });
        match self.shared.inbound.receive(&self.peer, envelope, data).await {
            Ok(receipt) => Reply::accepted(&receipt.id),
            Err(ReceiveError::MailLoop) => Reply::MAIL_LOOP,
            Err(ReceiveError::AccountFull) => Reply::MAILBOX_FULL,
            Err(ReceiveError::NotAReport) => Reply::NOT_A_REPORT,
            Err(ReceiveError::StorageFull) => Reply::STORAGE_FULL,
            Err(ReceiveError::Storage | ReceiveError::Busy) => Reply::STORAGE_TROUBLE,
        }
    }
}
