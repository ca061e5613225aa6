//! A start while something that is needed is away for a moment.

use std::io;
use std::net::{TcpListener, TcpStream};

use super::Desk;
use super::pipeline::{config, simulator};
use super::shutdown::Talking;

/// Passes connections on to `there`, on a port that was refused until now.
fn forward(listener: TcpListener, there: String) {
    std::thread::spawn(move || {
        for near in listener.incoming().map(Result::unwrap) {
            let Ok(far) = TcpStream::connect(&there) else { continue };
            for (mut from, mut to) in
                [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far.try_clone().unwrap(), near)]
            {
                std::thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
}

#[test]
fn a_process_whose_registry_is_away_at_its_start_waits_for_it_and_then_works() {
    let desk = Desk::new();
    let (_simulator, source) = simulator(&desk);
    let registry = windfall_services::registry();
    let (there, path) = registry.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let port = windfall_services::free_port();
    let away = format!("schema_registry: {{ url: \"http://127.0.0.1:{port}/{path}\" }}");
    desk.write("windfall.yaml", &config(&source).replace("schema_registry: { embedded: {} }", &away));
    let mut running = Talking::start(&desk, &["run", "all"]);
    running.says("cannot begin yet, trying again");
    let said = desk.run(&["status", "-o", "json"]).ended(0).out();
    let status: serde_json::Value = serde_json::from_str(&said).unwrap();
    for part in ["producer acme", "map devices", "merge devices", "sink assets"] {
        assert_eq!(status["parts"][part]["state"], "paused", "{status:#}");
    }
    assert_eq!(status["ready"], false);

    forward(TcpListener::bind(("127.0.0.1", port)).unwrap(), there.to_owned());
    running.says("works again");
    running.says("scan finished");
    running.signal("TERM");
    let (code, said) = running.end();
    assert_eq!(code, 0, "{said}");
}
