//! The stored mail of `mailkite bench api`: as varied as a mailbox, spread over the last days, the same in every run.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::id::{AccountRowId, DomainRowId, MessageId, MessageRowId, RouteId};
use crate::store;
use crate::store::messages::SpamVerdict;
use crate::store::messages::mail_data;
use crate::store::webhooks::deliveries;
use crate::store::webhooks::deliveries::DeliveryStatus;
use crate::store::webhooks::deliveries::{NewDelivery, Progress};
use crate::store::{Db, messages};

/// Domains that the mail is spread over; the server's `seed` creates them.
pub(crate) const DOMAINS: u64 = 8;
/// The last domain gets this many messages, however many the others get.
pub(crate) const RARE_DOMAIN_MESSAGES: u64 = 300;
/// Messages whose subject contains [`RARE_WORD`].
const RARE: u64 = 40;
/// Messages that a receiver dropped.
const DROPPED: u64 = 60;
/// A word in few subjects.
pub(crate) const RARE_WORD: &str = "zeppelin";
/// Words in very many subjects.
pub(crate) const FREQUENT_WORDS: [&str; 4] = ["invoice", "shipped", "question", "order"];
/// Words in no message; the last consists of frequent parts.
pub(crate) const ABSENT_WORDS: [&str; 4] = ["quokka", "xylograph", "jazzhands", "invoicequestion"];
/// One or two letters that very many messages contain.
pub(crate) const FREQUENT_LETTERS: [&str; 4] = ["in", "e", "er", "st"];
/// One or two letters that no message contains.
pub(crate) const ABSENT_LETTERS: [&str; 4] = ["qz", "~", "jq", "xk"];

/// Rows per transaction.
const STEP: u64 = 2_000;
/// The age of the oldest message; too young for the sweep.
pub(crate) const SPREAD: Duration = Duration::from_secs(6 * 86_400);

const NAMES: &[&str] = &[
    "ada", "grace", "alan", "barbara", "edsger", "donald", "margaret", "dennis", "frances", "tony", "radia", "ken",
    "sophie", "niklaus", "hedy", "linus", "karen", "robin", "shafi", "leslie", "anita", "vint", "evelyn", "john",
];
const SURNAMES: &[&str] = &[
    "lovelace",
    "hopper",
    "turing",
    "liskov",
    "dijkstra",
    "knuth",
    "hamilton",
    "ritchie",
    "allen",
    "hoare",
    "perlman",
    "thompson",
    "wilson",
    "wirth",
    "lamarr",
    "berners",
    "jones",
    "milner",
    "goldwasser",
    "lamport",
    "borg",
    "cerf",
];
const WORDS: &[&str] = &[
    "engine", "branch", "table", "number", "letter", "window", "garden", "silver", "morning", "answer", "river",
    "paper", "station", "winter", "colour", "method", "signal", "harbour", "mirror", "report", "summer", "ticket",
    "update", "meeting", "contract", "account", "password", "delivery", "payment", "weekly", "server", "backup",
];
const BOXES: &[&str] = &["support", "sales", "billing", "orders", "hello", "jobs", "press", "returns"];

/// A fixed pseudo-random sequence, so that two runs store the same mail.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn pick(&mut self, words: &'static [&'static str]) -> &'static str {
        usize::try_from(self.next()).ok().and_then(|drawn| words.get(drawn % words.len())).unwrap_or(&"word")
    }
}

/// Returns the six digits in the subject of a message; each number belongs to one message in a million.
pub(crate) fn order_number(number: u64) -> u64 {
    number.wrapping_mul(387_420_489) % 1_000_000
}

fn subject(number: u64, count: u64, draw: &mut Random) -> String {
    let order = order_number(number);
    if number % (count / RARE).max(1) == 7 {
        return format!("A {RARE_WORD} over the {}", draw.pick(WORDS));
    }
    let (one, other) = (draw.pick(WORDS), draw.pick(WORDS));
    match draw.next() % 6 {
        0 | 1 => format!("Your invoice {order:06} for the {one} {other}"),
        2 => format!("Order {order:06} has shipped"),
        3 => format!("Re: question about the {one} and the {other} {order:06}"),
        4 => format!("[{one}] {other} failed on {order:06}"),
        _ => format!("Fwd: {one} {other} – {order:06}"),
    }
}

/// Stores `count` messages of the first account, most of them with a delivered webhook.
pub(crate) async fn store(db: &Db, count: u64, now: Timestamp) -> anyhow::Result<()> {
    let mut stored = 0;
    while stored < count {
        let until = (stored + STEP).min(count);
        db.write(move |tx| (stored..until).try_for_each(|number| store_one(tx, number, count, now))).await?;
        stored = until;
    }
    Ok(())
}

fn store_one(tx: &store::Connection, number: u64, count: u64, now: Timestamp) -> store::Result<()> {
    let mut draw = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let age = SPREAD.mul_f64((count - number) as f64 / count as f64);
    let at = now.minus(age);
    let is_rare = number % (count / RARE_DOMAIN_MESSAGES).max(1) == 3;
    let domain = if is_rare { DOMAINS - 1 } else { draw.next() % (DOMAINS - 1) };
    let (name, surname) = (draw.pick(NAMES), draw.pick(SURNAMES));
    let from = format!("{name}.{surname}@{}{}.example", draw.pick(WORDS), draw.next() % 200);
    let to = format!("{}@e{domain}.bench.test", draw.pick(BOXES));
    let subject = subject(number, count, &mut draw);
    let text = format!("From: {from}\r\nTo: {to}\r\nSubject: {subject}\r\n\r\n{}", "An older mail. ".repeat(20));
    let mail_data = mail_data::insert(tx, &mail_data::NewMailData::inline(text.as_bytes()), at)?;
    let message_id = format!("<{number}@mail.example>");
    let new = messages::NewMessage {
        public_id: MessageId::new(at),
        account_id: AccountRowId::new(1),
        domain_id: i64::try_from(domain + 1).ok().map(DomainRowId::new),
        route_id: None,
        mail_from: from.clone(),
        from_addr: from,
        from_name: Some(format!("{name} {surname}")),
        to_addr: to,
        to_name: None,
        subject: Some(subject),
        message_id_header: Some(message_id.clone()),
        thread_id: Some(message_id),
        spf: Some("pass"),
        dkim: Some("pass"),
        dmarc: Some("pass"),
        spam: Some(SpamVerdict::Ham),
        trace: format!("Received: from mail.example by bench.test; {number}\r\n"),
        truncated: false,
        attachment_count: 0,
        size: text.len() as u64,
        mail_data_id: mail_data,
    };
    let (message, at) = messages::insert(tx, &new, at)?;
    if number % (count / DROPPED).max(1) == 5 {
        messages::mark_dropped(tx, message)?;
    }
    if !number.is_multiple_of(8) {
        store_delivery(tx, message, &new.public_id, at)?;
    }
    Ok(())
}

fn store_delivery(tx: &store::Connection, message: MessageRowId, id: &MessageId, at: Timestamp) -> store::Result<()> {
    let url = "https://hooks.example/mail";
    let new =
        NewDelivery { account_id: AccountRowId::new(1), message, message_id: id, route_id: &RouteId::new(at), url };
    let delivery = deliveries::insert_received(tx, &[new], at)?.pop().ok_or(store::Error::Corrupt("delivery"))?.id;
    let progress = Progress {
        status: DeliveryStatus::Delivered,
        url,
        status_code: Some(200),
        error: None,
        next_attempt_at: None,
    };
    deliveries::record_attempt(tx, delivery, 1, &progress, at)
}
