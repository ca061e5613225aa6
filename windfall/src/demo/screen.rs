//! The demo's output: one line for each change and, on a terminal, a status line below them.

use std::io;
use std::time::Duration;

use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use windfall_runtime::health::Snapshot;
use windfall_runtime::telemetry::escaped;

use super::tally::Tally;
use crate::change::Change;
use crate::cli::{Form, Global};
use crate::output::Output;

/// Width of all columns but `WHAT CHANGED`.
const FIXED: usize = 7 + 12 + 13 + 10;

/// The demo's screen.
pub(super) struct Screen {
    output: Output,
    form: Form,
    bar: ProgressBar,
    /// Width of `WHAT CHANGED`; `None` when lines are not cut.
    room: Option<usize>,
    colour: bool,
    /// When the newest device of the first scan was seen; `None` once the line of the first scan was written.
    first_seen_at: Option<DateTime<Utc>>,
}

impl Screen {
    /// Opens the screen and writes the title and the heads of the columns.
    pub(super) fn open(global: &Global, title: &str) -> io::Result<Self> {
        let stdout = console::Term::stdout();
        let live = stdout.is_term() && console::Term::stderr().is_term() && global.output == Form::Table;
        let bar = if live && !global.quiet { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.set_style(
            ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        let mut screen = Self {
            output: Output::new(global.output),
            form: global.output,
            bar,
            room: live.then(|| usize::from(stdout.size().1).saturating_sub(FIXED).max(20)),
            colour: live && crate::report::colour(global),
            first_seen_at: None,
        };
        if screen.form == Form::Table {
            screen.line(&format!(
                "windfall demo   {title}; SEEN is when Windfall saw the change, in the time of that day"
            ))?;
            screen.line(&screen.columns("SEEN", "KIND", "DEVICE", "WHAT CHANGED", "SEEN BY"))?;
        }
        Ok(screen)
    }

    /// Shows a change; all devices of the first scan share one line.
    pub(super) fn change(&mut self, change: &Change, record: &Value, tally: &Tally) -> io::Result<()> {
        if self.form != Form::Table {
            return self.output.record(record);
        }
        if change.op == "r" {
            self.first_seen_at = Some(change.seen_at);
            return Ok(());
        }
        self.first_scan(tally)?;
        let Change { seen_at, kind, subject, what, seen_by, .. } = change;
        let line = self.columns(&clock(*seen_at), kind, subject, what, seen_by);
        let line = if self.colour { coloured(kind, &line) } else { line };
        self.line(&line)
    }

    /// Writes the line of the first scan, if it was not written yet.
    pub(super) fn first_scan(&mut self, tally: &Tally) -> io::Result<()> {
        let Some(at) = self.first_seen_at.take() else { return Ok(()) };
        let what = format!("{} devices, as they are at the start", tally.first());
        let line = self.columns(&clock(at), "first scan", "", &what, "scan 1");
        self.line(&line)
    }

    fn columns(&self, time: &str, kind: &str, device: &str, what: &str, seen_by: &str) -> String {
        let (what, width) = match self.room {
            Some(room) => (cut(what, room), room),
            None => (what.to_owned(), 52),
        };
        let line = format!("{time:<5}  {kind:<10}  {device:<11}  {what:<width$}  {seen_by}");
        escaped(line.trim_end()).to_string()
    }

    /// Updates the status line; does nothing away from a terminal.
    pub(super) fn standing(&self, now: DateTime<Utc>, tally: &Tally, snapshot: &Snapshot) {
        self.bar.set_message(format!("{}  {}  {}", clock(now), tally.words(), producer_words(snapshot)));
        self.bar.tick();
    }

    /// Writes a line above the status line.
    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        let Self { output, bar, .. } = self;
        bar.suspend(|| output.line(line).and_then(|()| output.flush()))
    }

    /// Removes the status line and returns the output.
    pub(super) fn close(self) -> Output {
        self.bar.finish_and_clear();
        self.output
    }
}

/// How often the status line is updated.
pub(super) const REFRESH: Duration = Duration::from_millis(100);

fn producer_words(snapshot: &Snapshot) -> String {
    let details = snapshot.parts.iter().find(|(name, _)| name.starts_with("producer ")).map(|(_, part)| &part.details);
    let detail = |name: &str| details.and_then(|details| details.get(name)).and_then(Value::as_str);
    let scan = detail("last_scan").and_then(|id| id.rsplit('-').next()).map(|number| format!("scan {number}"));
    // In compressed time a minute is over quickly; a count of zero is left out.
    let requests = detail("requests_this_period").filter(|used| !used.starts_with("0 "));
    let requests = requests.map(|used| format!("{used} requests this minute"));
    scan.into_iter().chain(requests).collect::<Vec<_>>().join(" · ")
}

fn clock(at: DateTime<Utc>) -> String {
    at.format("%H:%M").to_string()
}

fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room - 1).chain(['…']).collect()
}

fn coloured(kind: &str, line: &str) -> String {
    let colour = match kind {
        "added" | "readded" => 32,
        "released" => 31,
        "assigned" | "reassigned" | "unassigned" => 33,
        _ => return line.to_owned(),
    };
    format!("\u{1b}[{colour}m{line}\u{1b}[0m")
}
