//! What a server promises by 250, 201 and 202, of every kind of mail that it stores, and whether all of it is kept.
//!
//! [`Promises`] stands outside: an MTA that repeats what was not taken, a client that repeats its request with the same
//! key, a webhook receiver, a remote host. The server on its data directory comes and goes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::api::{Answer, Api};
use super::dns::DnsServer;
use super::receiver::{Receiver, Reply};
use super::remote::Remote;
use super::served::Served;
use super::smtp::{SmtpClient, SmtpReply};

/// How long everything may take to be delivered and sent.
const DEADLINE: Duration = Duration::from_secs(90);
/// What a file holds, whoever sends it.
const FILE: &str = "number,name\r\n1,Ada\r\n2,Grace\r\n";

/// What is stored, each by another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Mail that lives in its row.
    Small,
    /// Mail that is too large for a row.
    Large,
    /// Mail with an attachment.
    File,
    /// The same to a forward route.
    Forwarded,
    /// The same to a domain that stores nothing.
    Passing,
    /// Sent by the API with an attachment.
    Sent,
    /// A batch with an attachment.
    Batch,
    /// Handed in by a mail program, with an attachment.
    Handed,
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
        Self::Passing,
        Self::Sent,
        Self::Batch,
        Self::Handed,
        Self::Upload,
    ];
}

/// Where a running server takes things.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doors {
    pub smtp: SocketAddr,
    pub submission: SocketAddr,
    pub http: SocketAddr,
}

/// What was promised.
#[derive(Clone, Debug)]
struct Promise {
    kind: Kind,
    subject: String,
    taken: Taken,
}

/// What an answer named.
#[derive(Clone, Debug)]
struct Taken {
    /// Ids of messages, or of an upload.
    ids: Vec<String>,
    /// The path of an upload's link.
    link: Option<String>,
}

