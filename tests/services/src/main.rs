//! Starts the real services: around one command, or a broker to stay.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use windfall_services::{
    KAFKA_VARIABLE, Kafka, KafkaOptions, POSTGRES_VARIABLE, Postgres, PostgresOptions, REGISTRY_VARIABLE, Registry,
    ServiceError,
};

const USAGE: &str =
    "usage: windfall-services with COMMAND...   run COMMAND with Kafka, PostgreSQL and a schema registry around it
       windfall-services kafka [PORT]      run a broker that keeps its data in .local/kafka, until Ctrl-C";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["with", command, rest @ ..] => with(command, rest),
        ["kafka"] => stay(9092),
        ["kafka", port] => match port.parse() {
            Ok(port) => stay(port),
            Err(_) => Err(ServiceError::from(format!("`{port}` is not a port"))),
        },
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

fn with(command: &str, arguments: &[&str]) -> Result<ExitCode, ServiceError> {
    let mut command = Command::new(command);
    command.args(arguments);
    let kafka = std::thread::spawn(|| unless_named(KAFKA_VARIABLE, || Kafka::start(&KafkaOptions::default())));
    let registry = std::thread::spawn(|| unless_named(REGISTRY_VARIABLE, Registry::start));
    let postgres = unless_named(POSTGRES_VARIABLE, || Postgres::start(&PostgresOptions::default()))?;
    let kafka = kafka.join().map_err(|_| ServiceError::from("the start of Kafka broke".to_owned()))??;
    let registry = registry.join().map_err(|_| ServiceError::from("the start of the registry broke".to_owned()))??;
    for (variable, address) in [
        (KAFKA_VARIABLE, kafka.as_ref().map(|kafka| kafka.bootstrap().to_owned())),
        (POSTGRES_VARIABLE, postgres.as_ref().map(Postgres::url)),
        (REGISTRY_VARIABLE, registry.as_ref().map(|registry| registry.url().to_owned())),
    ] {
        if let Some(address) = address {
            eprintln!("{variable}={address}");
            command.env(variable, address);
        }
    }
    let status = command.status().map_err(|e| ServiceError::from(format!("cannot run the command: {e}")))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn unless_named<S>(variable: &str, start: impl FnOnce() -> Result<S, ServiceError>) -> Result<Option<S>, ServiceError> {
    if std::env::var(variable).is_ok_and(|named| !named.is_empty()) { Ok(None) } else { start().map(Some) }
}

fn stay(port: u16) -> Result<ExitCode, ServiceError> {
    let folder = PathBuf::from(".local/kafka");
    std::fs::create_dir_all(&folder)
        .map_err(|e| ServiceError::from(format!("cannot make {}: {e}", folder.display())))?;
    let folder =
        folder.canonicalize().map_err(|e| ServiceError::from(format!("cannot find {}: {e}", folder.display())))?;
    let mut kafka =
        Kafka::start(&KafkaOptions { port: Some(port), folder: Some(folder.clone()), ..KafkaOptions::default() })?;
    eprintln!(
        "Apache Kafka listens on {}; its data and log lie in {}; Ctrl-C stops it",
        kafka.bootstrap(),
        folder.display()
    );
    eprintln!("next: windfall run all -c examples/local.yaml");
    kafka.process().wait().map_err(|e| ServiceError::from(format!("lost sight of Kafka: {e}")))?;
    Err(ServiceError::from(format!("Kafka ended by itself; see {}", folder.join("kafka.log").display())))
}
