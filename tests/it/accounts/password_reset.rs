//! A forgotten password: the mailed link, what it does, and what nobody learns by asking (contract 2.6).

use std::time::Duration;

use mailkite::testing::store::accounts::notices::PURPOSE as NOTICE_PURPOSE;
use serde_json::{Value, json};

use super::{HOUR, MINUTE, PASSWORD, log_in, member, open, text};
use crate::support::api::{Answer, Api};
use crate::support::server::Server;
use crate::support::wait::until;

const NEW: &str = "staple battery horse";

async fn forgot(api: &Api, email: &str) -> Answer {
    api.post("/api/auth/password/forgot", json!({"email": email})).await
}

async fn reset(api: &Api, token: &str, password: &str) -> Answer {
    api.post("/api/auth/password/reset", json!({"token": token, "password": password})).await
}

/// Texts of the notices with this subject, oldest first.
async fn mails(server: &Server, subject: &'static str) -> Vec<String> {
    let found = server.db.read(move |connection| {
        let mut statement = connection.prepare("SELECT text_sealed FROM notice WHERE subject = ?1 ORDER BY id")?;
        let rows = statement.query_map([subject], |row| row.get::<_, Vec<u8>>(0))?;
        Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
    });
    let texts = found.await.unwrap();
    texts.iter().map(|sealed| server.secrets.open_text(NOTICE_PURPOSE, sealed).unwrap()).collect()
}

