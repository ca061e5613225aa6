//! How an error reaches the operator: what, where, why, and what to do; and the exit code that goes with it.

use std::io::{self, IsTerminal, Write};

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use windfall_producer::apple::client::ConnectError;
use windfall_producer::apple::{DirectoryError, TokenError};
use windfall_producer::error::ProducerError;
use windfall_producer::scans::ScansError;
use windfall_runtime::config::{ConfigError, Fault};
use windfall_runtime::http::ListenError;
use windfall_runtime::kafka::sender::SendError;
use windfall_runtime::kafka::table::TableError;
use windfall_runtime::kafka::topics::TopicError;
use windfall_runtime::registry::RegistryError;
use windfall_runtime::telemetry::{chain, escaped};
use windfall_simulator::sim::SimError;
use windfall_sink::SinkError;
use windfall_sink::store::{Cause, StoreError};
use windfall_transformer::TransformerError;

use crate::cli::{Global, LogForm};
use crate::exit::{Exit, Failure};

/// Says on standard error what went wrong and returns how the process is to end.
pub(crate) fn report(error: &anyhow::Error, global: &Global) -> Exit {
    if reader_went_away(error) {
        return Exit::Success;
    }
    let text = match global.log_format {
        LogForm::Text => text(error, colour(global)),
        LogForm::Json => json(error),
    };
    // Nobody is left to be told when standard error is closed as well.
    let _ = io::stderr().write_all(text.as_bytes());
    exit(error)
}

/// Whether colours may be used on standard error.
pub(crate) fn colour(global: &Global) -> bool {
    !global.no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && io::stderr().is_terminal()
}

fn reader_went_away(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe))
}

fn text(error: &anyhow::Error, colour: bool) -> String {
    let head = if colour { "\u{1b}[31merror:\u{1b}[0m" } else { "error:" };
    let mut text = format!("{head} {}\n", chain(error.as_ref()));
    for fault in faults(error) {
        text.push_str(&fault_text(error, fault));
    }
    for fault in details(error) {
        text.push_str(&format!("  {}\n", escaped(fault)));
    }
    if let Some(help) = help(error) {
        text.push_str(&format!("  help: {}\n", escaped(&help)));
    }
    text
}

fn fault_text(error: &anyhow::Error, fault: &Fault) -> String {
    let file = match error.downcast_ref::<ConfigError>() {
        Some(ConfigError::Faulty { file, .. }) => file.display().to_string(),
        _ => String::new(),
    };
    let place = fault.place.map_or_else(|| file.clone(), |place| format!("{file}:{place}"));
    let path =
        fault.path.as_deref().filter(|path| !path.is_empty()).map(|path| format!(" `{path}`")).unwrap_or_default();
    let mut text = format!("  {place}{}: {}\n", escaped(&path), escaped(&fault.what));
    if let Some(help) = &fault.help {
        text.push_str(&format!("    help: {}\n", escaped(help)));
    }
    text
}

fn json(error: &anyhow::Error) -> String {
    let mut faults: Vec<_> = faults(error)
        .iter()
        .map(|fault| {
            let (line, column) = fault.place.map_or((None, None), |place| (Some(place.line), Some(place.column)));
            serde_json::json!({ "line": line, "column": column, "path": fault.path, "what": fault.what, "help": fault.help })
        })
        .collect();
    faults.extend(details(error).iter().map(|what| serde_json::json!({ "what": what })));
    let mut line =
        serde_json::json!({ "level": "ERROR", "error": chain(error.as_ref()).to_string(), "exit": exit(error) as u8 });
    if !faults.is_empty() {
        line["faults"] = faults.into();
    }
    if let Some(help) = help(error) {
        line["help"] = help.into();
    }
    format!("{line}\n")
}

fn faults(error: &anyhow::Error) -> &[Fault] {
    error.downcast_ref::<ConfigError>().map(ConfigError::faults).unwrap_or_default()
}

fn details(error: &anyhow::Error) -> &[String] {
    error.downcast_ref::<Failure>().map(|failure| failure.faults.as_slice()).unwrap_or_default()
}

/// Finds the remedy that the innermost error with one knows.
pub(crate) fn help(error: &anyhow::Error) -> Option<String> {
    error.chain().filter_map(help_of).last()
}

fn help_of(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    macro_rules! remedies {
        ($($kind:ty => $remedy:expr),+ $(,)?) => {
            $(if let Some(error) = found::<$kind>(cause) {
                let remedy: fn(&$kind) -> Option<String> = $remedy;
                return remedy(error);
            })+
        };
    }
    remedies! {
        Failure => |error| error.help.clone(),
        ConfigError => |error| error.help(),
        ListenError => |error| Some(error.help().to_owned()),
        TopicError => |error| error.help().map(str::to_owned),
        TableError => |error| error.help().map(str::to_owned),
        SendError => |error| error.help().map(str::to_owned),
        RegistryError => |error| error.help().map(str::to_owned),
        ProducerError => |error| error.help(),
        DirectoryError => |error| Some(error.help().to_owned()),
        ConnectError => |error| Some(error.help().to_owned()),
        ScansError => |error| error.help().map(str::to_owned),
        TransformerError => |error| error.help().map(str::to_owned),
        SinkError => |error| Some(error.help()),
        SimError => |error| Some(error.help().to_owned()),
    }
    None
}

