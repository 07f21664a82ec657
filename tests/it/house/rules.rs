//! The rules of the source, executed: levels, homes of SQL, sockets and the clock, citations, heads of files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use regex::Regex;
use rusqlite::Connection;

/// Modules that one of the same level may use, each with the reason.
const SAME_LEVEL: &[(&str, &str, &str)] = &[
    ("config", "memory_budget", "it knows what a door can hold of all"),
    ("net", "config", "its servers, files and guard are configured"),
    ("limits", "config", "its values are configured"),
    ("limits", "store", "it counts rows in the transaction that adds one"),
    ("limits", "rate_limit", "it counts requests against a rate"),
    ("accounts", "jobs", "mail that proves an address is a job"),
    ("cli", "app", "commands run the whole"),
    ("id", "clock", "an id begins with its time"),
    ("mail", "clock", "trace fields tell the time"),
];

/// A longer file should be looked at again; none may pass the second limit.
const LONG_FILE: usize = 450;
const LONGEST_FILE: usize = 700;

/// Folders and files of `src` beside `lib.rs`, `main.rs` and `testing.rs`; more would be a list to search, not a map.
const MOST_ROOMS: usize = 27;
/// Lines of `lib.rs` beside its table of standards.
const LONGEST_MAP: usize = 150;

pub(super) struct Source {
    /// Below `src/`.
    pub(super) path: String,
    pub(super) text: String,
    /// Without comments and without the tests at the end.
    pub(super) code: String,
}

impl Source {
    /// `store` for `store/mod.rs` and `store/jobs/mod.rs`, `clock` for `clock.rs`.
    pub(super) fn module(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }
}

pub(super) fn sources() -> Vec<Source> {
    fn walk(folder: &Path, below: &str, found: &mut Vec<Source>) {
        let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(Result::unwrap).collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = format!("{below}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{path}/"), found);
            } else if path.ends_with(".rs") {
                let text = fs::read_to_string(entry.path()).unwrap();
                let production = if path.ends_with("/tests.rs") { "" } else { before_tests(&text) };
                let code = production.lines().map(|line| without_comment(line).to_owned() + "\n").collect();
                found.push(Source { path, text, code });
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut found);
    assert!(found.len() > 50, "src has only {} files?", found.len());
    found
}

pub(super) fn before_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap()
}

/// The line up to a `//` that does not stand in a URL.
pub(super) fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with("//") {
        return "";
    }
    line.split(" // ").next().unwrap()
}

/// The levels, as the table in lib.rs has them.
pub(super) fn levels() -> BTreeMap<String, u32> {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let row = Regex::new(r"^//! \| (\d)[^|]*\| ([^|]*) \|").unwrap();
    let name = Regex::new(r"\[`([a-z_]+)`\]").unwrap();
    let mut levels = BTreeMap::new();
    for line in map.lines() {
        let Some(found) = row.captures(line) else { continue };
        for module in name.captures_iter(&found[2]) {
            let earlier = levels.insert(module[1].to_owned(), found[1].parse().unwrap());
            assert_eq!(earlier, None, "{} stands twice in lib.rs's table", &module[1]);
        }
    }
    levels
}

#[test]
fn every_module_stands_in_the_table_of_levels() {
    let levels = levels();
    let present: BTreeSet<String> = sources()
        .iter()
        .map(|source| source.module().to_owned())
        .filter(|module| module != "lib" && module != "main")
        .collect();
    let listed: BTreeSet<String> = levels.keys().cloned().collect();
    assert_eq!(listed, present);
    let rooms = present.iter().filter(|module| *module != "testing").count();
    assert!(rooms <= MOST_ROOMS, "{rooms} rooms: {present:?}");
}

