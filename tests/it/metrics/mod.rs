//! `/metrics`: what is counted, and that the documentation, the alerts and the dashboard for Grafana name what is
//! there.

mod documents;
mod exposition;
mod figures;
