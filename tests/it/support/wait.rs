//! Waiting for a state that nothing announces.

use std::time::Duration;

use tokio::time::timeout;

use super::server::DEADLINE;

/// Repeats a check until it holds, with a deadline: for a state that no event reports.
pub(crate) async fn until(mut asked: impl AsyncFnMut() -> bool) {
    let reached = async {
        while !asked().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(DEADLINE, reached).await.is_ok(), "still not reached after {DEADLINE:?}");
}
