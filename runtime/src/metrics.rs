//! Names and labels of all metrics: a contract with dashboards and alerts, so they stand in one place.
//!
//! Labels never grow with the fleet: no serial number, no device id.

use std::time::Duration;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Labels.
pub mod label {
    /// Name of the organization's source.
    pub const SOURCE: &str = "source";
    /// Name of the sink.
    pub const SINK: &str = "sink";
    /// Name of the topic.
    pub const TOPIC: &str = "topic";
    /// Number of the partition.
    pub const PARTITION: &str = "partition";
    /// Kind of the change.
    pub const KIND: &str = "kind";
    /// Kind of request, as a template without ids.
    pub const ENDPOINT: &str = "endpoint";
    /// HTTP status, or `unreachable`.
    pub const STATUS: &str = "status";
    /// Channel or purpose: `scan`, `lookup`, `audit`.
    pub const JOB: &str = "job";
    /// `producer`, `map`, `merge`, `sink`.
    pub const STAGE: &str = "stage";
    /// `ok`, `retry`, `dlq`, `noop`, `stale`, `no_identifier`.
    pub const OUTCOME: &str = "outcome";
    /// Short name of the error.
    pub const CODE: &str = "code";
    /// Name of the part in the status registry: `map devices`.
    pub const PART: &str = "part";
    /// What a part is doing: `starting`, `running`, `standby`, `paused`, `held`, `finished`, `failed`.
    pub const STATE: &str = "state";
    /// Name of the collection.
    pub const COLLECTION: &str = "collection";
    /// Name of a field of a record.
    pub const FIELD: &str = "field";
    /// What ends: `private_key`, `token`.
    pub const WHAT: &str = "what";
    /// Version of the program.
    pub const VERSION: &str = "version";
}

/// What a metric counts or shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Distribution.
    Histogram,
}

/// One metric of the contract.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// Its help text.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $constant:ident = $kind:ident $name:literal;)+) => {
        $($(#[doc = $doc])+ pub const $constant: &str = $name;)+

        /// All metrics.
        pub const ALL: &[Metric] = &[$(Metric { name: $name, kind: MetricKind::$kind, help: concat!($($doc),+).trim_ascii() }),+];
    };
}

metrics! {
    /// Requests to the source by endpoint and status.
    SOURCE_REQUESTS = Counter "windfall_source_requests_total";
    /// Seconds a request to the source took.
    SOURCE_REQUEST_SECONDS = Histogram "windfall_source_request_duration_seconds";
    /// Seconds spent waiting for the source's rate limit.
    RATE_LIMIT_WAIT_SECONDS = Counter "windfall_rate_limit_wait_seconds_total";
    /// Answers of the source that refused a request for its rate (429).
    RATE_LIMIT_THROTTLED = Counter "windfall_rate_limit_throttled_total";
    /// Requests that may be made in the current minute without waiting.
    RATE_LIMIT_TOKENS = Gauge "windfall_rate_limit_tokens";
    /// Share of the request budget that a job used in the last minute.
    RATE_LIMIT_USED_RATIO = Gauge "windfall_rate_limit_budget_used_ratio";
    /// When the job last succeeded, in seconds since 1970.
    SOURCE_LAST_SUCCESS = Gauge "windfall_source_last_success_timestamp_seconds";
    /// Seconds from the event's own time to its publication.
    SOURCE_LAG_SECONDS = Histogram "windfall_source_lag_seconds";
    /// Pages read by scans.
    SCAN_PAGES = Counter "windfall_scan_pages_total";
    /// Devices seen by the running or last scan.
    SCAN_DEVICES = Gauge "windfall_scan_devices";
    /// 1 when the last scan was complete, else 0.
    SCAN_COMPLETE = Gauge "windfall_scan_complete";
    /// Devices held by the breaker and waiting for approval.
    SCAN_HELD = Gauge "windfall_scan_held";
    /// Changes published, by kind.
    CHANGES = Counter "windfall_changes_total";
    /// Devices read that had not changed.
    UNCHANGED = Counter "windfall_unchanged_total";
    /// Items of the source that never became a record.
    REJECTS = Counter "windfall_rejects_total";
    /// Attributes of the source whose value could not be understood, by the field that stayed as last known.
    ATTRIBUTES_UNREAD = Counter "windfall_attributes_unread_total";
    /// Records processed, by stage and outcome.
    RECORDS = Counter "windfall_records_total";
    /// Lines of the log that were dropped, since whoever reads standard error stood still.
    LOG_LINES_DROPPED = Counter "windfall_log_lines_dropped_total";
    /// Errors, by stage and code.
    ERRORS = Counter "windfall_errors_total";
    /// Seconds a transaction took from its first record to its commit.
    TRANSACTION_SECONDS = Histogram "windfall_transaction_duration_seconds";
    /// 1 for the state that a part is in, 0 for those that it was in before.
    PART_STATE = Gauge "windfall_part_state";
    /// Records of its input that a stage has not made durable yet.
    CONSUMER_LAG = Gauge "windfall_consumer_lag_records";
    /// Seconds from a record's publication to its row.
    SINK_LAG_SECONDS = Histogram "windfall_sink_lag_seconds";
    /// Seconds from the observation at the source to the row.
    END_TO_END_SECONDS = Histogram "windfall_end_to_end_seconds";
    /// Open conflicts between contributions to an asset.
    CONFLICTS_OPEN = Gauge "windfall_conflicts_open";
    /// Records put into dead letters.
    DLQ_RECORDS = Counter "windfall_dlq_records_total";
    /// Days until something ends.
    EXPIRY_DAYS = Gauge "windfall_expiry_days";
    /// 1, labelled with the version of the program.
    BUILD_INFO = Gauge "windfall_build_info";
}

