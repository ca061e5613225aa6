//! The events that `docs/topics.md` shows are made here: one of each kind, by changes at a simulated organization.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use regex::Regex;
use serde_json::{Map, Value as Json, json};
use windfall_simulator::{Command, ReleaseAnswer, Simulator};
use windfall_tests::topics::Entry;
use windfall_tests::workbench::{PATIENCE, Workbench};

use crate::PROGRAM;

const BEGIN: &str = "<!-- begin: events, written by tests/tests/topics_page.rs -->\n";
const END: &str = "<!-- end: events -->";
/// Kinds of changes of a device, in the order of the page.
const KINDS: [&str; 8] =
    ["added", "updated", "status-changed", "assigned", "unassigned", "reassigned", "released", "readded"];
/// Fields of an image that are shown whether or not they have changed.
const ALWAYS: [&str; 2] = ["device_id", "status"];

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/topics.md")
}

/// The page shows what the program publishes, but for times and for ids that differ from run to run.
#[test]
fn the_page_about_topics_shows_an_event_of_each_kind_as_it_is_published() -> anyhow::Result<()> {
    let bench = Workbench::new("page", PROGRAM, Simulator::builder().devices(12).servers(2).seed(7))?;
    live(&bench)?;
    // The prefix is this test's own; without one the name is `windfall`.
    let made = section(&bench)?.replace(bench.topic("").trim_end_matches('.'), "windfall");
    let text = std::fs::read_to_string(page())?;
    let (before, rest) = text.split_once(BEGIN).context("the page has lost the beginning of its events")?;
    let (shown, after) = rest.split_once(END).context("the page has lost the end of its events")?;
    if std::env::var_os("WINDFALL_BLESS").is_some() {
        return Ok(std::fs::write(page(), format!("{before}{BEGIN}{made}{END}{after}"))?);
    }
    let (made, shown) = (steady(&made)?, steady(shown)?);
    ensure!(
        made == shown,
        "`make bless` writes the events of docs/topics.md anew; they are now:\n{made}\nand stand as:\n{shown}"
    );
    Ok(())
}

/// Lets each kind of change happen, with a scan behind each group.
fn live(bench: &Workbench) -> anyhow::Result<()> {
    let fleet = bench.fleet();
    let scan = || run(bench, &["run", "producer", "--once"]);
    scan()?;
    let (truth, named) = (fleet.truth(), |id: &str| id.to_owned());
    let mut with = truth.devices.iter().filter(|device| device.server_id.is_some()).map(|device| named(&device.id));
    let without = truth.devices.iter().find(|device| device.server_id.is_none()).context("all devices are assigned")?;
    let [first, second] = [0, 1].map(|at| truth.servers[at].name.clone());
    let (moved, left, corrected, gone) = (with.next(), with.next(), with.next(), with.next());
    let (moved, left, corrected, gone) =
        (moved.context("too few")?, left.context("too few")?, corrected.context("too few")?, gone.context("too few")?);
    let server = truth.devices.iter().find(|device| device.id == moved).and_then(|device| device.server_id.clone());
    let other = if truth.servers[0].id == server.unwrap_or_default() { second } else { first.clone() };
    for command in [
        Command::Add { device: Some("NEWDEVICE001".to_owned()), server: None },
        Command::Assign { device: named(&without.id), server: first },
        Command::Assign { device: moved, server: other },
        Command::Unassign { device: left },
        Command::Correct { device: corrected.clone(), attribute: "color".to_owned(), value: json!("SILVER") },
        Command::Release { device: gone.clone(), answer: Some(ReleaseAnswer::Gone) },
    ] {
        fleet.command(command)?;
    }
    scan()?;
    fleet.command(Command::Correct {
        device: corrected,
        attribute: "status".to_owned(),
        value: json!("DEVICE_ASSIGNMENT_UNKNOWN"),
    })?;
    fleet.command(Command::Readd { device: gone })?;
    scan()?;
    run(bench, &["run", "transformer", "--once"])
}

