//! The figures that a server shows at `/metrics`.

use std::collections::{BTreeMap, BTreeSet};

use super::server::Server;

/// The token with which a test reads the metrics.
pub(crate) const TOKEN: &str = "a token of sixteen";
/// Media type of OpenMetrics.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0";

/// The figures at one time, in the Prometheus text format.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub text: String,
}

impl Figures {
    /// Reads the figures of a server that has [`TOKEN`].
    pub(crate) async fn of(server: &Server) -> Self {
        let answer = server.anonymous().with(TOKEN).exchange("GET", "/metrics", &[], None).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Self { text: String::from_utf8(answer.body).unwrap() }
    }

    /// The value of a series with its labels, as `mailkite_jobs{kind="webhook"}`.
    #[track_caller]
    pub(crate) fn get(&self, series: &str) -> f64 {
        let found = self.text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{series} is not in {}", self.text)).parse().unwrap()
    }

    /// Every family with its type.
    pub(crate) fn types(&self) -> BTreeMap<String, String> {
        let types = self.text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
    }

    /// Every name of a sample, with the values of its labels.
    pub(crate) fn samples(&self) -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
        let label = regex::Regex::new(r#"([a-z_]+)="([^"]*)""#).unwrap();
        let mut samples: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for line in self.text.lines().filter(|line| !line.starts_with('#')) {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let labels = samples.entry(series.split('{').next().unwrap().to_owned()).or_default();
            for found in label.captures_iter(series) {
                labels.entry(found[1].to_owned()).or_default().insert(found[2].to_owned());
            }
        }
        samples
    }
}