/// How often what histograms were given is added up; until then each value takes memory of its own.
const UPKEEP: Duration = Duration::from_secs(5);

/// From a local answer to a slow page of a thousand devices.
const REQUEST_BUCKETS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// From one commit to a broker that is being restarted.
const TRANSACTION_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0];
/// From tens of milliseconds in steady state to a day of backlog.
const LAG_BUCKETS: &[f64] = &[0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21_600.0, 86_400.0];

fn buckets(name: &str) -> &'static [f64] {
    match name {
        SOURCE_REQUEST_SECONDS => REQUEST_BUCKETS,
        TRANSACTION_SECONDS => TRANSACTION_BUCKETS,
        _ => LAG_BUCKETS,
    }
}

/// Installs the process's recorder, describes every metric and returns the handle that `/metrics` renders.
///
/// The recorder is looked after by a task of its own for as long as the process lives, whether or not anybody renders it.
/// To be called on the async runtime.
///
/// # Errors
/// When a recorder is already installed.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = builder()?.install_recorder()?;
    describe();
    gauge!(BUILD_INFO, label::VERSION => env!("CARGO_PKG_VERSION")).set(1.0);
    let recorder = handle.clone();
    look_after(UPKEEP, move || recorder.run_upkeep());
    Ok(handle)
}

/// Has `upkeep` called again and again, for ever.
fn look_after(every: Duration, upkeep: impl Fn() + Send + 'static) {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(every).await;
            upkeep();
        }
    });
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in ALL.iter().filter(|metric| metric.kind == MetricKind::Histogram) {
        builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets(metric.name))?;
    }
    Ok(builder)
}

fn describe() {
    for metric in ALL {
        match metric.kind {
            MetricKind::Counter => describe_counter!(metric.name, metric.help),
            MetricKind::Gauge => describe_gauge!(metric.name, metric.help),
            MetricKind::Histogram => describe_histogram!(metric.name, Unit::Seconds, metric.help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_follow_the_convention() {
        let mut seen = std::collections::BTreeSet::new();
        for metric in ALL {
            assert!(seen.insert(metric.name), "{} stands twice", metric.name);
            assert!(metric.name.starts_with("windfall_"), "{}", metric.name);
            assert_eq!(metric.kind == MetricKind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert!(!metric.help.is_empty(), "{}", metric.name);
        }
    }

    #[tokio::test]
    async fn a_recorder_is_looked_after_for_as_long_as_the_process_lives() {
        let (called, mut calls) = tokio::sync::mpsc::unbounded_channel();
        look_after(Duration::from_millis(1), move || _ = called.send(()));
        for _ in 0..3 {
            calls.recv().await.expect("it goes on for ever");
        }
    }

    #[test]
    fn histograms_are_rendered_with_buckets_and_help() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::histogram!(SOURCE_REQUEST_SECONDS, label::ENDPOINT => "orgDevices").record(0.2);
            metrics::counter!(RATE_LIMIT_THROTTLED, label::SOURCE => "acme").increment(1);
        });
        let text = handle.render();
        assert!(
            text.contains(r#"windfall_source_request_duration_seconds_bucket{endpoint="orgDevices",le="0.25"} 1"#),
            "{text}"
        );
        assert!(text.contains(r#"windfall_rate_limit_throttled_total{source="acme"} 1"#), "{text}");
        assert!(text.contains("# HELP windfall_rate_limit_throttled_total Answers of the source"), "{text}");
    }
}
