//! The words of the source: comments keep to the line width and begin like sentences, retired names stay retired, and
//! documents name files that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

use super::rules::sources;

/// The longest line of a comment, in columns. Rows of tables cannot be broken.
const COMMENT_WIDTH: usize = 120;

/// Files and folders whose comments keep to the width.
const NARROW: &[&str] = &["build.rs", "src/", "tests/it/"];

/// Files and folders whose documentation begins with a verb or a noun, not with a relative clause.
const PLAIN: &[&str] = &["build.rs", "src/", "tests/it/"];

/// Words that name nothing, nor are a part of a name: metaphors, each with the field's word or a plain one.
const METAPHORS: &[(&str, &str)] = &[
    ("ailing", "degraded"),
    ("bell", "wakeup"),
    ("breath", "pause"),
    ("crowd", "contention"),
    ("desk", "engine"),
    ("dismissed", "closed"),
    ("doubtful", "unconfirmed"),
    ("fate", "state"),
    ("hurry", "run_now"),
    ("ladder", "schedule"),
    ("letterhead", "request_meta"),
    ("obey", "execute"),
    ("parcel", "request, or delivery_request"),
    ("rung", "step"),
    ("whereabouts", "location"),
];

/// Whole names that were replaced.
const RETIRED: &[(&str, &str)] = &[
    ("aim", "resolve_target"),
    ("announce", "notify_committed"),
    ("both_sign", "in_overlap"),
    ("bring_forward", "clamp_run_at"),
    ("by_job", "queue"),
    ("caps", "limits"),
    ("common", "fields"),
    ("condense", "archive"),
    ("conventions", "middleware"),
    ("cover", "resize"),
    ("delete_parted", "delete_detached"),
    ("door", "consumer"),
    ("doors", "consumers"),
    ("fitted", "adapt"),
    ("forget_all", "clear"),
    ("forward_marks", "forwarded_messages"),
    ("fresh_id", "new_message_id"),
    ("fresh_mail", "first_attempt_cache"),
    ("give_back", "release, or forward_dsn"),
    ("given_file", "attachment_url"),
    ("in_hand", "buffered"),
    ("intervene", "write_from_cli"),
    ("letter", "content"),
    ("loose", "lenient"),
    ("move_back", "shift_run_at"),
    ("name_for", "display_name"),
    ("not_canceled", "cancel_error"),
    ("note_attempt", "record_attempt"),
    ("note_passing", "note_zero_retention"),
    ("notice_others", "detect_external_writes"),
    ("of_domain", "resolve"),
    ("offers", "supports"),
    ("outgoing", "signed"),
    ("outline", "parsed"),
    ("parse_apart_from_texts", "parse_without_bodies"),
    ("part_from_message", "detach_from_message"),
    ("passed_over", "skipped"),
    ("passing", "zero_retention, or in_transit"),
    ("peers", "remote_hosts, or hosts"),
    ("prepare_fresh", "prepare_cached"),
    ("raw_id", "mail_data_id"),
    ("raws", "mail_data"),
    ("read_gently", "read_background"),
    ("receipt", "accepted, or session"),
    ("releases", "scheduled_sends"),
    ("retime", "reschedule"),
    ("say", "reply"),
    ("staged", "persisted"),
    ("sweep_passing", "sweep_zero_retention"),
    ("take_kept", "take_idle"),
    ("tally", "stats, or counts"),
    ("texts_apart", "streamed_bodies"),
    ("transfer", "data"),
    ("trouble", "failure, or last_error"),
    ("turn_to_read", "acquire_parse_permit"),
    ("want", "claim_request"),
    ("ways", "services"),
    ("whose_turn", "rate_key"),
    ("worse", "prefer_transient"),
    ("write_along", "write_lazy"),
    ("write_behind", "write_nosync"),
];

