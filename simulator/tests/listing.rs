use std::collections::BTreeSet;

use serde_json::{Value, json};
use windfall_simulator::{Command, FleetError, PagingStyle};

use crate::support::{Bench, ids, quiet};

#[tokio::test]
async fn pages_of_any_size_hold_every_device_once() {
    let bench = Bench::start(quiet()).await;
    let expected: Vec<String> = (1..=50).map(|number| format!("SIM{number:07}")).collect();
    for limit in [1, 7, 49, 50, 51, 1000] {
        let pages = bench.pages(&format!("/v1/orgDevices?limit={limit}")).await;
        assert_eq!(pages.len(), 50_usize.div_ceil(limit), "limit {limit}");
        assert_eq!(pages.iter().flat_map(ids).collect::<Vec<_>>(), expected, "limit {limit}");
        assert!(pages.iter().all(|page| page["meta"]["paging"]["limit"] == limit));
    }
    assert_eq!(bench.found("/v1/orgDevices").await["meta"]["paging"]["limit"], 100);
}

#[tokio::test]
async fn the_last_page_has_neither_next_nor_cursor_and_both_lead_to_the_same_page() {
    let bench = Bench::start(quiet()).await;
    let pages = bench.pages("/v1/orgDevices?limit=25").await;
    assert!(pages[1]["links"].get("next").is_none() && pages[1]["meta"]["paging"].get("nextCursor").is_none());
    let cursor = pages[0]["meta"]["paging"]["nextCursor"].as_str().unwrap();
    let by_cursor = bench.found(&format!("/v1/orgDevices?limit=25&cursor={cursor}")).await;
    assert_eq!(ids(&by_cursor), ids(&pages[1]));
}

#[tokio::test]
async fn bad_parameters_and_cursors_are_refused() {
    let bench = Bench::start(quiet()).await;
    let first = bench.found("/v1/orgDevices?limit=10").await;
    let cursor = first["meta"]["paging"]["nextCursor"].as_str().unwrap();
    for (path, code) in [
        ("/v1/orgDevices?limit=0".to_owned(), "PARAMETER_ERROR.INVALID"),
        ("/v1/orgDevices?limit=1001".to_owned(), "PARAMETER_ERROR.INVALID"),
        ("/v1/orgDevices?cursor=nonsense".to_owned(), "PARAMETER_ERROR.INVALID"),
        (format!("/v1/mdmServers?cursor={cursor}"), "PARAMETER_ERROR.INVALID"),
        ("/v1/orgDevices?include=x".to_owned(), "PARAMETER_ERROR.ILLEGAL"),
    ] {
        let (status, body) = bench.get(&path).await;
        assert_eq!((status, body["errors"][0]["code"].as_str()), (400, Some(code)), "{path}");
        assert_eq!(body["errors"][0]["status"], "400");
    }
}

#[tokio::test]
async fn a_cursor_expires_by_age_and_by_command() {
    let mut bench = Bench::start(quiet().cursor_ttl(std::time::Duration::from_secs(600))).await;
    let next = |page: &Value| page["links"]["next"].as_str().unwrap().to_owned();
    let old = next(&bench.found("/v1/orgDevices?limit=10").await);
    bench.wall.advance(chrono::Duration::seconds(600));
    assert_eq!(bench.get(&old).await.0, 200);
    bench.wall.advance(chrono::Duration::seconds(1));
    assert_eq!(bench.get(&old).await.0, 400);
    let young = next(&bench.found("/v1/orgDevices?limit=10").await);
    bench.handle().command(Command::ExpireCursors).unwrap();
    assert_eq!(bench.get(&young).await.0, 400);
    bench.wall.advance(chrono::Duration::seconds(1));
    bench.renew().await;
    let fresh = next(&bench.found("/v1/orgDevices?limit=10").await);
    assert_eq!(bench.get(&fresh).await.0, 200);
}