fn run(bench: &Workbench, verb: &[&str]) -> anyhow::Result<()> {
    let mut process = bench.start(verb, None)?;
    let ended = process.wait(PATIENCE)?;
    ensure!(ended.success(), "{ended}; {}", process.log_end());
    Ok(())
}

/// Writes what the page shows: a whole record first, then of each kind what matters.
fn section(bench: &Workbench) -> anyhow::Result<String> {
    let entries = bench.read(&["abm.devices"])?;
    let mut kinds: BTreeMap<&str, (&Entry, &Json)> = BTreeMap::new();
    for entry in &entries {
        let value = entry.value.as_ref().context("no device was deleted")?;
        let (kind, op) = (value["kind"].as_str().unwrap_or_default(), value["op"].as_str().unwrap_or_default());
        // Of the devices that were added, the one that came after the first scan.
        if kind != "added" || op == "c" {
            kinds.insert(kind, (entry, value));
        }
    }
    let first = entries.iter().find(|entry| entry.key["device_id"] == "SIM0000001").context("no first device")?;
    let whole = json!({ "headers": first.headers, "key": first.key, "value": first.value });
    let mut text = format!("The whole record of a device that the first scan found:\n\n{}", block(&whole)?);
    for kind in KINDS {
        let (_, value) = kinds.get(kind).with_context(|| format!("no event of kind {kind}"))?;
        text += &format!("\n`{kind}`:\n\n{}", block(&short(value))?);
    }
    let assets = bench.read(&["assets.devices"])?;
    let asset = assets.iter().find(|entry| entry.key["asset_id"] == "SIM0000001").context("no first asset")?;
    text +=
        &format!("\nAnd the flat record of the first device:\n\n{}", block(asset.value.as_ref().context("no value")?)?);
    Ok(text)
}

fn block(value: &Json) -> anyhow::Result<String> {
    Ok(format!("```json\n{}\n```\n", serde_json::to_string_pretty(value)?))
}

/// Leaves out of an event what its kind does not need.
fn short(value: &Json) -> Json {
    let changed: Vec<&str> = value["changed"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    let image = |name: &str| match value[name].as_object() {
        None => Json::Null,
        Some(fields) => {
            let told = |field: &&String| ALWAYS.contains(&field.as_str()) || changed.contains(&field.as_str());
            Json::Object(
                fields.iter().filter(|(field, _)| told(field)).map(|(field, at)| (field.clone(), at.clone())).collect(),
            )
        }
    };
    let names = ["channel", "scan_id", "sequence", "snapshot", "ts_ms"];
    let source: Map<String, Json> =
        names.map(|name| (name.to_owned(), value["source"][name].clone())).into_iter().collect();
    json!({
        "op": value["op"], "kind": value["kind"], "changed": changed, "evidence": value["evidence"],
        "before": image("before"), "after": image("after"), "source": source, "event_id": value["event_id"],
    })
}

/// Takes away what differs from run to run: times, ids that are drawn or hashed from times, the mapping's version, and
/// whether Apple's own time of a device moves with a change.
fn steady(text: &str) -> anyhow::Result<String> {
    let rules = [
        (r"\b[0-9]{13}(000)?\b", "TIME"),
        (r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z", "DATE"),
        (r"\b00-[0-9a-f]{32}-[0-9a-f]{16}-01\b", "TRACE"),
        (r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b", "UUID"),
        (r"\b[0-9a-f]{32}\b", "HASH"),
        (r"@[0-9a-f]{16}\b", "@HASH"),
    ];
    let lines = text.lines().filter(|line| !line.contains("updated_date_time")).map(|line| line.trim_end_matches(','));
    let mut text = lines.collect::<Vec<_>>().join("\n");
    for (pattern, word) in rules {
        text = Regex::new(pattern)?.replace_all(&text, word).into_owned();
    }
    Ok(text)
}
