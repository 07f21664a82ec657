//! Uploaded files: stored, served by signed link, removed in time.

use mailkite::testing::id::RowId;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::config;
use mailkite::testing::content::uploads::{RETENTION_DAYS, Upload, Uploads};
use mailkite::testing::limits::Limits;
use mailkite::testing::retention::Swept;
use mailkite::testing::secrets::signed_links::Links;
use mailkite::testing::store::blobs::objects::Objects;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::database::orphaned_objects;
use crate::support::dev_process::{http_get, http_get_with};
use crate::support::server::Server;

const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_123);
const DAY: Duration = Duration::from_secs(86_400);
const PUBLIC_URL: &str = "https://mail.mailkite.test";

async fn server() -> (Server, Uploads, i64) {
    let server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    let key = server.write(|_, secrets, _| Ok(secrets.link_key())).await;
    let uploads = Uploads {
        db: server.db.clone(),
        objects: Objects::open(server.data_dir()).unwrap(),
        links: Arc::new(Links::new(PUBLIC_URL, key, &[])),
        limits: Arc::new(Limits::new(config::Limits::default())),
    };
    let account = server.query::<i64>("SELECT id FROM account LIMIT 1").await;
    (server, uploads, account)
}

async fn keep(uploads: &Uploads, account: i64, filename: &str, content_type: &str, bytes: &[u8]) -> Upload {
    uploads
        .keep(RowId::new(account), filename, content_type, Bytes::copy_from_slice(bytes), RETENTION_DAYS[0], NOW)
        .await
        .unwrap()
}

fn path(upload: &Upload) -> &str {
    upload.url.strip_prefix(PUBLIC_URL).unwrap()
}

