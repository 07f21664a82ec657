//! Promises by 250, 201 and 202 for every kind of mail that the server stores, and the check that all are kept.
//!
//! [`Promises`] plays everyone outside: an MTA that repeats what was not accepted, a client that repeats its request
//! with the same key, a webhook receiver, a remote host. The server on its data directory is killed and started again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::api::{Answer, Api};
use super::dns::DnsServer;
use super::machine::copy_folder;
use super::receiver::{Receiver, Reply};
use super::remote_host::RemoteHost;
use super::serve_process::{ServeProcess, verify_domain};
use super::smtp::{SmtpClient, SmtpReply};

/// Limit for all deliveries.
const DEADLINE: Duration = Duration::from_secs(90);
/// Content of every attachment.
const FILE: &str = "number,name\r\n1,Ada\r\n2,Grace\r\n";

/// Kinds of stored data, each accepted on another path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Mail stored in its row.
    Small,
    /// Mail that is too large for a row.
    Large,
    /// Mail with an attachment.
    File,
    /// The same to a forward route.
    Forwarded,
    /// The same to a domain with zero retention.
    ZeroRetention,
    /// Sent by the API with an attachment.
    Sent,
    /// A batch with an attachment.
    Batch,
    /// Submitted by a mail program, with an attachment.
    Submitted,
    /// A client's file.
    Upload,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::Small,
        Self::Large,
        Self::File,
        Self::Forwarded,
        Self::ZeroRetention,
        Self::Sent,
        Self::Batch,
        Self::Submitted,
        Self::Upload,
    ];
}

/// Listeners of a running server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listeners {
    pub smtp: SocketAddr,
    pub submission: SocketAddr,
    pub http: SocketAddr,
}

/// One acknowledgement.
#[derive(Clone, Debug)]
struct Promise {
    kind: Kind,
    subject: String,
    accepted: Accepted,
}

/// The ids and links of an answer.
#[derive(Clone, Debug)]
struct Accepted {
    /// Ids of messages, or of an upload.
    ids: Vec<String>,
    /// The path of an upload's link.
    link: Option<String>,
}

/// Everyone outside, and the promises made to them.
pub(crate) struct Promises {
    pub receiver: Receiver,
    pub remote: RemoteHost,
    pub key: String,
    template: tempfile::TempDir,
    sections: String,
    promised: Vec<Promise>,
    /// Subjects that reached the remote host.
    arrived: Vec<String>,
    next: usize,
    _dns: DnsServer,
}

impl Promises {
    /// Makes the account with its domains and routes, in a data directory that every server gets a copy of.
    pub(crate) async fn new() -> Self {
        let dns = DnsServer::start().await;
        let receiver = Receiver::start(|_| Reply::status(200)).await;
        let remote = RemoteHost::start().await;
        dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
        dns.address("mx.mailkite.test", "192.0.2.1");
        let sections = format!(
            "[dns]\nservers = [\"{}\"]\n[webhook]\nallow_localhost = true\n[outbound]\nport = {}\n\
             allow_networks = [\"127.0.0.0/8\"]\n[submission]\nlisten = [\"127.0.0.1:0\"]\nlisten_tls = []\n",
            dns.address,
            remote.address.port()
        );
        let template = tempfile::tempdir().unwrap();
        let mut served = ServeProcess::start_with(template.path(), &sections).await;
        let owner = served.sign_up_owner().await;
        for domain in ["acme.test", "zero.test"] {
            verify_domain(&owner, &dns, domain).await;
            owner.put(&format!("/api/domains/{domain}/webhook"), json!({"url": receiver.url()})).await.expect(200);
        }
        owner.put("/api/domains/zero.test/retention", json!({"zeroRetention": true})).await.expect(200);
        let forward = json!({"match": "f@acme.test", "action": "forward", "destination": "ada@remote.test"});
        owner.post("/api/routes", forward).await.expect(201);
        served.child.kill().await.unwrap();
        let key = owner.credential.unwrap();
        let _dns = dns;
        let (promised, arrived, next) = (Vec::new(), Vec::new(), 0);
        Self { receiver, remote, key, template, sections, promised, arrived, next, _dns }
    }

    /// The configuration's sections, for another process.
    pub(crate) fn sections(&self) -> &str {
        &self.sections
    }

    /// A new data directory below `folder`, as every server starts from.
    pub(crate) fn data_dir(&self, folder: &Path) -> PathBuf {
        let to = folder.join("data");
        copy_folder(&self.template.path().join("data"), &to);
        to
    }

    /// Number of open promises.
    pub(crate) fn count(&self) -> usize {
        self.promised.len()
    }

