//! Logs as text or JSON, and errors shown with their causes in one line.

use std::error::Error;
use std::fmt::{self, Write};
use std::io::IsTerminal;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::MakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::lines::Lines;

/// The form of the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What the logs look like and how much they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Their form.
    pub format: LogFormat,
    /// Directives as `RUST_LOG` has them (`info,windfall_sink=debug`); they come from `WINDFALL_LOG`.
    pub filter: String,
    /// Whether colours are allowed; they are used on a terminal only.
    pub colour: bool,
}

/// Why the logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The directives cannot be read.
    #[error("`{directives}` is not a filter for logs")]
    Filter {
        /// What was given.
        directives: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Their thread cannot be begun.
    #[error("the thread that writes the logs cannot be begun")]
    Thread(#[source] std::io::Error),
    /// Another subscriber is in place.
    #[error("logs are already set up in this process")]
    Installed,
}

/// librdkafka takes its log level from the filter when a client is made, and at debug it drowns everything else.
const QUIET: &str = "librdkafka=warn,rdkafka=warn,hyper=warn,h2=warn,rustls=warn,reqwest=warn";

/// Beginning and part of messages and errors that say nothing to an operator.
const QUIET_TEXTS: [(&str, &str); 3] = [
    ("Global error: PartitionEOF", ""),
    ("librdkafka: Global error: PartitionEOF", ""),
    ("librdkafka: CONFWARN", "property and will be ignored by this"),
];

/// Sends logs to standard error, without ever waiting for its reader; to be called before the first Kafka client is made.
///
/// # Errors
/// When the filter cannot be read, or logs are set up already.
pub fn install(options: &LogOptions) -> Result<(), TelemetryError> {
    let lines = Lines::stderr().map_err(TelemetryError::Thread)?;
    install_to(options, move || lines.clone(), options.colour && std::io::stderr().is_terminal())
}

/// As [`install`], to another writer: a live screen lets lines pass above it.
///
/// # Errors
/// When the filter cannot be read, or logs are set up already.
pub fn install_to<W>(options: &LogOptions, writer: W, colour: bool) -> Result<(), TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let directives = format!("{QUIET},{}", options.filter);
    let filter = EnvFilter::try_new(&directives)
        .map_err(|source| TelemetryError::Filter { directives: options.filter.clone(), source })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colour);
    let lines = match options.format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(NoEvent).with(lines);
    subscriber.try_init().map_err(|_| TelemetryError::Installed)
}

/// Drops what librdkafka's binding logs as an error and is none: the end of a partition, and settings of consumers that
/// producers are given too.
struct NoEvent;

impl<S: Subscriber> Layer<S> for NoEvent {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let mut seen = Seen { quiet: false };
        event.record(&mut seen);
        !seen.quiet
    }
}

struct Seen {
    quiet: bool,
}

impl Visit for Seen {
    fn record_debug(&mut self, _: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        self.quiet |= QUIET_TEXTS.iter().any(|(begin, part)| text.starts_with(begin) && text.contains(part));
    }
}

/// Shows an error with all its sources in one line, `a: b: c`; control characters are escaped.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> Chain<'a> {
    Chain(error)
}

/// What [`chain`] returns.
pub struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        write!(f, "{}", escaped(&said))?;
        let mut next = self.0.source();
        while let Some(error) = next {
            let text = error.to_string();
            // Some libraries print their source into their own text; saying it twice helps nobody.
            if !said.ends_with(&text) {
                write!(f, ": {}", escaped(&text))?;
            }
            said = text;
            next = error.source();
        }
        Ok(())
    }
}

/// Shows `text` with its control characters escaped, so that what others sent cannot forge lines or colours.
pub fn escaped(text: &str) -> impl fmt::Display + '_ {
    struct Escaped<'a>(&'a str);
    impl fmt::Display for Escaped<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for c in self.0.chars() {
                if c.is_control()
                    || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
                {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    f.write_char(c)?;
                }
            }
            Ok(())
        }
    }
    Escaped(text)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not reach the listing")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn an_error_is_shown_with_its_sources_in_one_line() {
        let error = Outer(std::io::Error::other("connection reset\nERROR forged line\u{1b}[31m"));
        let shown = chain(&error).to_string();
        assert_eq!(shown, r"could not reach the listing: connection reset\nERROR forged line\u{1b}[31m");
    }

    #[test]
    fn a_source_that_was_said_already_is_not_said_twice() {
        #[derive(Debug, thiserror::Error)]
        #[error("tls failed: bad certificate")]
        struct Repeats(#[source] std::io::Error);
        let error = Repeats(std::io::Error::other("bad certificate"));
        assert_eq!(chain(&error).to_string(), "tls failed: bad certificate");
    }

    #[test]
    fn the_end_of_a_partition_is_no_error_to_be_told() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let written = lines.clone();
        let writer = move || Writer(written.clone());
        let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(NoEvent).with(layer), || {
            tracing::error!("librdkafka: Global error: PartitionEOF (Broker: No more messages): Fetch from broker 1");
            tracing::warn!(error = %"Global error: PartitionEOF (Broker: No more messages)", "kafka client met an error");
            tracing::error!("librdkafka: Global error: AllBrokersDown (Local: All broker connections are down)");
        });
        let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        assert!(!text.contains("PartitionEOF") && text.contains("AllBrokersDown"), "{text}");
    }

    struct Writer(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Writer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let options = LogOptions { format: LogFormat::Text, filter: "windfall=loud".into(), colour: false };
        let error = install(&options).unwrap_err();
        assert_eq!(error.to_string(), "`windfall=loud` is not a filter for logs");
    }
}
