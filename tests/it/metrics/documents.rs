//! `docs/metrics.md`, `packaging/alerts.yml` and `packaging/grafana.json` name exactly what a server shows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use mailkite::testing::clock::Clock;
use regex::Regex;
use serde_json::Value;

use crate::support::metrics::{Figures, TOKEN};
use crate::support::server::Server;

/// Labels that Prometheus adds.
const ADDED: [&str; 3] = ["job", "instance", "le"];

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The figures of a server that has answered a request, so that every family has a series.
async fn shown() -> Figures {
    let server = Server::start_with(Clock::System, |config| config.metrics.token = Some(TOKEN.to_owned())).await;
    server.owner().await.get("/v1/me").await.expect(200);
    let figures = Figures::of(&server).await;
    server.stop().await;
    figures
}

/// The alerts by name, each with its expression.
fn alerts() -> BTreeMap<String, String> {
    let text = read("packaging/alerts.yml");
    let rules = text.split("- alert: ").skip(1).map(|rule| {
        let (name, rest) = rule.split_once('\n').unwrap();
        let expression = rest.split_once("expr: ").unwrap().1.split("\n        for:").next().unwrap();
        (name.to_owned(), expression.split("\n        labels:").next().unwrap().to_owned())
    });
    rules.collect()
}

/// Every query of the dashboard for Grafana.
fn queries(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            let own = fields.iter().filter(|(key, _)| matches!(key.as_str(), "expr" | "definition"));
            let own: Vec<String> = own.filter_map(|(_, text)| text.as_str().map(str::to_owned)).collect();
            own.into_iter().chain(fields.values().flat_map(queries)).collect()
        }
        Value::Array(items) => items.iter().flat_map(queries).collect(),
        _ => Vec::new(),
    }
}

/// The names of series in an expression.
fn names(expression: &str) -> BTreeSet<String> {
    let name = Regex::new(r"\b(?:mailkite|process)_[a-z0-9_]+").unwrap();
    name.find_iter(expression).map(|found| found.as_str().to_owned()).collect()
}

/// Asserts that an expression names series, labels and values that are there.
fn check(expression: &str, figures: &Figures) {
    let samples = figures.samples();
    let named = names(expression);
    assert!(!named.is_empty() || expression.contains("up{"), "no series in {expression}");
    let mut labels: BTreeSet<&str> = ADDED.into_iter().collect();
    for name in &named {
        let found = samples.get(name).unwrap_or_else(|| panic!("{name} of {expression} is not in {}", figures.text));
        labels.extend(found.keys().map(String::as_str));
    }
    let selector = Regex::new(r"([a-z0-9_]+)\{([^}]*)\}").unwrap();
    let matcher = Regex::new(r#"([a-z_]+)(!?=~?)"([^"]*)""#).unwrap();
    for selected in selector.captures_iter(expression) {
        for one in matcher.captures_iter(&selected[2]).filter(|one| !ADDED.contains(&&one[1])) {
            let values = samples.get(&selected[1]).and_then(|known| known.get(&one[1]));
            assert!(values.is_some_and(|values| values.contains(&one[3])), "{} of {expression}", &one[0]);
        }
    }
    for by in Regex::new(r"by \(([^)]*)\)").unwrap().captures_iter(expression) {
        let unknown = by[1].split(',').map(str::trim).find(|label| !labels.contains(label));
        assert_eq!(unknown, None, "of {expression}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_alerts_and_of_the_dashboard_names_a_series_that_is_there() {
    let figures = shown().await;
    let alerts = alerts();
    let dashboard: Value = serde_json::from_str(&read("packaging/grafana.json")).unwrap();
    let panels = queries(&dashboard);
    assert!(alerts.len() > 10 && panels.len() > 40, "{} {}", alerts.len(), panels.len());
    for expression in alerts.values().chain(&panels) {
        check(expression, &figures);
    }
}

#[test]
fn every_panel_has_a_title_a_unit_and_the_source_that_the_reader_chooses() {
    let dashboard: Value = serde_json::from_str(&read("packaging/grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids: Vec<i64> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    ids.dedup();
    assert_eq!(ids.len(), panels.len());
    for panel in panels {
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        if panel["type"] != "row" {
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{panel}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        }
    }
}

#[test]
fn every_alert_says_how_bad_it_is_and_what_to_do() {
    for rule in read("packaging/alerts.yml").split("- alert: ").skip(1) {
        for part in ["severity: ", "summary: ", "description: >-\n"] {
            assert_eq!(rule.matches(part).count(), 1, "{part} of {rule}");
        }
        assert!(rule.contains("severity: page") || rule.contains("severity: ticket"), "{rule}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_lists_exactly_the_series_that_a_server_shows() {
    let figures = shown().await;
    let samples = figures.samples();
    let labels_of = |name: &str, kind: &str| {
        let sample = if kind == "histogram" { format!("{name}_count") } else { name.to_owned() };
        samples[&sample].keys().cloned().collect::<Vec<_>>()
    };
    let is_shown: BTreeMap<String, (String, Vec<String>)> = figures
        .types()
        .into_iter()
        .map(|(name, kind)| (name.clone(), (kind.clone(), labels_of(&name, &kind))))
        .collect();
    let text = read("docs/metrics.md");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let word = |cell: &str| cell.trim_matches('`').to_owned();
    let list = |cell: &str| {
        let mut words: Vec<String> =
            cell.split(", ").filter(|cell| !cell.is_empty() && *cell != "–").map(word).collect();
        words.sort();
        words
    };
    let is_listed: BTreeMap<String, (String, Vec<String>)> =
        rows.iter().map(|row| (word(row[0]), (row[1].to_owned(), list(row[2])))).collect();
    assert_eq!(rows.len(), is_listed.len(), "a series is listed twice");
    assert_eq!(is_listed, is_shown);

    // And with each series the alerts that use it.
    let mut used: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (alert, expression) in alerts() {
        for name in names(&expression) {
            let family = name.strip_suffix("_bucket").unwrap_or(&name);
            used.entry(family.to_owned()).or_default().push(alert.clone());
        }
    }
    let is_said: BTreeMap<String, Vec<String>> =
        rows.iter().map(|row| (word(row[0]), list(row[4]))).filter(|(_, alerts)| !alerts.is_empty()).collect();
    assert_eq!(is_said, used);
}
