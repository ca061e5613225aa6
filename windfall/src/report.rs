//! Prints an error on standard error (what failed, where, why, what to do) and chooses the exit code.

use std::io::{self, IsTerminal, Write};

use windfall_runtime::config::Fault;
use windfall_runtime::diagnose::{Diagnosed, Diagnosis, Kind};
use windfall_runtime::lines::Lines;
use windfall_runtime::telemetry::{chain, escaped};

use crate::cli::{Global, LogForm};
use crate::exit::Exit;

/// Prints the error on standard error and returns its exit code.
pub(crate) fn report(error: &Diagnosed, global: &Global) -> Exit {
    let diagnosis = error.diagnosis();
    let exit = Exit::from(diagnosis.kind);
    if diagnosis.kind == Kind::Unread {
        return exit;
    }
    let text = match global.log_format {
        LogForm::Text => text(error, &diagnosis, colour(global)),
        LogForm::Json => json(error, &diagnosis, exit),
    };
    // Written through the log writer, so that it follows the log lines. If standard error is closed, the error is dropped.
    let _ = Lines::stderr().and_then(|mut lines| lines.write_all(text.as_bytes()));
    exit
}

/// Returns whether standard error shows colours.
pub(crate) fn colour(global: &Global) -> bool {
    !global.no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && io::stderr().is_terminal()
}

fn text(error: &Diagnosed, diagnosis: &Diagnosis, colour: bool) -> String {
    let head = if colour { "\u{1b}[31merror:\u{1b}[0m" } else { "error:" };
    let mut text = format!("{head} {}\n", chain(error));
    for fault in error.faults() {
        text.push_str(&format!("  {}\n", escaped(&fault.to_string())));
        if let Some(help) = &fault.help {
            text.push_str(&format!("    help: {}\n", escaped(help)));
        }
    }
    if let Some(help) = &diagnosis.help {
        text.push_str(&format!("  help: {}\n", escaped(help)));
    }
    text
}

fn json(error: &Diagnosed, diagnosis: &Diagnosis, exit: Exit) -> String {
    let fault = |fault: &Fault| {
        let Fault { file, place, path, what, help } = fault;
        let (line, column) = (place.map(|place| place.line), place.map(|place| place.column));
        serde_json::json!({ "file": file, "line": line, "column": column, "path": path, "what": what, "help": help })
    };
    let mut line = serde_json::json!({ "level": "ERROR", "error": chain(error).to_string(), "exit": exit as u8 });
    if !error.faults().is_empty() {
        line["faults"] = error.faults().iter().map(fault).collect();
    }
    if let Some(help) = &diagnosis.help {
        line["help"] = help.as_ref().into();
    }
    format!("{line}\n")
}

#[cfg(test)]
mod tests {
    use rdkafka::error::KafkaError;
    use rdkafka::types::RDKafkaErrorCode as Code;
    use windfall_producer::apple::{DirectoryError, TokenError};
    use windfall_producer::error::ProducerError;
    use windfall_runtime::kafka::topics::TopicError;
    use windfall_runtime::registry::RegistryError;
    use windfall_sink::store::{Cause, StoreError};

    use super::*;

    fn exit_of_error(error: impl Into<Diagnosed>) -> Exit {
        error.into().diagnosis().kind.into()
    }

    #[test]
    fn an_error_passes_on_what_its_cause_says() {
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
