//! Lists and searches over real sockets: the cursor, the filters, and search terms that are never syntax.

use std::fmt::Write as _;

use serde_json::Value;

use crate::support::server::Server;

/// Percent-encodes everything.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        write!(out, "%{byte:02X}").unwrap();
        out
    })
}

fn subjects(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|row| row["subject"].as_str().unwrap().to_owned()).collect()
}

async fn found(server: &Server, needle: &str) -> Vec<String> {
    let (status, list) = server.api(&format!("/api/messages?search={}", encoded(needle))).await;
    assert_eq!(status, 200, "{needle}: {list}");
    subjects(&list)
}

async fn index(server: &Server) {
    server.write(|tx, _, _| mailkite::testing::store::search::fill(tx, 1_000).map(drop)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_needle_is_data_whatever_it_holds_and_however_long_it_is() {
    let server = Server::start().await;
    let long = "long ".repeat(60);
    let odd =
        ["100% sure", "a_b", "back\\slash", "\"quoted\" OR not", "star* NEAR(x)", "\u{1f600} smile", "it's; --"];
    for subject in odd.into_iter().chain([long.trim_end(), "Gr\u{fc}\u{df}e AUS K\u{f6}ln", "Hi"]) {
        server.accepted("a@inbox.test", subject).await;
    }
    for step in ["not indexed", "indexed"] {
        for (needle, wanted) in [
            ("%", vec!["100% sure"]),
            ("0% S", vec!["100% sure"]),
            ("_", vec!["a_b"]),
            ("A_B", vec!["a_b"]),
            ("a%b", vec![]),
            ("\\", vec!["back\\slash"]),
            ("k\\s", vec!["back\\slash"]),
            ("\"", vec!["\"quoted\" OR not"]),
            ("\" OR ", vec!["\"quoted\" OR not"]),
            ("sure OR not", vec![]),
            ("*", vec!["star* NEAR(x)"]),
            ("star* NEAR(X)", vec!["star* NEAR(x)"]),
            ("sta*", vec![]),
            ("subject:star", vec![]),
            ("'", vec!["it's; --"]),
            ("'S; --", vec!["it's; --"]),
            ("\u{1f600}", vec!["\u{1f600} smile"]),
            ("\u{1f601}", vec![]),
            ("GR\u{dc}SSE", vec!["Gr\u{fc}\u{df}e AUS K\u{f6}ln"]),
            ("\u{d6}", vec!["Gr\u{fc}\u{df}e AUS K\u{f6}ln"]),
            ("hi", vec!["Hi"]),
            ("\u{0}", vec![]),
            ("\n", vec![]),
            (long.trim_end(), vec![long.trim_end()]),
            (long.as_str(), vec![]),
        ] {
            assert_eq!(found(&server, needle).await, wanted, "{needle:?}, {step}");
        }
        for of_all in ["a", "ada@example.com", "INBOX", "."] {
            assert_eq!(found(&server, of_all).await.len(), 10, "{of_all}, {step}");
        }
        // Nothing reaches from one field into the next.
        assert_eq!(found(&server, "example.coma@inbox").await, Vec::<String>::new(), "{step}");
        index(&server).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_search_hold_every_row_once_while_the_index_follows() {
    let server = Server::start().await;
    server.other_account("other.test", "http://127.0.0.1:1/").await;
    for n in 0..23 {
        server.accepted("a@inbox.test", &format!("number {n}")).await;
        server.accepted("a@other.test", &format!("number {n} of another")).await;
    }
    let wanted: Vec<String> = (0..23).rev().map(|n| format!("number {n}")).collect();
    for search in ["", "&search=number", "&search=r%20", "&search=e&domain=inbox.test", "&search=BER&status=received"]
    {
        let (mut seen, mut before) = (Vec::new(), String::new());
        loop {
            let (status, page) = server.api(&format!("/api/messages?limit=5{search}{before}")).await;
            assert_eq!(status, 200, "{search}: {page}");
            seen.extend(subjects(&page));
            let rows = page.as_array().unwrap();
            if rows.len() < 5 {
                break;
            }
            before = format!("&before={}", rows[4]["received_at"]);
            server.write(|tx, _, _| mailkite::testing::store::search::fill(tx, 3).map(drop)).await;
        }
        assert_eq!(seen, wanted, "{search}");
    }
    index(&server).await;
    assert_eq!(found(&server, "of another").await, Vec::<String>::new());
    assert_eq!(server.api("/api/messages?search=number&domain=other.test").await.1, Value::Array(Vec::new()));
    server.stop_with_any_jobs().await;
}
