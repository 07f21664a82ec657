//! The figures move with what happens, seen through the doors of a running server.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mailkite::testing::clock::Clock;

use crate::support::metrics::{Figures, TOKEN};
use crate::support::receiver::{Receiver, Reply};
use crate::support::remote_host::{HostAction, HostConfig, RemoteHost};
use crate::support::sending_server::SendingServer;
use crate::support::server::{Server, message};
use crate::support::smtp::SmtpClient;
use crate::support::wait::until;

async fn start() -> Server {
    Server::start_with(Clock::System, |config| {
        config.metrics.token = Some(TOKEN.to_owned());
        config.smtp.max_message_bytes = 4096;
    })
    .await
}

/// The growth of each series.
async fn grown(server: &Server, before: &Figures, series: &[&str]) -> Vec<f64> {
    let after = Figures::of(server).await;
    series.iter().map(|series| after.get(series) - before.get(series)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_counted_and_timed_until_its_webhook_is_reached() {
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let mut server = start().await;
    server.webhook(&receiver.url()).await;
    let before = Figures::of(&server).await;
    server.accepted("a@inbox.test", "counted").await;
    receiver.next_request().await;
    server.next_attempt().await;
    let series = [
        "mailkite_messages_accepted_total",
        "mailkite_smtp_sessions_total",
        "mailkite_accept_duration_seconds_count{service=\"smtp\"}",
        "mailkite_accept_duration_seconds_bucket{service=\"smtp\",le=\"+Inf\"}",
        "mailkite_webhook_attempts_total{outcome=\"2xx\"}",
        "mailkite_webhook_attempts_delivered_total",
        "mailkite_webhook_attempts_failed_total",
        "mailkite_webhook_attempt_duration_seconds_count",
        "mailkite_mail_to_webhook_seconds_count",
    ];
    assert_eq!(grown(&server, &before, &series).await, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
    let after = Figures::of(&server).await;
    assert!(after.get("mailkite_fsync_duration_seconds_count{file=\"wal\"}") >= 1.0);
    let accept = after.get("mailkite_accept_duration_seconds_sum{service=\"smtp\"}");
    assert!(accept > 0.0 && accept < 30.0, "{accept}");
    until(async || Figures::of(&server).await.get("mailkite_jobs{kind=\"webhook\"}") == 0.0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_counted_by_service_and_reason_and_under_their_old_names() {
    let server = start().await;
    server.plain_route("*@inbox.test", mailkite::testing::store::webhooks::routes::Action::Store).await;
    let before = Figures::of(&server).await;
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    client.expect("EHLO client.test", 250).await;
    client.expect("MAIL FROM:<a@client.test>", 250).await;
    client.expect("RCPT TO:<a@elsewhere.test>", 550).await;
    client.expect("RSET", 250).await;
    client.expect("MAIL FROM:<a@client.test> SIZE=5000", 552).await;
    let reply = client.mail("a@client.test", &["b@inbox.test"], message(&"x".repeat(5000))).await;
    assert_eq!(reply.code, 552);
    client.envelope("a@client.test", &["b@inbox.test"]).await;
    client.expect("DATA", 354).await;
    client.send("Subject: bare\n\r\n.\r\n").await;
    assert_eq!(client.reply().await.code, 554);
    let series = [
        "mailkite_recipients_refused_total{service=\"smtp\",reason=\"relay\"}",
        "mailkite_recipients_refused_relay_total",
        "mailkite_recipients_refused_unknown_total",
        "mailkite_messages_refused_total{service=\"smtp\",reason=\"too_large\"}",
        "mailkite_messages_refused_too_large_total",
        "mailkite_messages_refused_total{service=\"smtp\",reason=\"bare_newline\"}",
        "mailkite_messages_refused_bare_newline_total",
        "mailkite_messages_refused_total{service=\"submission\",reason=\"too_large\"}",
        "mailkite_messages_accepted_total",
    ];
    assert_eq!(grown(&server, &before, &series).await, [1.0, 1.0, 0.0, 2.0, 2.0, 1.0, 1.0, 0.0, 0.0]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_endpoint_shows_its_answers_and_the_job_that_waits() {
    let receiver = Receiver::start(|_| Reply::status(503)).await;
    let mut server = start().await;
    server.webhook(&receiver.url()).await;
    let before = Figures::of(&server).await;
    server.accepted("a@inbox.test", "fails").await;
    server.next_attempt().await;
    let series = [
        "mailkite_webhook_attempts_total{outcome=\"5xx\"}",
        "mailkite_webhook_attempts_total{outcome=\"2xx\"}",
        "mailkite_webhook_attempts_failed_total",
        "mailkite_mail_to_webhook_seconds_count",
        "mailkite_jobs{kind=\"webhook\"}",
        "mailkite_jobs{kind=\"dispatch\"}",
    ];
    assert_eq!(grown(&server, &before, &series).await, [1.0, 0.0, 1.0, 1.0, 1.0, 0.0]);
    until(async || Figures::of(&server).await.get("mailkite_job_oldest_age_seconds{kind=\"webhook\"}") > 0.0).await;
    drop(receiver);
    server.stop_with_jobs(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_elsewhere_and_wrong_passwords_are_counted_by_how_they_end() {
    let script = |command: &str, _: usize| {
        command.starts_with("RCPT TO:<gone").then(|| HostAction::Send("550 5.1.1 no such user\r\n".to_owned()))
    };
    let remote = RemoteHost::with(HostConfig { script: Arc::new(script), ..HostConfig::default() }).await;
    let mut setup = SendingServer::start_with(Clock::System, remote, |config| {
        config.metrics.token = Some(TOKEN.to_owned());
    })
    .await;
    let before = Figures::of(&setup.server).await;
    let mail = "From: hi@inbox.test\r\nTo: ada@remote.test\r\nSubject: Engine\r\n\r\nDoes it branch?\r\n";
    setup.submit("hi@inbox.test", &["ada@remote.test", "gone@remote.test"], mail).await;
    setup.remote.next_mail().await;
    setup.server.until("SELECT count(*) FROM recipient WHERE status IN ('sent', 'bounced')", 2_i64).await;
    let mut stranger = setup.submission_session().await;
    let reply = stranger.mail("other@elsewhere.test", &["ada@remote.test"], mail.replace("hi@inbox", "x@else")).await;
    assert_eq!(reply.code / 100, 5, "{}", reply.text());
    let mut guesser = SmtpClient::connect(setup.server.submission[0]).await;
    guesser.expect("EHLO client.test", 250).await;
    let mut guesser = guesser.starttls().await;
    guesser.expect("EHLO client.test", 250).await;
    guesser.expect(&format!("AUTH PLAIN {}", BASE64.encode("\0me\0guess")), 535).await;
    assert_eq!(setup.server.anonymous().with("mk_live_guess").get("/v1/me").await.status, 401);
    let series = [
        "mailkite_messages_submitted_total",
        "mailkite_accept_duration_seconds_count{service=\"submission\"}",
        "mailkite_remote_deliveries_total{outcome=\"sent\",subject=\"undefined\"}",
        "mailkite_remote_deliveries_total{outcome=\"bounced\",subject=\"address\"}",
        "mailkite_recipients_sent_total",
        "mailkite_recipients_bounced_total",
        "mailkite_remote_delivery_duration_seconds_count",
        "mailkite_messages_refused_total{service=\"submission\",reason=\"sender\"}",
        "mailkite_credentials_failed_total{service=\"submission\"}",
        "mailkite_smtp_logins_refused_total",
        "mailkite_credentials_failed_total{service=\"http\"}",
    ];
    // The submitter gets a DSN, which stays here.
    until(async || Figures::of(&setup.server).await.get("mailkite_recipients_sent_total") == 2.0).await;
    let counted = grown(&setup.server, &before, &series).await;
    assert_eq!(counted, [1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_family_method_and_class_of_the_status() {
    let server = start().await;
    let owner = server.owner().await;
    owner.get("/api/messages").await.expect(200);
    owner.get("/api/messages/msg_none").await.expect_error(404, "not_found");
    let answer = server.anonymous().exchange("GET", "/api/secret-of-a-stranger", &[], None).await;
    assert_eq!(answer.status, 404);
    let figures = Figures::of(&server).await;
    let requests = |labels: &str| figures.get(&format!("mailkite_http_requests_total{{{labels}}}"));
    assert_eq!(requests("family=\"messages\",method=\"GET\",status=\"2xx\""), 1.0);
    assert_eq!(requests("family=\"messages\",method=\"GET\",status=\"4xx\""), 1.0);
    assert_eq!(requests("family=\"unknown\",method=\"GET\",status=\"4xx\""), 1.0);
    assert_eq!(figures.get("mailkite_http_request_duration_seconds_count{family=\"messages\"}"), 2.0);
    assert!(!figures.text.contains("stranger"), "{}", figures.text);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machine_shows_its_disk_its_certificate_and_the_process() {
    let server = start().await;
    let figures = Figures::of(&server).await;
    let (free, size) = (figures.get("mailkite_disk_free_bytes"), figures.get("mailkite_disk_bytes"));
    assert!(free > 0.0 && free < size, "{free} of {size}");
    let database = figures.get("mailkite_database_bytes");
    assert!(database >= 4096.0 && figures.get("mailkite_database_free_bytes") < database);
    let now = mailkite::testing::clock::Clock::System.now().as_secs() as f64;
    assert!(figures.get("mailkite_certificate_expiry_timestamp_seconds") > now);
    let started = figures.get("process_start_time_seconds");
    assert!(started <= now && started > now - 600.0, "{started} {now}");
    assert!(figures.get("process_resident_memory_bytes") > 1e6 && figures.get("process_cpu_seconds_total") > 0.0);
    assert!(figures.get("process_open_fds") > 3.0 && figures.get("process_threads") > 1.0);
    assert_eq!(figures.get("mailkite_smtp_listeners"), 1.0);
    assert_eq!(figures.get(concat!("mailkite_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}")), 1.0);
    server.stop().await;
}