/// Returns the exit code of the first error that has one of its own.
pub(crate) fn exit(error: &anyhow::Error) -> Exit {
    error.chain().find_map(exit_of).unwrap_or(Exit::Failure)
}

/// Finds an error that may stand in a box, which is all that a walk along the sources shows of it then.
fn found<'a, E: std::error::Error + 'static>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a E> {
    cause.downcast_ref::<E>().or_else(|| cause.downcast_ref::<Box<E>>().map(|boxed| &**boxed))
}

fn exit_of(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(error) = found::<Failure>(cause) {
        return Some(error.exit);
    }
    if found::<ConfigError>(cause).is_some() {
        return Some(Exit::Config);
    }
    if let Some(error) = found::<DirectoryError>(cause) {
        return Some(exit_of_apple(error));
    }
    if let Some(RegistryError::Unauthorized { status, .. }) = found(cause) {
        return Some(if *status == 403 { Exit::Permission } else { Exit::Authentication });
    }
    if let Some(StoreError::Environment { cause, .. }) = found(cause) {
        return exit_of_store(*cause);
    }
    if let Some(TopicError::Create { code: Some(code), .. }) = found(cause) {
        return exit_of_kafka(*code);
    }
    if let Some(SimError::Faults(_) | SimError::TimeScale { .. }) = found(cause) {
        return Some(Exit::Usage);
    }
    found::<KafkaError>(cause).and_then(KafkaError::rdkafka_error_code).and_then(exit_of_kafka)
}

fn exit_of_store(cause: Cause) -> Option<Exit> {
    match cause {
        Cause::Login => Some(Exit::Authentication),
        Cause::Rights => Some(Exit::Permission),
        _ => None,
    }
}

fn exit_of_kafka(code: Code) -> Option<Exit> {
    match code {
        Code::Authentication | Code::SaslAuthenticationFailed => Some(Exit::Authentication),
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => Some(Exit::Permission),
        _ => None,
    }
}

fn exit_of_apple(error: &DirectoryError) -> Exit {
    match error {
        DirectoryError::Token(TokenError::Refused { status: 429, .. } | TokenError::TooMany { .. })
        | DirectoryError::RateLimited { .. } => Exit::RateLimited,
        DirectoryError::Token(TokenError::Refused { .. } | TokenError::Held { .. } | TokenError::Signing(_))
        | DirectoryError::Unauthorized(_) => Exit::Authentication,
        DirectoryError::Forbidden(_) => Exit::Permission,
        _ => Exit::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit_of_error(error: impl std::error::Error + Send + Sync + 'static) -> Exit {
        exit(&anyhow::Error::new(error).context("doing it"))
    }

    #[test]
    fn an_error_in_a_box_is_seen() {
        let held = DirectoryError::Token(TokenError::Held { wait: std::time::Duration::ZERO, refusals: 3 });
        let error = ProducerError::Directory { source_name: "acme".to_owned(), source: Box::new(held) };
        assert_eq!(exit_of_error(error), Exit::Authentication);
    }

    #[test]
    fn whoever_does_not_know_us_or_lets_us_do_nothing_is_told_by_the_exit_code() {
        let registry = |status| RegistryError::Unauthorized { url: String::new(), status, what: String::new() };
        assert_eq!(exit_of_error(registry(401)), Exit::Authentication);
        assert_eq!(exit_of_error(registry(403)), Exit::Permission);
        let kafka =
            |code| TopicError::Ask { servers: String::new(), reason: None, source: KafkaError::MetadataFetch(code) };
        assert_eq!(exit_of_error(kafka(Code::Authentication)), Exit::Authentication);
        assert_eq!(exit_of_error(kafka(Code::ClusterAuthorizationFailed)), Exit::Permission);
        assert_eq!(exit_of_error(kafka(Code::BrokerTransportFailure)), Exit::Failure);
        let create = |code| TopicError::Create { topic: String::new(), reason: String::new(), code };
        assert_eq!(exit_of_error(create(Some(Code::TopicAuthorizationFailed))), Exit::Permission);
        assert_eq!(exit_of_error(create(None)), Exit::Failure);
        let store = |cause| StoreError::Environment { cause, source: "x".into() };
        assert_eq!(exit_of_error(store(Cause::Login)), Exit::Authentication);
        assert_eq!(exit_of_error(store(Cause::Rights)), Exit::Permission);
        assert_eq!(exit_of_error(store(Cause::DiskFull)), Exit::Failure);
    }
}
