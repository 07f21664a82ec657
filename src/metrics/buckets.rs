//! Buckets of the histograms, in seconds. Each begins where a good machine is and ends where somebody must act; a step
//! is a factor of 2 or 2.5. Every bucket is a series per label, so there are few.

/// From the end of the data until the reply: an fsync, or a queue for it.
pub(super) const ACCEPT: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// An fsync: a cache with a battery, an SSD, a hard disk, a disk in trouble.
pub(crate) const FSYNC: &[f64] =
    &[0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// A webhook attempt, which ends after 15 seconds.
pub(super) const WEBHOOK: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0];
/// From acceptance to the end of the first attempt: that, and the queue before it.
pub(super) const MAIL_TO_WEBHOOK: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];
/// A delivery elsewhere: RFC 5321 §4.5.3.2 allows minutes for a reply.
pub(super) const REMOTE_DELIVERY: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// An HTTP request until the response begins.
pub(crate) const HTTP: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
