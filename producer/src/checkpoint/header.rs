//! The header of a scan: where it stands, what it counted, and what keeps it from being complete.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windfall_schemas::scan::{ScanPart, ScanValue};

use super::{ScanRecord, detail, value};
use crate::event::ScanPage;

/// Share of rejected items, in hundredths, above which absence proves nothing.
const TOLERATED_REJECTS_PERCENT: u64 = 1;

/// Most reasons that a header keeps of each scope; the others are counted, so that the record keeps its size.
const MOST_REASONS: usize = 100;
/// Most bytes of a reason.
const LONGEST_REASON: usize = 300;
/// Most bytes of the ids that a header keeps of devices which contradict themselves: a linkage list that fails as a whole
/// would fill it, and single reads could not settle so many anyway.
const MOST_DISAGREEING: usize = 16 * 1024;

/// Where a scan stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScanState {
    /// Pages are still to be read.
    #[default]
    Running,
    /// Every list was read to its end.
    Complete,
    /// Something was left out; the reasons say what.
    Incomplete,
    /// Complete, and its suspects wait for a person.
    Held,
}

impl ScanState {
    /// Returns the word that stands in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Held => "held",
        }
    }

    fn parse(text: &str) -> Self {
        let known = [Self::Running, Self::Complete, Self::Held].into_iter().find(|state| state.as_str() == text);
        known.unwrap_or(Self::Incomplete)
    }
}

/// What a reason touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The device pages: absence proves nothing.
    Devices,
    /// The servers and their linkage lists: nothing is unassigned, absence still counts.
    Servers,
}

/// Why a scan is not complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What it touches.
    pub scope: Scope,
    /// The page on which it was found, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// The reason, for people.
    pub why: String,
}

/// Known records that a list lacks, too many to be believed at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Hash of their ids: another set is another matter.
    pub hash: String,
    /// When a list first lacked exactly these, in epoch milliseconds.
    pub since: i64,
}

/// The newest scan of a table. What has no field of its own in the record stands in its `detail` as JSON, fields may be added.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Header {
    /// Id of the scan.
    #[serde(skip)]
    pub scan_id: String,
    /// Number of the scan in the organization's life.
    #[serde(skip)]
    pub number: u64,
    /// Where it stands.
    #[serde(skip)]
    pub state: ScanState,
    /// Where the next page begins; `None` before the first and after the last.
    #[serde(skip)]
    pub cursor: Option<String>,
    /// Pages done.
    #[serde(skip)]
    pub page: u32,
    /// When it began.
    #[serde(skip)]
    pub started_at: i64,
    /// When it last moved.
    #[serde(skip)]
    pub updated_at: i64,
    /// When it ended.
    #[serde(skip)]
    pub finished_at: Option<i64>,
    /// Requests made so far.
    #[serde(skip)]
    pub requests: u64,
    /// Devices seen so far, rejected ones included.
    #[serde(skip)]
    pub devices: u64,
    /// Kind to number of events.
    #[serde(skip)]
    pub counts: BTreeMap<String, u64>,
    /// Instance that runs it.
    pub instance: String,
    /// Whether a scan of this table ever read its last page.
    pub read_to_end: bool,
    /// Scans begun anew in a row because their cursor had expired.
    pub restarts: u32,
    /// Items rejected so far.
    pub rejects: u64,
    /// Devices of which `abm.devices` held a record before the transaction that wrote this header: a topic that holds fewer is not
    /// the one that was written.
    pub known: u64,
    /// How often each field was not read, since its attribute had a value that could not be understood; those of the
    /// management services begin with `servers.`.
    pub unread: BTreeMap<String, u64>,
    /// Devices listed as released so far that the breaker holds: they were listed, and count as not seen.
    pub withheld: u64,
    /// Why it is not complete.
    pub reasons: Vec<Reason>,
    /// How many more reasons there were than it keeps.
    pub more_reasons: u64,
    /// Whether no scan of this table had read its last page when it began.
    pub first_scan: bool,
    /// Devices whose status and linkage contradicted each other in this scan.
    pub disagreeing: Vec<String>,
    /// Devices whose status and linkage contradicted each other in the scan before.
    pub disagreed_before: Vec<String>,
    /// Smallest and largest total that Apple gave.
    pub totals: Vec<u64>,
    /// What the list lacks and is not believed to be gone; of the management services alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
}

impl Header {
    /// Begins the scan that follows `last`.
    pub fn begin(org: &str, last: Option<&Header>, instance: &str, at: i64) -> Self {
        let number = last.map_or(0, |last| last.number) + 1;
        let read_to_end = last.is_some_and(|last| last.read_to_end);
        Self {
            scan_id: format!("{org}-{number}"),
            number,
            started_at: at,
            updated_at: at,
            instance: instance.to_owned(),
            read_to_end,
            known: last.map_or(0, |last| last.known),
            first_scan: !read_to_end,
            disagreed_before: last.map(|last| last.disagreeing.clone()).unwrap_or_default(),
            missing: last.and_then(|last| last.missing.clone()),
            ..Self::default()
        }
    }

