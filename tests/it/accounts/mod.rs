//! Accounts: signing up and in, credentials, Google, and what one account may have (contract 1.9, 2).
//!
//! Tests use the API; the helpers below sign up and log in. Google is played by `support::google`.
//! A change of a limit goes to `limits` or `storage_limits`, of the cost of passwords to `password_hashing`.

mod credentials;
mod email_verification;
mod google_client;
mod google_sign_in;
mod limits;
mod login;
mod password_hashing;
mod password_reset;
mod setup_token;
mod sign_up;
mod storage_limits;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::config::{Config, Signup};
use mailkite::testing::store::accounts::notices::PURPOSE as NOTICE_PURPOSE;
use serde_json::{Value, json};

use crate::support::api::{Answer, Api};
use crate::support::server::Server;

const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const PASSWORD: &str = "correct horse battery";

fn clock() -> Clock {
    Clock::manual(NOW)
}

/// Starts a server without an account, with this sign-up setting, reached under a public name.
async fn unowned(signup: Signup) -> Server {
    Server::start_unowned(clock(), |config| config.auth.signup = signup).await
}

/// Starts a server with an owner and open sign-up.
async fn open() -> Server {
    Server::start_with(clock(), |config| config.auth.signup = Signup::Open).await
}

fn locally(config: &mut Config) {
    config.public_url = "http://127.0.0.1:8080".to_owned();
}

async fn sign_up(api: &Api, email: &str) -> Answer {
    api.post("/api/auth/signup", json!({"email": email, "password": PASSWORD})).await
}

async fn log_in(api: &Api, email: &str, password: &str) -> Answer {
    api.post("/api/auth/login", json!({"email": email, "password": password})).await
}

/// Signs up a new account and logs it in.
async fn member(server: &Server, email: &str) -> Api {
    let signed_up = sign_up(&server.anonymous(), email).await.expect(201);
    server.anonymous().with(text(&signed_up["token"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Reads the token of the newest verification link that is queued.
async fn mailed_token(server: &Server) -> String {
    let sealed: Vec<u8> = server.query("SELECT text_sealed FROM notice ORDER BY id DESC LIMIT 1").await;
    let mail = server.secrets.open_text(NOTICE_PURPOSE, &sealed).unwrap();
    let (_, rest) = mail.split_once("https://mail.mailkite.test/api/auth/verify?token=").unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}