/// Every line of Rust: the file's path below the project, the line's number, the line.
fn lines() -> Vec<(String, usize, String)> {
    fn walk(root: &Path, folder: &str, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(root.join(folder)).unwrap().map(Result::unwrap) {
            let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                walk(root, &path, found);
            } else if path.ends_with(".rs") {
                found.push((path, fs::read_to_string(entry.path()).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![("build.rs".to_owned(), fs::read_to_string(root.join("build.rs")).unwrap())];
    walk(root, "src", &mut files);
    walk(root, "tests/it", &mut files);
    files.sort();
    let numbered = |(path, text): (String, String)| -> Vec<(String, usize, String)> {
        (1..).zip(text.lines()).map(|(number, line)| (path.clone(), number, line.to_owned())).collect()
    };
    files.into_iter().flat_map(numbered).collect()
}

fn is_in(path: &str, list: &[&str]) -> bool {
    list.iter().any(|start| path.starts_with(start))
}

#[test]
fn comments_keep_to_the_line_width() {
    let row = Regex::new(r"^\s*//[/!] \|").unwrap();
    let mut wide = Vec::new();
    for (path, number, line) in lines().iter().filter(|(path, ..)| is_in(path, NARROW)) {
        let is_comment = line.trim_start().starts_with("//") || line.contains(" // ");
        let columns = line.chars().count();
        if is_comment && columns > COMMENT_WIDTH && !row.is_match(line) {
            wide.push(format!("{path}:{number} has {columns} columns"));
        }
    }
    assert!(wide.is_empty(), "{wide:#?}");
}

#[test]
fn documentation_begins_with_a_verb_or_a_noun() {
    let clause = Regex::new(r"^\s*//[/!] (What|Who|Whether|How|Where|Which)\b").unwrap();
    assert!(clause.is_match("    /// Whether it runs.") && !clause.is_match("/// However it runs."));
    let found: Vec<String> = lines()
        .iter()
        .filter(|(path, _, line)| is_in(path, PLAIN) && clause.is_match(line))
        .map(|(path, number, line)| format!("{path}:{number} {}", line.trim_start()))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

/// An item or binding, a field, a variant.
const DECLARATION: &str = concat!(
    r"(?m)\b(?:fn|struct|enum|mod|trait|type|const|static|let)\s+(?:mut\s+)?([A-Za-z_]\w*)",
    r"|^\s+(?:pub(?:\([a-z]+\))?\s+)?([a-z_]\w*):\s|^\s+([A-Z]\w*)\s*[({,]",
);

/// Names that the code declares, as `snake_case`: items, bindings, fields, variants.
fn names(code: &str) -> BTreeSet<String> {
    static DECLARED: LazyLock<Regex> = LazyLock::new(|| Regex::new(DECLARATION).unwrap());
    static HUMP: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"([a-z0-9])([A-Z])").unwrap());
    let name = |found: regex::Captures<'_>| -> String {
        let name = found.iter().skip(1).flatten().next().unwrap().as_str();
        HUMP.replace_all(name, "${1}_$2").to_lowercase()
    };
    DECLARED.captures_iter(code).map(name).collect()
}

#[test]
fn retired_words_do_not_come_back_as_names() {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources() {
        for name in names(&source.code) {
            let metaphor = METAPHORS.iter().find(|(word, _)| name.split('_').any(|part| part == *word));
            let retired = RETIRED.iter().find(|(word, _)| name == *word);
            if let Some((word, better)) = metaphor.or(retired) {
                found.entry(format!("{word} (better: {better})")).or_default().insert(source.path.clone());
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    let declared = names("fn give_back() {}\nstruct Letterhead {\n    rung: u32,\n}\nenum E {\n    ByJob,\n}\n");
    assert_eq!(declared, ["by_job", "e", "give_back", "letterhead", "rung"].map(str::to_owned).into());
}

#[test]
fn documents_name_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents: Vec<String> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "schema.sql", "src/lib.rs"].map(str::to_owned).into();
    for entry in fs::read_dir(root.join("docs")).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        documents.extend(name.ends_with(".md").then(|| format!("docs/{name}")));
    }
    // Between backticks, in a link, or alone between spaces; with a place holder or a wildcard it names no one file.
    let named = Regex::new(r"[`(\s]((?:src|tests|docs|packaging|assets)/[\w./-]+[\w/])[`),.;:\s]").unwrap();
    let mut checked = 0;
    let mut missing = Vec::new();
    for document in documents {
        let text = fs::read_to_string(root.join(&document)).unwrap();
        for found in named.captures_iter(&text) {
            checked += 1;
            if !root.join(&found[1]).exists() {
                missing.push(format!("{document}: {}", &found[1]));
            }
        }
    }
    assert!(checked > 100 && missing.is_empty(), "{checked} paths, missing: {missing:#?}");
}