    /// Tells whether a scan may go on where it stopped: a page of it is done, and the last one is younger than `within`.
    pub fn resumable(&self, at: i64, within: i64) -> bool {
        self.state == ScanState::Running && self.page > 0 && at - self.updated_at <= within
    }

    /// Tells whether the last page is done and only the end of the scan is missing.
    pub fn pages_done(&self) -> bool {
        self.state == ScanState::Running && self.page > 0 && self.cursor.is_none()
    }

    /// Returns the scan and the page for the events that are seen there.
    pub fn at(&self, page: Option<u32>) -> ScanPage {
        ScanPage { scan_id: self.scan_id.clone(), started_at: self.started_at, page }
    }

    /// Notes a reason once for each page.
    pub fn note(&mut self, scope: Scope, page: Option<u32>, why: impl Into<String>) {
        let reason = Reason { scope, page, why: cut(why.into()) };
        if self.reasons.contains(&reason) {
            return;
        }
        if self.reasons.iter().filter(|known| known.scope == scope).count() < MOST_REASONS {
            self.reasons.push(reason);
        } else {
            self.more_reasons += 1;
        }
    }

    /// Notes a device whose status and linkage contradict each other, while there is room.
    pub fn disagree(&mut self, device_id: &str) {
        if self.disagreeing.iter().map(String::len).sum::<usize>() + device_id.len() <= MOST_DISAGREEING {
            self.disagreeing.push(device_id.to_owned());
        }
    }

    /// Counts an event.
    pub fn count(&mut self, kind: &str) {
        *self.counts.entry(kind.to_owned()).or_default() += 1;
    }

    /// Notes the total that a page gave.
    pub fn note_total(&mut self, total: u64) {
        let smallest = self.totals.first().copied().unwrap_or(total).min(total);
        let largest = self.totals.last().copied().unwrap_or(total).max(total);
        self.totals = vec![smallest, largest];
    }

    /// Judges the scan after its last page, `distinct` being the ids seen on all pages.
    pub fn judge(&mut self, distinct: u64) {
        if self.rejects * 100 > distinct.max(self.devices) * TOLERATED_REJECTS_PERCENT {
            let why = format!("{} of {} items were rejected, more than 1 %", self.rejects, self.devices);
            self.note(Scope::Devices, None, why);
        }
        if let [smallest, largest] = self.totals[..]
            && (distinct < smallest || distinct > largest)
        {
            let why = format!("the list gave a total of {largest}, and {distinct} devices were read");
            self.note(Scope::Devices, None, why);
        }
    }

    /// Tells whether absence from this scan counts.
    pub fn absence_counts(&self) -> bool {
        !self.reasons.iter().any(|reason| reason.scope == Scope::Devices)
    }

    /// Writes the header as the record that goes last into its transaction.
    #[must_use]
    pub fn part(&self, org: &str, table: &str) -> ScanRecord {
        let mut value = value(org, table, &ScanPart::Header, &self.scan_id);
        value.scan_number = i64::try_from(self.number).ok();
        value.state = Some(self.state.as_str().to_owned());
        value.cursor.clone_from(&self.cursor);
        value.page = i32::try_from(self.page).ok();
        value.started_at = Some(self.started_at);
        value.updated_at = Some(self.updated_at);
        value.finished_at = self.finished_at;
        value.requests = i64::try_from(self.requests).ok();
        value.devices = i64::try_from(self.devices).ok();
        value.counts = serde_json::to_string(&self.counts).ok();
        value.detail = serde_json::to_string(self).ok();
        ScanRecord::set(value)
    }

    pub(super) fn read(value: &ScanValue) -> Self {
        let detail = detail(value).unwrap_or_default();
        Self {
            scan_id: value.scan_id.clone(),
            number: unsigned(value.scan_number),
            state: ScanState::parse(value.state.as_deref().unwrap_or_default()),
            cursor: value.cursor.clone(),
            page: value.page.and_then(|page| u32::try_from(page).ok()).unwrap_or(0),
            started_at: value.started_at.unwrap_or(0),
            updated_at: value.updated_at.unwrap_or(0),
            finished_at: value.finished_at,
            requests: unsigned(value.requests),
            devices: unsigned(value.devices),
            counts: value.counts.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default(),
            ..detail
        }
    }
}

/// Cuts a text for people, so that its record keeps its size.
pub(super) fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(LONGEST_REASON));
    text
}

fn unsigned(number: Option<i64>) -> u64 {
    number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
}
