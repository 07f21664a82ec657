//! The dashboard as it is served: its page, its files, the frame for mail, the ticket that signs in. What it does in a
//! browser is tested by `tests/dashboard`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;

use crate::support::api::Api;
use crate::support::server::Server;

/// The page and the addresses of this server that it names.
async fn page(api: &Api) -> (String, Vec<String>) {
    let answer = api.exchange("GET", "/", &[], None).await;
    assert_eq!(answer.status, 200);
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cache-control", "no-cache"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    let html = String::from_utf8(answer.body.clone()).unwrap();
    let files = html.split('"').filter(|text| text.starts_with("/assets/")).map(ToOwned::to_owned).collect();
    let tag = answer.header("etag").unwrap().to_owned();
    let again = api.exchange("GET", "/", &[("If-None-Match", &tag)], None).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    (html, files)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_small_and_kept_for_ever() {
    let server = Server::start().await;
    let api = server.anonymous();
    let (html, files) = page(&api).await;
    assert!(!html.contains("{{"), "{html}");
    assert!(!html.contains("href=\"http") && !html.contains("src=\"http"), "{html}");
    assert!(files.len() >= 4, "{files:?}");
    for path in &files {
        let plain = api.exchange("GET", path, &[], None).await;
        assert_eq!((plain.status, plain.header("content-encoding")), (200, None), "{path}");
        assert_eq!(plain.header("cache-control"), Some("public, max-age=31536000, immutable"), "{path}");
        for (asked, given) in [("gzip, deflate", "gzip"), ("gzip, br", "br"), ("br;q=0, gzip", "gzip")] {
            let answer = api.exchange("GET", path, &[("Accept-Encoding", asked)], None).await;
            if plain.body.len() > 600 {
                assert_eq!(answer.header("content-encoding"), Some(given), "{path}");
                assert!(answer.body.len() < plain.body.len(), "{path}");
            }
            assert_eq!(answer.header("vary"), Some("accept-encoding"), "{path}");
            assert_eq!(answer.header("content-type"), plain.header("content-type"), "{path}");
            let tag = answer.header("etag").unwrap().to_owned();
            let known = [("Accept-Encoding", asked), ("If-None-Match", tag.as_str())];
            let again = api.exchange("GET", path, &known, None).await;
            assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        }
    }
    let (head, name) = files[0].rsplit_once('/').unwrap();
    for unknown in [
        format!("{head}/nothing.js"),
        format!("/assets/0000000000000000/app/{name}"),
        format!("{head}/../index.html"),
        format!("{head}/%2e%2e/index.html"),
        "/assets/app/main.js".to_owned(),
    ] {
        api.exchange("GET", &unknown, &[], None).await.expect_error(404, "not_found");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_is_shown_only_in_a_frame_of_the_dashboard_and_runs_nothing() {
    let server = Server::start().await;
    let api = server.anonymous();
    let body = b"html=<p style=\"color:red\">Hi</p>=&\r\n";
    let own = [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Dest", "iframe")];
    let shown = api.exchange("POST", "/frame", &own, Some(body)).await;
    assert_eq!((shown.status, shown.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(shown.body, &body[5..]);
    let policy = shown.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'"),
        "{policy}"
    );
    assert!(!policy.contains("script") && !policy.contains("http"), "{policy}");
    let remote = api.exchange("POST", "/frame?remote=1", &own, Some(body)).await;
    let policy = remote.header("content-security-policy").unwrap();
    assert!(policy.contains("img-src data: https: http:") && !policy.contains("script"), "{policy}");
    let elsewhere = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Dest", "iframe")];
    api.exchange("POST", "/frame", &elsewhere, Some(body)).await.expect_error(403, "foreign_origin");
    for stranger in [
        &[][..],
        &[("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Dest", "iframe")],
        &[("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Dest", "document")],
        &[("Sec-Fetch-Site", "none"), ("Sec-Fetch-Dest", "document")],
    ] {
        api.exchange("POST", "/frame", stranger, Some(body)).await.expect_error(404, "not_found");
    }
    api.exchange("POST", "/frame", &own, Some(b"text=x")).await.expect_error(400, "bad_request");
    let large = vec![b'x'; 4 * 1_048_576 + 1];
    api.exchange("POST", "/frame", &own, Some(&large)).await.expect_error(413, "body_too_large");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_signs_in_once() {
    let server = Server::start().await;
    let api = server.anonymous();
    let owner = server.write(|tx, _, _| mailkite::testing::store::accounts::find_owner(tx)).await.unwrap();
    let ticket = server.accounts.tickets.issue(owner);
    let signed_in = api.post("/api/auth/login", json!({"ticket": ticket})).await.expect(200);
    let session = api.with(signed_in["token"].as_str().unwrap());
    session.get("/v1/me").await.expect(200);
    for spent in [ticket.as_str(), "", "x"] {
        api.post("/api/auth/login", json!({"ticket": spent})).await.expect_error(401, "bad_login");
    }
    server.stop().await;
}

/// Every script of the dashboard: its path below `assets` and its text.
fn scripts() -> BTreeMap<String, String> {
    fn walk(folder: &Path, below: &str, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = format!("{below}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{path}/"), found);
            } else if path.ends_with(".js") {
                found.insert(path, std::fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets"), "", &mut found);
    assert!(found.len() > 50, "only {} scripts?", found.len());
    found
}

/// `paths.js` checks and encodes ids and names in paths; a path that is put together elsewhere might lead elsewhere.
#[test]
fn paths_with_ids_in_them_are_made_in_one_place() {
    let path = regex::Regex::new(r#"/(?:api|v1|att)/[^\s`"'\\<>]*\$\{|#/[^\s`"'\\<>]*\$\{"#).unwrap();
    let joined = regex::Regex::new(r#"["'](?:#/|/(?:api|v1|att)/)[^"']*["']\s*\+"#).unwrap();
    let (mut wrong, mut tagged) = (Vec::new(), 0);
    for (name, text) in scripts() {
        if !name.starts_with("app/") || name == "app/lib/paths.js" {
            continue;
        }
        for found in path.find_iter(&text) {
            let before = &text[..found.start()];
            // The template of the path begins with it, and is one of `apiPath`.
            if before.ends_with("apiPath`") {
                tagged += 1;
            } else {
                wrong.push(format!("{name}: {}", found.as_str()));
            }
        }
        wrong.extend(joined.find_iter(&text).map(|found| format!("{name}: {}", found.as_str())));
        wrong.extend(text.contains("encodeURIComponent").then(|| format!("{name} encodes by itself")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(tagged > 20, "{tagged}");
}

/// A module that is not preloaded is fetched only once the module that imports it has arrived: one round trip more for
/// each level of imports.
#[test]
fn the_page_preloads_every_module_it_starts_with() {
    let import = regex::Regex::new(r#"(?m)^(?:import|export)\b[^;"]*?\bfrom ?"([^"]+)";"#).unwrap();
    let scripts = scripts();
    let mut needed = BTreeSet::new();
    let mut next = vec!["app/main.js".to_owned()];
    while let Some(name) = next.pop() {
        let folder = Path::new(&name).parent().unwrap().to_owned();
        for found in import.captures_iter(scripts.get(&name).unwrap_or_else(|| panic!("{name} does not exist"))) {
            let mut path = folder.clone();
            for part in found[1].split('/') {
                match part {
                    "." => {}
                    ".." => assert!(path.pop()),
                    part => path.push(part),
                }
            }
            let path = path.to_str().unwrap().to_owned();
            if needed.insert(path.clone()) {
                next.push(path);
            }
        }
    }
    // Minified, and without a line of its own for its import.
    needed.insert("vendor/preact.js".to_owned());
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/index.html")).unwrap();
    let preload = regex::Regex::new(r#"rel="modulepreload" href="\{\{assets\}\}/([^"]+)""#).unwrap();
    let preloaded: BTreeSet<String> = preload.captures_iter(&page).map(|found| found[1].to_owned()).collect();
    assert_eq!(preloaded, needed);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_folders_are_served_and_what_is_written_for_developers_is_not() {
    let server = Server::start().await;
    let api = server.anonymous();
    let (_, files) = page(&api).await;
    let assets = files[0].split("/app/").next().unwrap();
    for name in scripts().keys() {
        assert_eq!(api.exchange("GET", &format!("{assets}/{name}"), &[], None).await.status, 200, "{name}");
    }
    for name in ["app/README.md", "vendor/README.md", "vendor/LICENSE-htm", "templates/welcome.html", "app/lib"] {
        api.exchange("GET", &format!("{assets}/{name}"), &[], None).await.expect_error(404, "not_found");
    }
    server.stop().await;
}
