//! The demo, whole: a minute of somebody's first impression.

use super::Desk;

#[test]
fn the_demo_shows_changes_and_leaves_a_row_for_each_device() {
    let desk = Desk::new();
    let said = desk.run(&["demo", "--duration", "8s", "--devices", "60", "-o", "json"]).ended(0);
    let lines: Vec<serde_json::Value> = said.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (summary, changes) = lines.split_last().unwrap();
    assert!(changes.len() >= 60, "{} lines", changes.len());
    assert!(changes.iter().all(|change| change["topic"] == "abm.devices" && change["value"]["op"].is_string()));
    let devices: std::collections::BTreeSet<_> = changes.iter().map(|change| change["key"].to_string()).collect();
    assert_eq!(summary["summary"]["rows"], devices.len());
    let rows = rusqlite::Connection::open(desk.path().join("windfall-demo/assets.db")).unwrap();
    // A device that was released during the demo keeps its row, with the date; one that is in the organization has a status.
    let unclear = "in_organization = (released_from_org_date_time is not null) or (in_organization and status is null)";
    let query = format!("select count(*), count(*) filter (where {unclear}) from assets");
    let (all, unclear): (i64, i64) = rows.query_row(&query, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!((usize::try_from(all).unwrap(), unclear), (devices.len(), 0));
}

#[test]
fn the_demo_touches_no_file_that_is_not_its_own() {
    let desk = Desk::new();
    desk.write("mine/assets.db", "precious");
    let said = desk.run(&["demo", "--dir", "mine"]).ended(1);
    assert!(said.err().contains("is there, and not from a demo"), "{}", said.err());
    assert_eq!(std::fs::read_to_string(desk.path().join("mine/assets.db")).unwrap(), "precious");
}
