//! Ending a process whose surroundings are silent: its stages let go of what they wait for, and one that does not is named
//! and left behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use windfall_services::{Direction, Kafka, KafkaOptions, Proxy};

use super::Desk;
use super::pipeline::{Running, config, simulator};

/// Accepts connections, reads nothing and never answers.
struct Silent {
    port: u16,
    accepted: mpsc::Receiver<TcpStream>,
}

impl Silent {
    fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (send, accepted) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map(Result::unwrap) {
                if send.send(stream).is_err() {
                    return;
                }
            }
        });
        Self { port, accepted }
    }

    /// Waits until somebody has connected, who now waits for an answer.
    fn asked(&self) -> TcpStream {
        self.accepted.recv().unwrap()
    }
}

/// A command that talks into a pipe.
pub(super) struct Talking {
    process: Running,
    said: BufReader<ChildStderr>,
}

impl Talking {
    pub(super) fn start(desk: &Desk, arguments: &[&str]) -> Self {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin!("windfall"))
            .args(arguments)
            .current_dir(desk.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        Self { process: Running(child), said }
    }

    pub(super) fn signal(&self, name: &str) {
        let id = self.process.0.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits until it has said `text`.
    pub(super) fn says(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "it ended without saying `{text}`");
        }
    }

    /// Waits for its end; returns the exit code and what it still had to say.
    pub(super) fn end(mut self) -> (i32, String) {
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        (self.process.0.wait().unwrap().code().unwrap(), rest)
    }
}

const REGISTRY: &str = "schema_registry: { embedded: {} }";

#[test]
fn a_registry_that_never_answers_keeps_no_process() {
    let (desk, registry) = (Desk::new(), Silent::listen());
    let (_simulator, source) = simulator(&desk);
    let silent = format!("schema_registry: {{ url: \"http://127.0.0.1:{}\" }}", registry.port);
    desk.write("windfall.yaml", &config(&source).replace(REGISTRY, &silent));
    let running = Talking::start(&desk, &["run", "producer"]);
    let _waiting = registry.asked();
    stops_well(running);
}

/// Waits until a running process says that it is ready, or that it is not.
fn until_ready(desk: &Desk, ready: bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while (desk.run(&["status", "--ready"]).code() == 0) != ready {
        assert!(Instant::now() < deadline, "ready is not {ready}: {}", desk.run(&["status"]).out());
    }
}

#[test]
fn a_process_whose_log_nobody_reads_works_and_stops() {
    let desk = Desk::new();
    let (_simulator, source) = simulator(&desk);
    desk.write("windfall.yaml", &config(&source));
    let (_nobody_reads, mut full) = std::io::pipe().unwrap();
    // What a pipe holds on Linux: whoever writes to it now stands still.
    full.write_all(&[b'\n'; 65_536]).unwrap();
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("windfall"));
    let command = command.args(["run", "all"]).current_dir(desk.path()).stdout(Stdio::null()).stderr(full);
    let mut running = Running(command.spawn().unwrap());
    until_ready(&desk, true);
    let id = running.0.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_process_whose_brokers_fall_silent_is_not_ready_until_they_answer_again() {
    let kafka = Kafka::start(&KafkaOptions { proxied: true, ..KafkaOptions::default() }).unwrap();
    let proxy = Proxy::start(kafka.proxy_port(), kafka.proxied_port()).unwrap();
    let desk = Desk::new();
    let (_simulator, source) = simulator(&desk);
    let address = format!("127.0.0.1:{}", proxy.port());
    desk.write("windfall.yaml", &config(&source).replace(windfall_services::kafka(), &address));
    let mut running = Talking::start(&desk, &["run", "producer"]);
    running.says("scan finished");
    // Nobody waits for the rest of what it says: its log is not read from here on.
    until_ready(&desk, true);
    proxy.deaf(Some(Direction::Down));
    let deadline = Instant::now() + Duration::from_secs(120);
    let status = loop {
        let said = desk.run(&["status", "-o", "json"]).ended(0).out();
        let status: serde_json::Value = serde_json::from_str(&said).unwrap();
        if status["parts"]["kafka"]["ready"] == false {
            break status;
        }
        assert!(Instant::now() < deadline, "the brokers' silence is not noticed: {status:#}");
    };
    let kafka = &status["parts"]["kafka"];
    let (limit, silent) = (kafka["limit_s"].as_u64().unwrap(), kafka["silent_s"].as_u64().unwrap());
    assert!(limit <= 30 && silent >= limit, "{status:#}");
    assert!(kafka["details"]["reason"].as_str().unwrap().contains("no broker answers"), "{status:#}");
    proxy.deaf(None);
    proxy.cut();
    until_ready(&desk, true);
    running.signal("TERM");
    let _ = running.end();
}

/// Asks a process to stop, and expects that all its stages do.
fn stops_well(running: Talking) {
    running.signal("TERM");
    let (code, said) = running.end();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("stopped exit=0") && !said.contains("not stopped in time"), "{said}");
}

#[test]
fn an_apple_that_never_answers_keeps_no_process() {
    let (desk, apple) = (Desk::new(), Silent::listen());
    let (_simulator, source) = simulator(&desk);
    let (before, after) = source.split_once("token_url: \"").unwrap();
    let (_, after) = after.split_once('"').unwrap();
    let source = format!("{before}token_url: \"http://127.0.0.1:{}\"{after}", apple.port);
    desk.write("windfall.yaml", &config(&source));
    let running = Talking::start(&desk, &["run", "producer"]);
    let _waiting = apple.asked();
    stops_well(running);
}

#[test]
fn a_store_that_never_answers_keeps_no_process() {
    let (desk, store) = (Desk::new(), Silent::listen());
    let sink = format!("type: postgres, url: \"postgresql://windfall@127.0.0.1:{}/fleet\"", store.port);
    desk.write("windfall.yaml", &config("").replace("type: sqlite, path: rows/assets.db", &sink));
    let running = Talking::start(&desk, &["run", "sink"]);
    let _waiting = store.asked();
    stops_well(running);
}

#[test]
fn a_broker_that_never_answered_keeps_no_process() {
    let (desk, broker) = (Desk::new(), Silent::listen());
    let address = format!("127.0.0.1:{}", broker.port);
    desk.write("windfall.yaml", &config("").replace(windfall_services::kafka(), &address));
    let running = Talking::start(&desk, &["run", "all"]);
    let _waiting = broker.asked();
    stops_well(running);
}

#[test]
fn a_run_for_cron_that_is_stopped_was_interrupted() {
    let (desk, broker) = (Desk::new(), Silent::listen());
    let address = format!("127.0.0.1:{}", broker.port);
    desk.write("windfall.yaml", &config("").replace(windfall_services::kafka(), &address));
    let running = Talking::start(&desk, &["run", "all", "--once"]);
    let _waiting = broker.asked();
    running.signal("INT");
    let (code, said) = running.end();
    assert_eq!(code, 130, "{said}");
}

#[test]
fn brokers_that_fall_silent_keep_no_process() {
    let kafka = Kafka::start(&KafkaOptions { proxied: true, ..KafkaOptions::default() }).unwrap();
    let proxy = Proxy::start(kafka.proxy_port(), kafka.proxied_port()).unwrap();
    let desk = Desk::new();
    let (_simulator, source) = simulator(&desk);
    let address = format!("127.0.0.1:{}", proxy.port());
    desk.write("windfall.yaml", &config(&source).replace(windfall_services::kafka(), &address));
    let mut running = Talking::start(&desk, &["run", "all"]);
    running.says("scan finished");
    proxy.deaf(Some(Direction::Down));
    stops_well(running);
}
