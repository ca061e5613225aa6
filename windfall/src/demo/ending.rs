//! The demo's last lines: the counts, the files, and what to do next.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use windfall_simulator::journal::{self, Record};

use super::screen::Screen;
use super::tally::Tally;
use super::world::{TABLE, World};
use crate::cli::Form;

/// How long the last changes may take to reach their rows.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the last lines report.
pub(super) struct Ending<'a> {
    pub(super) world: &'a World,
    pub(super) tally: &'a Tally,
    pub(super) rows: u64,
    pub(super) interrupted: bool,
}

/// Waits until there are as many rows as devices, and returns the number of rows.
pub(super) async fn rows_arrived(file: &Path, devices: usize) -> u64 {
    let begun = tokio::time::Instant::now();
    loop {
        let rows = count(file).unwrap_or(0);
        if rows >= devices as u64 || begun.elapsed() > PATIENCE {
            return rows;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn count(file: &Path) -> rusqlite::Result<u64> {
    let rows = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let count: i64 = rows.query_row(&format!("select count(*) from {TABLE}"), [], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Returns the number of answered requests, and how many of them were answered 429.
fn requests(journal: &Path) -> (usize, usize) {
    let lines = journal::read(journal).unwrap_or_default();
    let statuses: Vec<_> = lines
        .into_iter()
        .filter_map(|line| match line.record {
            Record::Response(response) if response.route != "token" => Some(response.status),
            _ => None,
        })
        .collect();
    (statuses.len(), statuses.iter().filter(|status| **status == Some(429)).count())
}

/// Writes the last lines.
pub(super) fn tell(screen: Screen, form: Form, ending: &Ending<'_>) -> crate::Result<()> {
    let Ending { world, tally, rows, interrupted } = ending;
    let (requests, limited) = requests(&world.paths.journal);
    let mut output = screen.close();
    if form != Form::Table {
        let summary = json!({
            "seen": tally.json(), "rows": rows, "requests": requests, "throttled": limited, "interrupted": interrupted,
            "files": { "rows": world.paths.rows, "journal": world.paths.journal, "log": world.paths.log },
        });
        output.record(&json!({ "summary": summary }))?;
        return Ok(());
    }
    let file = world.paths.rows.display();
    let survived = if limited > 0 { format!(" · {limited} × 429 survived") } else { String::new() };
    output.line(&format!("────── {} · {requests} requests{survived}", tally.words()))?;
    let query = "select serial_number, device_model, mdm_server_name, in_organization from assets";
    output.line(&format!("rows   {file} ({rows})      sqlite3 {file} \"{query}\""))?;
    output.line(&format!(
        "story  {}      what was true and what was served, one JSON object a line",
        world.paths.journal.display()
    ))?;
    output.line("next   make kafka      the same on a real Kafka;  docs/first-organization.md for your own fleet")?;
    output.flush()?;
    Ok(())
}