/// Waits until so many links were ever made, and returns the token of the newest.
async fn token(server: &Server, number: i64) -> String {
    until(async || server.query::<i64>("SELECT count(*) FROM account_link").await >= number).await;
    let mail = mails(server, "Choose a new password").await.pop().unwrap();
    let (_, rest) = mail.split_once("https://mail.mailkite.test/#/reset-password/").unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailed_link_sets_a_password_once_and_ends_every_session() {
    let server = open().await;
    let api = server.anonymous();
    let ada = member(&server, "ada@acme.dev").await;
    let key = ada.with(text(&ada.get("/api/keys").await.expect(200)["key"]));
    server.write(|tx, _, _| Ok(tx.execute("UPDATE account SET email_verified = 1", [])?)).await;
    assert_eq!(forgot(&api, " Ada@acme.dev ").await.expect(200), json!({"ok": true}));
    let first = token(&server, 1).await;
    forgot(&api, "ada@acme.dev").await.expect(200);
    let second = token(&server, 2).await;
    assert_ne!(first, second);
    let hashed: i64 = server.query("SELECT count(*) FROM account_link WHERE octet_length(token_hash) = 32").await;
    assert_eq!(hashed, 2);
    for (body, code, field) in [
        (json!({"password": NEW}), "bad_request", "token"),
        (json!({"token": first}), "weak_password", "password"),
        (json!({"token": first, "password": "short"}), "weak_password", "password"),
        (json!({"token": first, "password": "Ada@acme.dev"}), "weak_password", "password"),
    ] {
        let refused = api.post("/api/auth/password/reset", body).await;
        refused.expect_error(400, code);
        assert_eq!(refused.json["field"], field);
    }
    reset(&api, &first.to_lowercase(), NEW).await.expect_error(400, "bad_link");
    log_in(&api, "ada@acme.dev", PASSWORD).await.expect(200);
    assert_eq!(reset(&api, &first, NEW).await.expect(200), json!({"ok": true}));
    for spent in [&first, &second] {
        reset(&api, spent, NEW).await.expect_error(400, "bad_link");
    }
    ada.get("/v1/me").await.expect_error(401, "session_expired");
    key.get("/v1/me").await.expect(200);
    log_in(&api, "ada@acme.dev", PASSWORD).await.expect_error(401, "bad_login");
    log_in(&api, "ada@acme.dev", NEW).await.expect(200);
    let news = mails(&server, "Your password was changed").await;
    assert!(news.len() == 1 && news[0].contains("https://mail.mailkite.test/") && !news[0].contains(&first));
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_good_for_an_hour() {
    let server = open().await;
    let api = server.anonymous();
    member(&server, "ada@acme.dev").await;
    forgot(&api, "ada@acme.dev").await.expect(200);
    let late = token(&server, 1).await;
    server.clock.advance(HOUR);
    reset(&api, &late, NEW).await.expect_error(400, "bad_link");
    forgot(&api, "ada@acme.dev").await.expect(200);
    let good = token(&server, 2).await;
    server.clock.advance(HOUR - Duration::from_millis(1));
    reset(&api, &good, NEW).await.expect(200);
    server.clock.advance(HOUR);
    server.sweep().await;
    assert_eq!(server.query::<i64>("SELECT count(*) FROM account_link").await, 0);
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_learns_by_asking_which_addresses_have_accounts() {
    let server = open().await;
    let api = server.anonymous();
    member(&server, "ada@acme.dev").await;
    let known = forgot(&api, "ada@acme.dev").await;
    token(&server, 1).await;
    let unknown = forgot(&api, "nobody@acme.dev").await;
    let shown = |answer: &Answer| {
        let mut headers = answer.headers.clone();
        headers.remove("x-request-id");
        headers.remove("date");
        (answer.status, headers, answer.json.clone())
    };
    assert_eq!(shown(&known), shown(&unknown));
    for bad in [json!({}), json!({"email": "no address"}), json!({"email": 1})] {
        api.post("/api/auth/password/forgot", bad).await.expect_error(400, "bad_address");
    }
    for _ in 2..10 {
        forgot(&api, "nobody@acme.dev").await.expect(200);
    }
    let limited = forgot(&api, "ada@acme.dev").await;
    limited.expect_error(429, "rate_limited");
    assert!(limited.headers.contains_key("retry-after"));
    assert_eq!(server.query::<i64>("SELECT count(*) FROM account_link").await, 1);
    // A mailbox gets six mails in an hour and twelve in a day, whoever asks; the proof of the address was one of them.
    for most in [7, 11] {
        server.clock.advance(HOUR);
        for _ in 0..10 {
            forgot(&api, "ada@acme.dev").await.expect(200);
        }
        token(&server, most).await;
    }
    server.clock.advance(HOUR);
    forgot(&api, "ada@acme.dev").await.expect(200);
    member(&server, "bob@acme.dev").await;
    forgot(&api, "bob@acme.dev").await.expect(200);
    token(&server, 12).await;
    assert_eq!(server.query::<i64>("SELECT count(*) FROM account_link").await, 12, "eleven of them hers");
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_at_links_is_limited_as_logins_are() {
    let server = open().await;
    let api = server.anonymous();
    for number in 0..50 {
        reset(&api, &format!("guess{number}"), NEW).await.expect_error(400, "bad_link");
    }
    reset(&api, "guess", NEW).await.expect_error(429, "rate_limited");
    server.clock.advance(15 * MINUTE);
    reset(&api, "guess", NEW).await.expect_error(400, "bad_link");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_owns_the_mailbox_takes_over_an_account_that_somebody_else_made_with_it() {
    let server = open().await;
    let api = server.anonymous();
    let thief = member(&server, "vic@third.test").await;
    let key = thief.with(text(&thief.get("/api/keys").await.expect(200)["key"]));
    forgot(&api, "vic@third.test").await.expect(200);
    let link = token(&server, 1).await;
    reset(&api, &link, NEW).await.expect(200);
    thief.get("/v1/me").await.expect_error(401, "session_expired");
    key.get("/v1/me").await.expect_error(401, "bad_key");
    let signed_in: Value = log_in(&api, "vic@third.test", NEW).await.expect(200);
    assert_eq!(signed_in["user"]["emailVerified"], true);
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_whose_mail_is_stored_here_gets_no_link() {
    let server = open().await;
    let api = server.anonymous();
    member(&server, "ada@inbox.test").await;
    member(&server, "bob@acme.dev").await;
    for email in ["ada@inbox.test", "bob@acme.dev"] {
        assert_eq!(forgot(&api, email).await.expect(200), json!({"ok": true}));
    }
    until(async || server.query::<i64>("SELECT count(*) FROM account_link").await >= 1).await;
    let linked: String =
        server.query("SELECT group_concat(email) FROM account_link JOIN account ON account.id = account_id").await;
    assert_eq!(linked, "bob@acme.dev");
    server.stop_with_any_jobs().await;
}