#[test]
fn a_module_uses_only_modules_of_a_lower_level() {
    let levels = levels();
    let mut broken = Vec::new();
    for source in sources() {
        let module = source.module();
        let Some(&level) = levels.get(module) else { continue };
        for name in modules_used(&source.code) {
            let allowed = name == module
                || levels.get(&name).is_some_and(|lower| *lower < level)
                || SAME_LEVEL.iter().any(|(user, used, _)| *user == module && *used == name);
            if !allowed {
                broken.push(format!("{} ({level}) uses {name} ({:?})", source.path, levels.get(&name)));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Names behind `crate::`, one or each of a braced group.
pub(super) fn modules_used(code: &str) -> BTreeSet<String> {
    let word =
        |text: &str| -> String { text.trim_start().chars().take_while(|c| c.is_lowercase() || *c == '_').collect() };
    let mut used = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        let rest = &code[at + found.len()..];
        if !rest.starts_with('{') {
            used.insert(word(rest));
            continue;
        }
        let mut depth = 0;
        for (at, c) in rest.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 1 && matches!(c, '{' | ',') {
                used.insert(word(&rest[at + 1..]));
            }
            if depth == 0 {
                break;
            }
        }
    }
    used.remove("");
    used
}

/// Every place where `pattern` stands in code of files that `is_home` does not name.
pub(super) fn strays(pattern: &str, is_home: impl Fn(&str) -> bool) -> Vec<String> {
    let pattern = Regex::new(pattern).unwrap();
    let mut strays = Vec::new();
    for source in sources().iter().filter(|source| !is_home(&source.path)) {
        strays.extend(pattern.find_iter(&source.code).map(|found| format!("{}: {}", source.path, found.as_str())));
    }
    strays
}

#[test]
fn sql_stands_only_in_the_store() {
    let sql = r"(?s)\b(SELECT\s+[^;]{1,200}?\bFROM|INSERT INTO|UPDATE\s+\w+\s+SET|DELETE FROM|CREATE (TABLE|INDEX)|PRAGMA )";
    let strays = strays(sql, |path| path.starts_with("store/"));
    assert!(strays.is_empty(), "{strays:#?}");
    assert!(Regex::new(sql).unwrap().is_match("\"SELECT id\n FROM job\""));
}

#[test]
fn only_the_store_names_rusqlite() {
    let strays = strays(r"\brusqlite\b", |path| path.starts_with("store/"));
    assert!(strays.is_empty(), "{strays:#?}");
}

#[test]
fn stored_states_are_enums() {
    let words = "pending|delivered|failed|queued|deferred|sent|bounced|scheduled|canceled|received|dropped";
    let compared = format!(r#"status\b[^"]{{0,30}}"({words})""#);
    // Activity on the event bus carries the words as shown.
    let strays = strays(&compared, |path| path.starts_with("store/") || path.starts_with("cli/dev/"));
    assert!(strays.is_empty(), "{strays:#?}");
}

#[test]
fn no_function_returns_a_result_in_a_result() {
    let strays = strays(r"\bResult<(\w+::)*Result<", |_| false);
    assert!(strays.is_empty(), "{strays:#?}");
}

#[test]
fn only_the_clock_reads_the_clock() {
    let strays = strays(r"(SystemTime|Zoned|Timestamp|Utc|Local)::now\(", |path| path == "clock.rs");
    assert!(strays.is_empty(), "{strays:#?}");
}

#[test]
fn sockets_are_opened_only_in_the_files_that_are_named() {
    let homes = [
        "process/host.rs",
        "process/sockets.rs",
        "process/control_socket.rs",
        "net/egress/connector.rs",
        "net/dns/mod.rs",
        "net/dns/dnssec.rs",
        "outbound/client/mod.rs",
    ];
    let opened =
        r"\b(TcpStream::connect|TcpListener::bind|TcpSocket::new|UdpSocket::bind|Unix(Stream|Listener)::\w+)";
    let strays = strays(opened, |path| homes.contains(&path) || path.starts_with("cli/"));
    assert!(strays.is_empty(), "{strays:#?}");
}

#[test]
fn modules_below_the_command_line_keep_no_globals_and_print_nothing() {
    // Compression contexts are costly to make and hold no state between two calls; an index of constants holds none.
    let costly = ["store/messages/mail_data.rs", "mail/mime/charset/labels.rs"];
    let allowed = |path: &str| path.starts_with("cli/") || path == "main.rs" || costly.contains(&path);
    let globals = strays(r"\b(static mut|lazy_static!|OnceLock<|LazyLock<|thread_local!)", allowed);
    assert!(globals.is_empty(), "{globals:#?}");
    let printed = strays(r"\be?print(ln)?!", |path| path.starts_with("cli/") || path == "main.rs");
    assert!(printed.is_empty(), "{printed:#?}");
}

#[test]
fn every_rfc_that_is_cited_stands_in_the_table_of_standards() {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let table = map.split("# Standards").nth(1).unwrap();
    let number = Regex::new(r"RFC (\d{3,5})").unwrap();
    let listed: BTreeSet<&str> = number.captures_iter(table).map(|found| found.get(1).unwrap().as_str()).collect();
    let mut missing: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources() {
        for found in number.captures_iter(&source.text).filter(|found| !listed.contains(&found[1])) {
            missing.entry(format!("RFC {}", &found[1])).or_default().insert(source.path.clone());
        }
    }
    assert!(missing.is_empty(), "cited, but not in lib.rs: {missing:#?}");
}

#[test]
fn the_map_is_short_and_its_standards_stand_in_order() {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let row = Regex::new(r"^//! \| RFC (\d+) \|").unwrap();
    let (standards, others): (Vec<&str>, Vec<&str>) = map.lines().partition(|line| row.is_match(line));
    let numbers: Vec<u32> = standards.iter().map(|line| row.captures(line).unwrap()[1].parse().unwrap()).collect();
    let unsorted: Vec<&[u32]> = numbers.windows(2).filter(|pair| pair[0] >= pair[1]).collect();
    assert!(numbers.len() > 50 && unsorted.is_empty(), "{unsorted:?}");
    assert!(others.len() <= LONGEST_MAP, "src/lib.rs has {} lines beside the table of standards", others.len());
}

#[test]
fn every_section_of_the_contract_that_is_cited_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let contract = fs::read_to_string(root.join("docs/contract.md")).unwrap();
    let heading = Regex::new(r"(?m)^#{2,3} (\d+(?:\.\d+)?) ").unwrap();
    let sections: BTreeSet<&str> =
        heading.captures_iter(&contract).map(|found| found.get(1).unwrap().as_str()).collect();
    assert!(sections.len() > 60, "{sections:?}");
    let citation = Regex::new(r"contract\s+(?:\S+\s+)?(\d+(?:\.\d+)?(?:(?:, | and )\d+\.\d+)*)").unwrap();
    let mut cited = sources();
    let schema = fs::read_to_string(root.join("schema.sql")).unwrap();
    cited.push(Source { path: "schema.sql".to_owned(), text: schema, code: String::new() });
    let mut citations = 0;
    let mut missing = BTreeSet::new();
    for source in cited {
        for found in citation.captures_iter(&source.text) {
            for section in found[1].split(", ").flat_map(|part| part.split(" and ")) {
                citations += 1;
                if !sections.contains(section) {
                    missing.insert(format!("{}: contract {section}", source.path));
                }
            }
        }
    }
    assert!(citations > 100 && missing.is_empty(), "{citations} citations, not in docs/contract.md: {missing:#?}");
}

#[test]
fn every_file_says_in_under_twelve_lines_what_it_is() {
    let mut wrong = Vec::new();
    for source in sources() {
        let head = source.text.lines().take_while(|line| line.starts_with("//!")).count();
        let longest = if source.path == "lib.rs" { usize::MAX } else { 12 };
        if !source.text.starts_with("//! ") || head > longest {
            wrong.push(format!("{}: {head} lines", source.path));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_file_outgrows_its_reader() {
    for source in sources() {
        let lines = before_tests(&source.text).lines().count();
        assert!(lines <= LONGEST_FILE, "{} has {lines} lines", source.path);
        if lines > LONG_FILE {
            eprintln!("{} has {lines} lines and wants a second look", source.path);
        }
    }
}

#[test]
fn schema_sql_is_what_a_fresh_database_has() {
    let dir = tempfile::tempdir().unwrap();
    drop(mailkite::testing::store::Db::open(dir.path()).unwrap());
    let created = Connection::open(dir.path().join(mailkite::testing::store::FILE_NAME)).unwrap();
    let from_file = Connection::open_in_memory().unwrap();
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.sql")).unwrap();
    from_file.execute_batch(&text).unwrap();
    assert_eq!(schema(&created), schema(&from_file));
    assert!(schema(&from_file).len() > 20);
}

fn schema(connection: &Connection) -> BTreeSet<(String, String, String)> {
    let mut statement = connection.prepare("SELECT type, name, coalesce(sql, '') FROM sqlite_schema").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn every_column_of_the_schema_belongs_to_a_strict_table() {
    let dir = tempfile::tempdir().unwrap();
    drop(mailkite::testing::store::Db::open(dir.path()).unwrap());
    let created = Connection::open(dir.path().join(mailkite::testing::store::FILE_NAME)).unwrap();
    let lax: Vec<String> = created
        .prepare(
            "SELECT name FROM pragma_table_list WHERE type = 'table' AND NOT strict AND name NOT LIKE 'sqlite_%'",
        )
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(lax.is_empty(), "{lax:?}");
}

/// Files of ours that a browser gets, and the tests of the dashboard: each path below the project and its text.
fn browser_files() -> BTreeMap<String, String> {
    fn walk(root: &Path, folder: &str, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(root.join(folder)).unwrap().map(Result::unwrap) {
            let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            let foreign =
                ["assets/vendor", "assets/templates", "tests/dashboard/node_modules"].contains(&path.as_str());
            if entry.file_type().unwrap().is_dir() {
                if !foreign {
                    walk(root, &path, found);
                }
            } else if [".js", ".css", ".html"].iter().any(|kind| path.ends_with(kind)) {
                found.insert(path, fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    walk(root, "assets", &mut found);
    walk(root, "tests/dashboard", &mut found);
    assert!(found.len() > 80, "only {} files for browsers?", found.len());
    found
}

#[test]
fn files_for_browsers_keep_to_the_line_width_with_one_element_a_line() {
    // An element that begins right after another one, with no text between them.
    let crowded = Regex::new(r"(?:[^=\s]>|<//>|/>)\s*<(?:[a-z]|\$\{)").unwrap();
    assert!(crowded.is_match("<p><b>x</b></p>") && crowded.is_match("<${Icon} /> <span>"));
    assert!(!crowded.is_match("<p>Type <b>${x}</b></p>") && !crowded.is_match("(a) => <b>"));
    let mut wrong = Vec::new();
    for (path, text) in browser_files() {
        let is_dashboard = path.starts_with("assets/app/");
        let longest = if path.ends_with(".css") { 450 } else { 300 };
        let lines = text.lines().count();
        if is_dashboard && lines > longest {
            wrong.push(format!("{path} is too long: {lines} lines"));
        }
        for (number, line) in (1..).zip(text.lines()) {
            let width = line.chars().count();
            // Each hostile input that tests send is one literal.
            let is_payload = path.starts_with("tests/") && line.trim_start().starts_with(['`', '"']);
            if width > 120 && !is_payload {
                wrong.push(format!("{path}:{number} has {width} columns, more than 120"));
            }
            if is_dashboard && path.ends_with(".js") && crowded.is_match(line) {
                wrong.push(format!("{path}:{number} has two elements"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