/// The world outside, and what it was promised.
pub(crate) struct Promises {
    pub receiver: Receiver,
    pub remote: Remote,
    pub key: String,
    template: tempfile::TempDir,
    sections: String,
    given: Vec<Promise>,
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
        let remote = Remote::start().await;
        dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
        dns.address("mx.mailkite.test", "192.0.2.1");
        let sections = format!(
            "[dns]\nservers = [\"{}\"]\n[webhook]\nallow_localhost = true\n[outbound]\nport = {}\n\
             allow_networks = [\"127.0.0.0/8\"]\n[submission]\nlisten = [\"127.0.0.1:0\"]\nlisten_tls = []\n",
            dns.address,
            remote.address.port()
        );
        let template = tempfile::tempdir().unwrap();
        let mut served = Served::start_with(template.path(), &sections).await;
        let token = served.said("this server has no owner yet").await["setup_token"].clone();
        let account = json!({"email": "ada@acme.test", "password": "correct horse battery", "setupToken": token});
        let made = Api::anonymous(served.http).post("/api/auth/signup", account).await.expect(201);
        let session = Api::anonymous(served.http).with(made["token"].as_str().unwrap());
        let key = session.get("/api/keys").await.expect(200)["key"].as_str().unwrap().to_owned();
        let owner = session.with(key.clone());
        for domain in ["acme.test", "zero.test"] {
            let added = owner.post("/api/domains", json!({"domain": domain})).await.expect(201);
            for record in added["dns"].as_array().unwrap() {
                let (name, value) = (record["name"].as_str().unwrap(), record["value"].as_str().unwrap());
                match record["priority"].as_u64() {
                    Some(priority) => dns.mx(name, priority.try_into().unwrap(), value),
                    None => dns.txt(name, value),
                };
            }
            let checked = owner.post_nothing(&format!("/api/domains/{domain}/verify")).await.expect(200);
            assert_eq!(checked["status"], "verified", "{checked}");
            owner.put(&format!("/api/domains/{domain}/webhook"), json!({"url": receiver.url()})).await.expect(200);
        }
        owner.put("/api/domains/zero.test/retention", json!({"zeroRetention": true})).await.expect(200);
        let forward = json!({"match": "f@acme.test", "action": "forward", "destination": "ada@remote.test"});
        owner.post("/api/routes", forward).await.expect(201);
        served.child.kill().await.unwrap();
        let _dns = dns;
        let (given, arrived, next) = (Vec::new(), Vec::new(), 0);
        Self { receiver, remote, key, template, sections, given, arrived, next, _dns }
    }

    /// The configuration's sections, for another process on the same world.
    pub(crate) fn sections(&self) -> &str {
        &self.sections
    }

    /// A new data directory below `folder`, as every server starts from.
    pub(crate) fn data_dir(&self, folder: &Path) -> PathBuf {
        let to = folder.join("data");
        copy(&self.template.path().join("data"), &to);
        to
    }

    /// How many were promised.
    pub(crate) fn count(&self) -> usize {
        self.given.len()
    }

    /// A number that no mail has yet.
    pub(crate) fn number(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    /// Offers one thing, once; whether it was promised. Offered again with the same number it is the same to the octet.
    pub(crate) async fn offer(&mut self, doors: Doors, kind: Kind, number: usize) -> bool {
        let subject = format!("{kind:?}-{number}");
        let offered = Offer { kind, doors, subject: subject.clone(), key: self.key.clone() };
        // A server that ends in the middle breaks the exchange off.
        let answered = tokio::spawn(offered.make()).await;
        let Ok(Some(taken)) = answered else { return false };
        self.given.push(Promise { kind, subject, taken });
        true
    }

    /// The ids that were promised since the last look, one a line.
    pub(crate) fn ledger(&self) -> String {
        self.given.iter().flat_map(|promise| &promise.taken.ids).map(|id| format!("{id}\n")).collect()
    }

    /// Waits until all that was promised so far has reached whom it was for, and reads it back; what was not kept.
    pub(crate) async fn broken(&mut self, doors: Doors) -> Vec<String> {
        let deadline = Instant::now() + DEADLINE;
        let mut broken = Vec::new();
        for promise in std::mem::take(&mut self.given) {
            let subject = promise.subject.as_str();
            let posted =
                matches!(promise.kind, Kind::Small | Kind::Large | Kind::File | Kind::Forwarded | Kind::Passing);
            while posted && !self.is_posted(subject) {
                if Instant::now() > deadline {
                    broken.push(format!("{subject} {:?} never reached the webhook", promise.taken.ids));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let sent = matches!(promise.kind, Kind::Forwarded | Kind::Sent | Kind::Batch | Kind::Handed);
            while sent && !self.is_sent(subject) {
                if Instant::now() > deadline {
                    broken.push(format!("{subject} {:?} never reached the remote host", promise.taken.ids));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let owner = Api::anonymous(doors.http).with(self.key.clone());
            if let Err(why) = read_back(&owner, &promise).await {
                broken.push(format!("{subject} {:?} {why}", promise.taken.ids));
            }
        }
        broken
    }

    fn is_posted(&self, subject: &str) -> bool {
        self.receiver.requests().iter().any(|request| request.json()["subject"] == subject)
    }

    fn is_sent(&mut self, subject: &str) -> bool {
        while let Some(taken) = self.remote.try_taken() {
            let data = String::from_utf8(taken.data()).unwrap();
            let subjects = data.split("\r\n").filter_map(|line| line.strip_prefix("Subject: "));
            self.arrived.extend(subjects.map(str::to_owned));
        }
        self.arrived.iter().any(|arrived| arrived == subject)
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::set_permissions(to, std::fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// The octets of a mail.
fn mail(kind: Kind, subject: &str) -> String {
    let from = if kind == Kind::Handed { "hi@acme.test" } else { "ada@example.com" };
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

/// One try.
struct Offer {
    kind: Kind,
    doors: Doors,
    subject: String,
    key: String,
}

impl Offer {
    /// What the answer names, once it is promised.
    async fn make(self) -> Option<Taken> {
        let messages = |ids| Taken { ids, link: None };
        TcpStream::connect(self.doors.smtp).await.ok()?;
        match self.kind {
            Kind::Small | Kind::Large | Kind::File => self.deliver("load@acme.test").await.map(messages),
            Kind::Forwarded => self.deliver("f@acme.test").await.map(messages),
            Kind::Passing => self.deliver("load@zero.test").await.map(messages),
            Kind::Handed => self.hand_in().await.map(messages),
            Kind::Sent => self.request("/v1/send", json!({"to": "ada@remote.test"}), 202).await.map(messages),
            Kind::Batch => {
                let recipients = json!([{"to": "ada@remote.test"}, {"to": "bob@remote.test"}]);
                self.request("/v1/send/batch", json!({"recipients": recipients}), 200).await.map(messages)
            }
            Kind::Upload => {
                let owner = Api::anonymous(self.doors.http).with(self.key);
                let path = format!("/v1/attachments?filename={}.csv", self.subject);
                let made =
                    owner.exchange("POST", &path, &[("Content-Type", "text/csv")], Some(FILE.as_bytes())).await;
                (made.status == 201).then(|| {
                    let (id, url) = (made.json["id"].as_str().unwrap(), made.json["url"].as_str().unwrap());
                    let link = url.split_once("mailkite.test").unwrap().1.to_owned();
                    Taken { ids: vec![id.to_owned()], link: Some(link) }
                })
            }
        }
    }

    async fn deliver(&self, to: &str) -> Option<Vec<String>> {
        let mut client = SmtpClient::open(self.doors.smtp).await;
        if client.try_reply().await.ok()?.code != 220 {
            return None;
        }
        client.try_send(b"EHLO client.test\r\n").await.ok()?;
        client.try_reply().await.ok()?;
        promised(&client.try_mail("ada@example.com", to, mail(self.kind, &self.subject).as_bytes()).await.ok()?)
    }

    async fn hand_in(&self) -> Option<Vec<String>> {
        let mut client = SmtpClient::connect(self.doors.submission).await;
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
        let owner = Api::anonymous(self.doors.http).with(self.key.clone());
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", self.subject.as_str())];
        let made = owner.exchange("POST", path, &headers, Some(body.to_string().as_bytes())).await;
        if made.status != status {
            // What is not promised is not a fault of the client's.
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

/// Reads everything of a promise that is to be had.
async fn read_back(owner: &Api, promise: &Promise) -> Result<(), String> {
    let get = async |path: &str| owner.exchange("GET", path, &[], None).await;
    let wrong = |what: &str, answer: &Answer| {
        Err(format!("{what}: {} {}", answer.status, String::from_utf8_lossy(&answer.body)))
    };
    if let Some(link) = &promise.taken.link {
        let file = get(link).await;
        return if file.body == FILE.as_bytes() { Ok(()) } else { wrong("the file", &file) };
    }
    if promise.kind == Kind::Passing {
        return Ok(());
    }
    for id in &promise.taken.ids {
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
