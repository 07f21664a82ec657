//! What a mail of the largest size costs the real binary in memory, from the hand-in to the remote host.

use std::fs;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mailkite::testing::clock::Clock;
use serde_json::json;
use tokio::time::timeout;

use crate::support::api::Api;
use crate::support::remote::{Manner, Remote};
use crate::support::served::Served;
use crate::support::server::Server;
use crate::support::smtp::SmtpClient;

const SIZE: usize = 25 * 1024 * 1024;
/// Three times the size of the mail.
const MOST: i64 = 75;
const HEAD: &str = "From: Acme <hi@inbox.test>\r\nTo: ada@remote.test\r\nSubject: Large\r\nMIME-Version: 1.0\r\n";

/// A server whose mail goes to `remote`.
struct Post {
    served: Served,
    submission: std::net::SocketAddr,
    remote: Remote,
    key: String,
    _folder: tempfile::TempDir,
}

impl Post {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        let seeded = Server::start_with(Clock::System, |config| config.data_dir.clone_from(&data_dir)).await;
        let key = seeded.owner().await.credential.clone().unwrap();
        seeded.stop().await;
        let remote = Remote::with(Manner { extensions: vec!["PIPELINING", "8BITMIME"], ..Manner::default() }).await;
        let sections = format!(
            "[submission]\nlisten = [\"127.0.0.1:0\"]\nlisten_tls = []\n\
             [outbound.smarthost]\nhost = \"127.0.0.1\"\nport = {}\nsecurity = \"none\"\n",
            remote.address.port()
        );
        let served = Served::start_with(folder.path(), &sections).await;
        Self { submission: served.submission, served, remote, key, _folder: folder }
    }

    async fn signed_in(&self) -> SmtpClient {
        let mut client = SmtpClient::greeted(self.submission).await.starttls().await;
        client.expect("EHLO client.test", 250).await;
        client.expect(&format!("AUTH PLAIN {}", BASE64.encode(format!("\0any\0{}", self.key))), 235).await;
        client
    }

    async fn hand_in(&self, mail: &[u8]) {
        let reply = self.signed_in().await.mail("hi@inbox.test", &["ada@remote.test"], mail).await;
        assert_eq!(reply.code, 250, "{reply:?}");
    }

    /// What the remote host got.
    async fn taken(&mut self) -> Vec<u8> {
        timeout(Duration::from_secs(60), self.remote.taken()).await.unwrap().wire
    }

    /// MiB, by the kernel's count.
    fn memory(&self, which: &str) -> i64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.served.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<i64>().unwrap() / 1024
    }

    /// The peak counts from here on; on a kernel that cannot do that, from the start, which is no less.
    fn begin(&self) {
        drop(fs::write(format!("/proc/{}/clear_refs", self.served.child.id().unwrap()), "5"));
    }
}

/// `SIZE` octets of this line below a header.
fn mail(fields: &str, line: &str, end: &str) -> Vec<u8> {
    let mut mail = format!("{HEAD}{fields}\r\n").into_bytes();
    mail.extend_from_slice(&line.as_bytes().repeat((SIZE - mail.len() - end.len()) / line.len()));
    mail.extend_from_slice(end.as_bytes());
    mail
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_of_the_largest_size_costs_at_most_three_times_its_size() {
    let mut post = Post::open().await;
    post.hand_in(format!("{HEAD}\r\nA small one first.\r\n").as_bytes()).await;
    post.taken().await;
    let idle = post.memory("VmRSS");
    let eight_bit = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n";
    let file = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: application/x\r\n\
        Content-Disposition: attachment; filename=a.bin\r\nContent-Transfer-Encoding: base64\r\n";
    for (kind, mail) in [
        ("8 bits", mail(eight_bit, &format!("{}\r\n", "é".repeat(38)), "")),
        ("7 bits", mail("", &format!("{}\r\n", "e".repeat(76)), "")),
        ("a file", mail(file, &format!("{}\r\n", "YWJj".repeat(19)), "--b--\r\n")),
    ] {
        post.begin();
        post.hand_in(&mail).await;
        assert!(post.taken().await.len() >= mail.len(), "{kind}");
        let peak = post.memory("VmHWM");
        assert!(peak - idle <= MOST, "{kind}: {idle} MiB idle, {peak} MiB at most");
    }
    let content = BASE64.encode(vec![0; SIZE / 78 * 57]);
    let letter = json!({
        "from": "hi@inbox.test", "to": "ada@remote.test", "subject": "Large", "text": "See there.",
        "attachments": [{"filename": "a.bin", "content": content}],
    });
    post.begin();
    Api::anonymous(post.served.http).with(post.key.clone()).post("/v1/send", letter).await.expect(202);
    post.taken().await;
    let peak = post.memory("VmHWM");
    assert!(peak - idle <= MOST, "sent: {idle} MiB idle, {peak} MiB at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_mails_that_come_at_once_take_turns() {
    const AT_ONCE: usize = 5;
    /// One that is taken, and the mail data of those that are delivered meanwhile.
    const MOST_AT_ONCE: i64 = MOST + 96;
    let mut post = Post::open().await;
    let fields = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n";
    let mail = mail(fields, &format!("{}\r\n", "é".repeat(38)), "");
    let idle = post.memory("VmRSS");
    futures_util::future::join_all((0..AT_ONCE).map(|_| post.hand_in(&mail))).await;
    for _ in 0..AT_ONCE {
        post.taken().await;
    }
    let peak = post.memory("VmHWM");
    assert!(peak - idle <= MOST_AT_ONCE, "{idle} MiB idle, {peak} MiB at most");
}
