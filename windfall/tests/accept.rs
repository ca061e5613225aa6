//! Topics that are deleted under the stages: who notices, and the command that goes on with them, on a real Kafka.

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::Desk;
use super::pipeline::{config, rows, simulator};

/// Deletes a topic of the desk's installation, and waits until the broker has let it go.
fn delete(desk: &Desk, topic: &str) {
    let text = std::fs::read_to_string(desk.path().join("windfall.yaml")).unwrap();
    let prefix = text.split_once("topic_prefix: \"").unwrap().1.split_once('"').unwrap().0;
    let topic = format!("{prefix}{topic}");
    let settings = ClientConfig::new().set("bootstrap.servers", windfall_services::kafka()).to_owned();
    let admin: AdminClient<DefaultClientContext> = settings.create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let deleted = runtime.block_on(admin.delete_topics(&[&topic], &AdminOptions::new())).unwrap();
    deleted.into_iter().for_each(|result| drop(result.unwrap()));
    let asker: BaseConsumer = settings.create().unwrap();
    let patience = std::time::Duration::from_secs(10);
    let stands = || {
        let metadata = asker.fetch_metadata(None, patience).unwrap();
        metadata.topics().iter().any(|found| found.name() == topic && found.error().is_none())
    };
    while stands() {}
}

/// Runs everything once, which `who` refuses for another log; returns the command that it names.
fn refused(desk: &Desk, who: &str) -> Vec<String> {
    let said = desk.run(&["run", "all", "--once"]).ended(1);
    let errors = said.err();
    let told = errors.lines().find(|line| line.contains("help: ") && line.contains(who));
    let told = told.unwrap_or_else(|| panic!("{errors}"));
    let command = told.split('`').find_map(|part| part.strip_prefix("windfall ")).unwrap();
    command.split(' ').map(str::to_owned).chain(["--yes".to_owned()]).collect()
}

fn accept(desk: &Desk, topic: &str) -> String {
    delete(desk, topic);
    let command = refused(desk, topic);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    assert_eq!(command[..2], ["topics", "accept"]);
    let unasked = desk.run(&command[..3]).ended(2);
    assert!(unasked.err().contains("Nobody can be asked here"), "{}", unasked.err());
    desk.run(&command).ended(0).out()
}

#[test]
fn a_topic_that_was_made_anew_is_accepted_by_the_command_that_the_refusal_names() {
    let desk = Desk::new();
    let (_simulator, source) = simulator(&desk);
    desk.write("windfall.yaml", &config(&source));
    desk.run(&["run", "all", "--once"]).ended(0);
    let fleet = rows(&desk);

    let follows = accept(&desk, "abm.devices");
    assert!(follows.contains("source acme") && follows.contains("windfall-map-devices"), "{follows}");
    desk.run(&["run", "all", "--once"]).ended(0);
    assert_eq!(rows(&desk), fleet);
    let scans = desk.run(&["scans", "list", "-o", "json"]).ended(0).out();
    assert!(scans.contains("\"acme-3\""), "the acceptance takes a number, and the scan after it the next: {scans}");

    let follows = accept(&desk, "abm.scans");
    assert!(follows.contains("source acme") && !follows.contains("windfall-map-devices"), "{follows}");
    desk.run(&["run", "all", "--once"]).ended(0);

    let follows = accept(&desk, "assets.devices");
    assert!(follows.contains("sink assets"), "{follows}");
    desk.run(&["run", "all", "--once"]).ended(0);
    assert_eq!(rows(&desk), fleet);
    let store = rusqlite::Connection::open(desk.path().join("rows/assets.db")).unwrap();
    let generations =
        "select min(__generation), max(__generation), (select max(generation) from windfall_positions) from assets";
    let generations: [i64; 3] =
        store.query_row(generations, [], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?])).unwrap();
    assert_eq!(generations, [2, 2, 2], "every row was written again");

    delete(&desk, "assets.devices.links");
    let remap = refused(&desk, "windfall remap");
    let remap: Vec<&str> = remap.iter().map(String::as_str).collect();
    assert_eq!(remap[..2], ["remap", "devices"]);
    desk.run(&remap).ended(0);
    desk.run(&["run", "all", "--once"]).ended(0);
    desk.run(&["check"]).ended(0);
    assert_eq!(rows(&desk), fleet);
}