#[tokio::test]
async fn sparse_fields_are_kept_along_the_chain() {
    let bench = Bench::start(quiet()).await;
    let first = bench.found("/v1/orgDevices?fields%5BorgDevices%5D=serialNumber,status&limit=40").await;
    let cursor = first["meta"]["paging"]["nextCursor"].as_str().unwrap();
    // A pull that goes on from a stored cursor gets the fields of its first request.
    let second = bench.found(&format!("/v1/orgDevices?cursor={cursor}")).await;
    assert_eq!(ids(&second).len(), 10);
    for item in first["data"].as_array().unwrap().iter().chain(second["data"].as_array().unwrap()) {
        let names: BTreeSet<&str> = item["attributes"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, BTreeSet::from(["serialNumber", "status"]));
        assert!(item.get("relationships").is_none());
    }
}

#[tokio::test]
async fn the_linkage_lists_hold_each_assigned_device_once_and_nothing_else() {
    let bench = Bench::start(quiet()).await;
    let servers = bench.found("/v1/mdmServers?limit=1000").await;
    let mut linked = Vec::new();
    for server in servers["data"].as_array().unwrap() {
        let id = server["id"].as_str().unwrap();
        let path = format!("/v1/mdmServers/{id}/relationships/devices?limit=4");
        let devices = bench.ids(&path).await;
        if let Some(count) = server["attributes"].get("deviceCount") {
            assert_eq!(*count, json!(devices.len()));
        }
        linked.extend(devices);
    }
    linked.sort();
    let listing = bench.found("/v1/orgDevices?limit=1000").await;
    let assigned: Vec<String> = listing["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["attributes"]["status"] == "ASSIGNED")
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect();
    assert!(assigned.len() > 30 && assigned.len() < 50, "{}", assigned.len());
    assert_eq!(linked, assigned);
}

#[tokio::test]
async fn what_leaves_behind_the_cursor_shifts_pages_only_when_they_are_counted() {
    for (style, expected) in [(PagingStyle::Keyset, "SIM0000011"), (PagingStyle::Offset, "SIM0000012")] {
        let bench = Bench::start(quiet().paging(style)).await;
        let first = bench.found("/v1/orgDevices?limit=10").await;
        bench.handle().release("SIM0000003").unwrap();
        let second = bench.found(first["links"]["next"].as_str().unwrap()).await;
        assert_eq!(ids(&second)[0], expected, "{style:?}");
    }
}

#[tokio::test]
async fn a_change_shows_in_every_place_at_once() {
    let bench = Bench::start(quiet()).await;
    let (jamf, intune) = (bench.server("Jamf Cloud").await, bench.server("Intune").await);
    bench.handle().assign("SIM0000001", "Intune").unwrap();
    bench.life.advance(chrono::Duration::seconds(5));
    bench.handle().assign("SIM0000001", "Jamf Cloud").unwrap();
    let link = |id: &str| format!("/v1/mdmServers/{id}/relationships/devices");
    assert!(bench.ids(&link(&jamf)).await.contains(&"SIM0000001".to_owned()));
    assert!(!bench.ids(&link(&intune)).await.contains(&"SIM0000001".to_owned()));
    let assigned = bench.found("/v1/orgDevices/SIM0000001/relationships/assignedServer").await;
    assert_eq!(assigned["data"]["id"], jamf);
    let device = bench.found("/v1/orgDevices/SIM0000001").await;
    assert_eq!(device["data"]["attributes"]["status"], "ASSIGNED");
}

/// Which changes move it is not documented: whoever takes it for a sign of change must be found out.
#[tokio::test]
async fn the_stamp_of_a_device_moves_with_some_changes_and_not_with_others() {
    let bench = Bench::start(quiet()).await;
    bench.life.advance(chrono::Duration::seconds(5));
    for number in 1..=40 {
        let (device, attribute) = (format!("SIM{number:07}"), "color".to_owned());
        bench.handle().command(Command::Correct { device, attribute, value: json!("TURQUOISE") }).unwrap();
    }
    let page = bench.found("/v1/orgDevices?limit=40").await;
    let stamp = |device: &Value| device["attributes"]["updatedDateTime"] == "2026-11-21T09:00:05Z";
    let moved = page["data"].as_array().unwrap().iter().filter(|device| stamp(device)).count();
    assert!((8..=32).contains(&moved), "{moved} of 40");
}

#[tokio::test]
async fn a_serial_number_that_the_fleet_gives_by_itself_cannot_be_asked_for() {
    let bench = Bench::start(quiet()).await;
    let add = Command::Add { device: Some("SIM0000999".into()), server: None };
    let error = bench.handle().command(add).unwrap_err();
    let reserved = FleetError::Reserved("SIM0000999".into());
    assert_eq!(error, reserved);
}

#[tokio::test]
async fn linkage_lags_when_told_to() {
    let bench = Bench::start(quiet().linkage_lag(std::time::Duration::from_secs(15))).await;
    let (jamf, intune) = (bench.server("Jamf Cloud").await, bench.server("Intune").await);
    bench.handle().assign("SIM0000001", "Intune").unwrap();
    bench.life.advance(chrono::Duration::seconds(60));
    bench.handle().assign("SIM0000001", "Jamf Cloud").unwrap();
    let shown = async |id: &str| {
        bench.ids(&format!("/v1/mdmServers/{id}/relationships/devices")).await.contains(&"SIM0000001".to_owned())
    };
    assert_eq!((shown(&jamf).await, shown(&intune).await), (false, true));
    bench.life.advance(chrono::Duration::seconds(15));
    assert_eq!((shown(&jamf).await, shown(&intune).await), (true, false));
    bench.handle().release("SIM0000001").unwrap();
    assert_eq!((shown(&jamf).await, shown(&intune).await), (false, false), "a release does not lag");
}

#[tokio::test]
async fn servers_come_change_and_go() {
    let bench = Bench::start(quiet()).await;
    let handle = bench.handle();
    handle.command(Command::AddServer { name: "Fleet".to_owned() }).unwrap();
    handle.command(Command::Assign { device: "SIM0000001".to_owned(), server: "Fleet".to_owned() }).unwrap();
    handle.command(Command::RenameServer { server: "Fleet".to_owned(), name: "Fleet EU".to_owned() }).unwrap();
    let id = bench.server("Fleet EU").await;
    assert_eq!(bench.found("/v1/orgDevices/SIM0000001/assignedServer").await["data"]["id"], id);
    handle.command(Command::RemoveServer { server: id.clone() }).unwrap();
    assert_eq!(bench.get(&format!("/v1/mdmServers/{id}")).await.0, 404);
    assert_eq!(bench.get(&format!("/v1/mdmServers/{id}/relationships/devices")).await.0, 404);
    assert!(!bench.ids("/v1/mdmServers").await.contains(&id));
    let device = bench.found("/v1/orgDevices/SIM0000001").await;
    assert_eq!(device["data"]["attributes"]["status"], "UNASSIGNED");
}

#[tokio::test]
async fn organizations_see_their_own_devices_only() {
    let bench = Bench::start(quiet().orgs(["acme", "globex"].map(str::to_owned).to_vec()).devices(5)).await;
    let globex = &bench.running.credentials()[1];
    let token = bench.token_of(globex).await;
    let other = Bench { token, ..Bench::start(quiet()).await };
    let url = bench.running.url();
    let theirs = other.ids(&format!("{url}/v1/orgDevices")).await;
    assert_eq!(theirs, ["SIN0000001", "SIN0000002", "SIN0000003", "SIN0000004", "SIN0000005"]);
    assert_eq!(other.get(&format!("{url}/v1/orgDevices/SIM0000001")).await.0, 404);
    assert_eq!(bench.ids("/v1/orgDevices").await[0], "SIM0000001");
}
