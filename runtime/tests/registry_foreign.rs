//! The embedded registry driven by a client that is not ours: Confluent's for Python.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use windfall_runtime::kafka::Outgoing;
use windfall_runtime::kafka::publisher::{Publisher, Transaction};
use windfall_runtime::kafka::table::{self, FoldRequest};
use windfall_runtime::reader::Decoder;
use windfall_runtime::registry::RegistryClient;
use windfall_runtime::registry::embedded::EmbeddedRegistry;
use windfall_runtime::registry::server::{self, Served};

use crate::kafka_support::*;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    a: String,
}

const ROW: &str =
    r#"{"type":"record","name":"Row","namespace":"foreign","doc":"a row","fields":[{"name":"a","type":"string"}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn confluents_python_client_registers_reads_and_is_refused_as_by_confluents_registry() {
    let connection = connection();
    let topic = topic(&connection, "rows", 1).await;
    let registry = EmbeddedRegistry::open(&connection).await.unwrap();
    let Served::Here { address, task } = server::serve(&registry, "127.0.0.1:0").await.unwrap() else {
        panic!("a free port is served by us")
    };
    let client = RegistryClient::embedded(registry, true);
    let codec = client.codec(&format!("{topic}-value"), ROW).await.unwrap();
    let mut publisher = Publisher::start(&connection, &connection.prefixed("p")).await.unwrap();
    let ours = codec.encode(&Row { a: "from rust".to_owned() }).unwrap();
    let derived = vec![Outgoing::new(topic.as_str(), "rust", ours)];
    publisher.commit(Transaction { derived, ..Transaction::default() }).await.unwrap();

    let arguments = [format!("http://{address}"), windfall_services::kafka().to_owned(), topic.clone()];
    let seen = tokio::task::spawn_blocking(move || foreign(&arguments)).await.unwrap();
    let frame = format!("00{:08x}", codec.id());
    let expected = json!({
        "looked_up": frame,
        "unknown": 40403,
        "compatible": true,
        "incompatible": false,
        "refused": 409,
        "versions": [1, 2],
        "latest": [2, true, true],
        "subject_known": true,
        "level": 40408,
        "level_after": "FULL",
        "global_level": "BACKWARD",
        "rows": [{"a": "from rust"}, {"a": "from python"}],
    });
    assert_eq!(seen, expected);

    let decoder = Decoder::new(client, format!("{topic}-value"));
    let request = FoldRequest::whole(topic.as_str(), [0]);
    let read = table::fold(&connection, request, Vec::new(), move |rows: &mut Vec<Row>, record| {
        decoder.learn_blocking(&record)?;
        rows.extend(decoder.value::<Row>(&record).unwrap());
        Ok(())
    });
    let texts: Vec<String> = read.await.unwrap().state.into_iter().map(|row| row.a).collect();
    assert_eq!(texts, ["from rust", "from python"]);
    task.abort();
}

/// Runs the program in its own environment.
fn foreign(arguments: &[String]) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let output = Command::new(python(&folder)).arg(folder.join("foreign.py")).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "foreign client failed:\n{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Makes the environment once and keeps it under `target/`; it is made anew when what it needs has changed.
fn python(folder: &Path) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let (python, done) = (target.join("bin/python"), target.join("requirements.txt"));
    let wanted = std::fs::read(folder.join("requirements.txt")).unwrap();
    if std::fs::read(&done).ok().as_deref() != Some(wanted.as_slice()) {
        let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&target).output();
        succeeded("python3 -m venv (Debian: python3-venv)", &made.expect("python3 is installed"));
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
        let installed = Command::new(&python).args(install).arg(folder.join("requirements.txt")).output();
        succeeded("pip install", &installed.unwrap());
        std::fs::write(&done, wanted).unwrap();
    }
    python
}

fn succeeded(what: &str, output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what} failed:\n{said}");
}