fn base(server: &Server) -> String {
    format!("http://{}", server.http)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_served_whole_with_the_headers_of_an_attachment() {
    let (server, uploads, account) = server().await;
    let bytes: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    let upload = keep(&uploads, account, "order ä.pdf", "application/pdf", &bytes).await;
    let ends = NOW.as_secs() + 7 * 86_400;
    assert_eq!((upload.size, upload.expires_at), (300_000, Timestamp::from_millis(ends * 1000)));
    let link = format!("{PUBLIC_URL}/att/{}/0?exp={ends}&sig=", upload.public_id);
    assert!(upload.url.starts_with(&link), "{}", upload.url);

    let (status, head, body) = http_get(&base(&server), path(&upload)).await;
    assert_eq!(status, 200);
    assert!(body == bytes);
    for line in [
        "content-type: application/pdf",
        "content-disposition: attachment; filename=\"order _.pdf\"; filename*=utf-8''order%20%c3%a4.pdf",
        "content-length: 300000",
        "x-content-type-options: nosniff",
        "content-security-policy: sandbox; default-src 'none'",
        "cache-control: no-store",
        "accept-ranges: bytes",
    ] {
        assert!(head.lines().any(|there| there == line), "{line} is missing in {head}");
    }
    let (status, head, body) = http_get_with(&base(&server), path(&upload), "Range: bytes=250000-250002\r\n").await;
    assert_eq!((status, body.as_slice()), (206, &bytes[250_000..=250_002]));
    assert!(head.contains("content-range: bytes 250000-250002/300000"), "{head}");
    assert_eq!(http_get_with(&base(&server), path(&upload), "Range: bytes=300000-\r\n").await.0, 416);
    let head = head_of(&server, path(&upload)).await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-length: 300000"), "{head}");
    assert!(head.ends_with("\r\n\r\n"), "no body");
    server.stop().await;
}

async fn head_of(server: &Server, path: &str) -> String {
    let mut tcp = tokio::net::TcpStream::connect(server.http).await.unwrap();
    let request = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_types_are_made_safe() {
    let (server, uploads, account) = server().await;
    let long = format!("{}.pdf", "x".repeat(300));
    for (given, kept) in [
        ("po.pdf", "po.pdf".to_owned()),
        ("../../etc/passwd", "passwd".to_owned()),
        ("C:\\Users\\ada\\po.pdf", "po.pdf".to_owned()),
        ("/", "file".to_owned()),
        ("..", "file".to_owned()),
        ("", "file".to_owned()),
        ("a\r\nb\0c\u{7f}.txt", "abc.txt".to_owned()),
        ("invoice\u{202e}fdp.exe", "invoicefdp.exe".to_owned()),
        (long.as_str(), format!("{}.pdf", "x".repeat(251))),
    ] {
        assert_eq!(keep(&uploads, account, given, "text/plain", b"x").await.filename, kept, "{given:?}");
    }
    for (given, kept) in [
        ("Text/HTML; charset=utf-8", "Text/HTML; charset=utf-8"),
        ("", "application/octet-stream"),
        ("pdf", "application/octet-stream"),
        ("text/html\r\nset-cookie: a=b", "application/octet-stream"),
    ] {
        let upload = keep(&uploads, account, "a", given, b"x").await;
        assert_eq!(upload.content_type, kept, "{given:?}");
        let (_, head, _) = http_get(&base(&server), path(&upload)).await;
        assert!(head.contains(&format!("content-type: {}\r\n", kept.to_lowercase())), "{head}");
        assert!(!head.contains("set-cookie"), "{head}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_lives_as_long_as_its_link_and_goes_with_it() {
    let (server, uploads, account) = server().await;
    let week = keep(&uploads, account, "week", "text/plain", b"seven days").await;
    let month = uploads
        .keep(RowId::new(account), "month", "text/plain", Bytes::from_static(b"thirty"), 30, NOW)
        .await
        .unwrap();
    // Older than an hour for the file system: what no row names would go.
    for day in std::fs::read_dir(server.data_dir().join("objects")).unwrap().map(Result::unwrap) {
        for file in std::fs::read_dir(day.path()).unwrap().map(Result::unwrap) {
            let long_ago = SystemTime::now() - 2 * Duration::from_secs(3600);
            std::fs::File::options().write(true).open(file.path()).unwrap().set_modified(long_ago).unwrap();
        }
    }
    server.clock.advance(7 * DAY - Duration::from_millis(123));
    assert_eq!(server.sweep().await, Swept::default());
    assert_eq!(http_get(&base(&server), path(&week)).await.2, b"seven days");
    server.clock.advance(Duration::from_millis(1));
    assert_eq!(http_get(&base(&server), path(&week)).await.0, 410);
    assert_eq!(server.sweep().await, Swept { uploads: 1, ..Swept::default() });
    assert_eq!(server.sweep().await, Swept::default());
    assert_eq!(http_get(&base(&server), path(&week)).await.0, 410, "a link that has ended stays ended");
    assert_eq!(http_get(&base(&server), path(&month)).await.2, b"thirty");
    assert_eq!(server.query::<i64>("SELECT count(*) FROM upload").await, 1);
    assert_eq!(orphaned_objects(server.data_dir()), Vec::<String>::new());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_uploads_than_one_step_of_the_sweep_all_go() {
    let (server, uploads, account) = server().await;
    let all = (0..230).map(|_| keep(&uploads, account, "a", "text/plain", b"x"));
    futures_util::future::join_all(all).await;
    server.clock.advance(8 * DAY);
    assert_eq!(server.sweep().await.uploads, 230);
    assert_eq!(server.query::<i64>("SELECT count(*) FROM upload").await, 0);
    let objects = server.data_dir().join("objects");
    let left: usize =
        std::fs::read_dir(objects).unwrap().map(|day| std::fs::read_dir(day.unwrap().path()).unwrap().count()).sum();
    assert_eq!(left, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_without_its_row_is_not_found_and_another_index_is_forged() {
    let (server, uploads, account) = server().await;
    let upload = keep(&uploads, account, "a", "text/plain", b"x").await;
    let other_index = path(&upload).replace("/0?", "/1?");
    assert_eq!(http_get(&base(&server), &other_index).await.0, 403);
    server.write(|tx, _, _| Ok(tx.execute("DELETE FROM account", []).map(|_| ())?)).await;
    let (status, _, body) = http_get(&base(&server), path(&upload)).await;
    assert_eq!(status, 404);
    assert!(String::from_utf8_lossy(&body).contains("not_found"));
    assert_eq!(orphaned_objects(server.data_dir()).len(), 1, "for the sweep, once it is old");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_not_stored_leaves_nothing() {
    let (server, uploads, _) = server().await;
    let nobody = 999_999;
    let refused = uploads.keep(RowId::new(nobody), "a", "text/plain", Bytes::from_static(b"x"), 7, NOW).await;
    assert!(refused.is_err(), "{refused:?}");
    let removed = async {
        while !orphaned_objects(server.data_dir()).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), removed).await.unwrap();
    assert_eq!(server.query::<i64>("SELECT count(*) FROM upload").await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_synced_before_it_is_answered_and_nobody_else_may_read_it() {
    let (server, uploads, account) = server().await;
    let before = uploads.objects.fsyncs();
    keep(&uploads, account, "a", "text/plain", b"x").await;
    assert_eq!(uploads.objects.fsyncs(), before + 2, "the file and its folder");
    let file = server.query::<String>("SELECT file FROM upload").await;
    let mode = std::fs::metadata(server.data_dir().join("objects").join(&file)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.stop().await;
}