    /// A number that no mail has yet.
    pub(crate) fn number(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    /// Offers one thing, once; true when it was promised. Offered again with the same number it is the same to the
    /// octet.
    pub(crate) async fn offer(&mut self, listeners: Listeners, kind: Kind, number: usize) -> bool {
        let subject = format!("{kind:?}-{number}");
        let offered = Offer { kind, listeners, subject: subject.clone(), key: self.key.clone() };
        // A server that ends in the middle breaks the exchange off.
        let answered = tokio::spawn(offered.make()).await;
        let Ok(Some(accepted)) = answered else { return false };
        self.promised.push(Promise { kind, subject, accepted });
        true
    }

    /// The ids promised since the last check, one a line.
    pub(crate) fn ledger(&self) -> String {
        self.promised.iter().flat_map(|promise| &promise.accepted.ids).map(|id| format!("{id}\n")).collect()
    }

    /// Waits until everything promised so far has been delivered, and reads it back; returns the broken promises.
    pub(crate) async fn find_broken(&mut self, listeners: Listeners) -> Vec<String> {
        let deadline = Instant::now() + DEADLINE;
        let mut broken = Vec::new();
        for promise in std::mem::take(&mut self.promised) {
            let subject = promise.subject.as_str();
            let posted = matches!(
                promise.kind,
                Kind::Small | Kind::Large | Kind::File | Kind::Forwarded | Kind::ZeroRetention
            );
            while posted && !self.is_posted(subject) {
                if Instant::now() > deadline {
                    broken.push(format!("{subject} {:?} never reached the webhook", promise.accepted.ids));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let sent = matches!(promise.kind, Kind::Forwarded | Kind::Sent | Kind::Batch | Kind::Submitted);
            while sent && !self.is_sent(subject) {
                if Instant::now() > deadline {
                    broken.push(format!("{subject} {:?} never reached the remote host", promise.accepted.ids));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let owner = Api::anonymous(listeners.http).with(self.key.clone());
            if let Err(why) = read_back(&owner, &promise).await {
                broken.push(format!("{subject} {:?} {why}", promise.accepted.ids));
            }
        }
        broken
    }

    fn is_posted(&self, subject: &str) -> bool {
        self.receiver.requests().iter().any(|request| request.json()["subject"] == subject)
    }

    fn is_sent(&mut self, subject: &str) -> bool {
        while let Some(taken) = self.remote.try_next_mail() {
            let data = String::from_utf8(taken.data()).unwrap();
            let subjects = data.split("\r\n").filter_map(|line| line.strip_prefix("Subject: "));
            self.arrived.extend(subjects.map(str::to_owned));
        }
        self.arrived.iter().any(|arrived| arrived == subject)
    }
}

/// The octets of a mail.
fn mail(kind: Kind, subject: &str) -> String {
    let from = if kind == Kind::Submitted { "hi@acme.test" } else { "ada@example.com" };
    let head = format!("From: Ada <{from}>\r\nTo: Ada <ada@remote.test>\r\nSubject: {subject}\r\n");
    match kind {
        Kind::Small => format!("{head}\r\nHello.\r\n"),
        Kind::Large => format!("{head}\r\n{}", "A line of a large mail, again and again.\r\n".repeat(2_500)),
        _ => format!(
            "{head}MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nSee below.\r\n--b\r\n\
             Content-Type: text/csv\r\nContent-Disposition: attachment; filename=n.csv\r\n\r\n{FILE}\r\n--b--\r\n"
        ),
    }
}

/// One request.
struct Offer {
    kind: Kind,
    listeners: Listeners,
    subject: String,
    key: String,
}

impl Offer {
    /// Makes the request; returns the ids of the answer when it is a promise.
    async fn make(self) -> Option<Accepted> {
        let messages = |ids| Accepted { ids, link: None };
        TcpStream::connect(self.listeners.smtp).await.ok()?;
        match self.kind {
            Kind::Small | Kind::Large | Kind::File => self.deliver("load@acme.test").await.map(messages),
            Kind::Forwarded => self.deliver("f@acme.test").await.map(messages),
            Kind::ZeroRetention => self.deliver("load@zero.test").await.map(messages),
            Kind::Submitted => self.submit().await.map(messages),
            Kind::Sent => self.request("/v1/send", json!({"to": "ada@remote.test"}), 202).await.map(messages),
            Kind::Batch => {
                let recipients = json!([{"to": "ada@remote.test"}, {"to": "bob@remote.test"}]);
                self.request("/v1/send/batch", json!({"recipients": recipients}), 200).await.map(messages)
            }
            Kind::Upload => {
                let owner = Api::anonymous(self.listeners.http).with(self.key);
                let path = format!("/v1/attachments?filename={}.csv", self.subject);
                let made =
                    owner.exchange("POST", &path, &[("Content-Type", "text/csv")], Some(FILE.as_bytes())).await;
                (made.status == 201).then(|| {
                    let (id, url) = (made.json["id"].as_str().unwrap(), made.json["url"].as_str().unwrap());
                    let link = url.split_once("mailkite.test").unwrap().1.to_owned();
                    Accepted { ids: vec![id.to_owned()], link: Some(link) }
                })
            }
        }
    }

    async fn deliver(&self, to: &str) -> Option<Vec<String>> {
        let mut client = SmtpClient::open(self.listeners.smtp).await;
        if client.try_reply().await.ok()?.code != 220 {
            return None;
        }
        client.try_send(b"EHLO client.test\r\n").await.ok()?;
        client.try_reply().await.ok()?;
        promised(&client.try_mail("ada@example.com", to, mail(self.kind, &self.subject).as_bytes()).await.ok()?)
    }

    async fn submit(&self) -> Option<Vec<String>> {
        let mut client = SmtpClient::connect(self.listeners.submission).await;
        client.expect("EHLO client.test", 250).await;
        let mut client = client.starttls().await;
        client.expect("EHLO client.test", 250).await;
        let login = format!("AUTH PLAIN {}", BASE64.encode(format!("\0anybody\0{}", self.key)));
        client.expect(&login, 235).await;
        let text = mail(self.kind, &self.subject);
        promised(&client.try_mail("hi@acme.test", "ada@remote.test", text.as_bytes()).await.ok()?)
    }

    /// A request with a key that its repeat has too.
    async fn request(&self, path: &str, recipients: Value, status: u16) -> Option<Vec<String>> {
        let mut body = json!({"from": "hi@acme.test", "subject": self.subject, "text": "See below.",
            "attachments": [{"filename": "n.csv", "content": BASE64.encode(FILE)}]});
        body.as_object_mut().unwrap().extend(recipients.as_object().unwrap().clone());
        let owner = Api::anonymous(self.listeners.http).with(self.key.clone());
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", self.subject.as_str())];
        let made = owner.exchange("POST", path, &headers, Some(body.to_string().as_bytes())).await;
        if made.status != status {
            // A request that is not promised failed on the server's side.
            assert!(made.status >= 500, "{} {}", made.status, made.json);
            return None;
        }
        let one = made.json["id"].as_str().map(str::to_owned);
        let all = made.json["results"].as_array().into_iter().flatten();
        Some(one.into_iter().chain(all.map(|result| result["id"].as_str().unwrap().to_owned())).collect())
    }
}

/// The id in a 250.
fn promised(reply: &SmtpReply) -> Option<Vec<String>> {
    let text = reply.text();
    let id = text.split_whitespace().find(|word| word.starts_with("msg_"));
    (reply.code == 250).then(|| vec![id.unwrap().to_owned()])
}

/// Reads everything of a promise by the API.
async fn read_back(owner: &Api, promise: &Promise) -> Result<(), String> {
    let get = async |path: &str| owner.exchange("GET", path, &[], None).await;
    let wrong = |what: &str, answer: &Answer| {
        Err(format!("{what}: {} {}", answer.status, String::from_utf8_lossy(&answer.body)))
    };
    if let Some(link) = &promise.accepted.link {
        let file = get(link).await;
        return if file.body == FILE.as_bytes() { Ok(()) } else { wrong("the file", &file) };
    }
    if promise.kind == Kind::ZeroRetention {
        return Ok(());
    }
    for id in &promise.accepted.ids {
        let raw = get(&format!("/api/messages/{id}/raw")).await;
        let text = mail(promise.kind, &promise.subject);
        let received = matches!(promise.kind, Kind::Small | Kind::Large | Kind::File | Kind::Forwarded);
        let whole = if received { raw.body == text.as_bytes() } else { contains(&raw.body, &promise.subject) };
        if raw.status != 200 || !whole {
            return wrong("the raw copy", &raw);
        }
        let shown = get(&format!("/api/messages/{id}")).await;
        if shown.status != 200 {
            return wrong("the detail", &shown);
        }
        let links = shown.json["attachments"].as_array().cloned().unwrap_or_default();
        if links.is_empty() != matches!(promise.kind, Kind::Small | Kind::Large) {
            return wrong("its attachments", &shown);
        }
        for link in links {
            let url = link["url"].as_str().unwrap_or_default();
            let file = get(url.split_once("mailkite.test").map_or(url, |(_, path)| path)).await;
            if file.body != FILE.as_bytes() {
                return wrong(url, &file);
            }
        }
    }
    Ok(())
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
