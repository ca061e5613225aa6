//! Whether a device that no list shows any more has left its organization.

use serde::{Deserialize, Serialize};
use windfall_schemas::device::DeviceValue;

/// What a single read of a missing device answered.
#[derive(Debug, Clone, PartialEq)]
pub enum LookUp {
    /// 200: Apple knows the device.
    Found(Box<DeviceValue>),
    /// 404: Apple does not know the device.
    NotFound {
        /// Whether another listed device answered 200 after the 404 and within a minute of it.
        control: bool,
    },
    /// 403: we may not read the device.
    Forbidden {
        /// Whether another listed device answered 200 after the 403 and within a minute of it.
        control: bool,
    },
    /// Any other answer, or none.
    Failed {
        /// What went wrong, for people.
        why: String,
    },
}

/// What a complete scan that misses a device adds to the case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Absence {
    /// Number of the first complete scan that missed the device.
    pub first_scan: u64,
    /// When that scan ended, in epoch milliseconds.
    pub first_ended_at: i64,
    /// Number of the newest complete scan that missed it.
    pub last_scan: u64,
    /// When that scan ended, in epoch milliseconds.
    pub last_ended_at: i64,
}

/// What to make of a missing device.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It has left; the record after it, and why we say so.
    Released {
        /// The record after the release.
        after: Box<DeviceValue>,
        /// What the verdict rests on.
        evidence: Vec<String>,
    },
    /// It is there: the listing missed it.
    Present {
        /// The answer.
        found: Box<DeviceValue>,
    },
    /// Nothing is proved; it stays suspected.
    Open {
        /// Why, for people.
        why: String,
    },
}

/// How far two complete scans must lie apart to stand for a read that is forbidden, in milliseconds.
pub const FORBIDDEN_NEEDS: i64 = 24 * 60 * 60 * 1000;

/// Judges a missing device by the answer of its look-up, made at `at` (epoch milliseconds).
///
/// | answer | control read | verdict | record after |
/// | --- | --- | --- | --- |
/// | 200 with a release date | - | released | the answer, without a service |
/// | 200 without one | - | present | - |
/// | 404 | 200 | released | as [`left`], at the time of the look-up |
/// | 403, absent from two complete scans a day apart | 200 | released | as [`left`], at the end of the second scan |
/// | 403 otherwise | 200 | open | - |
/// | 404 or 403 | any other | open | - |
/// | anything else | - | open | - |
///
/// A failed read is no answer. A 404 or a 403 that every device gets says nothing of one device: the first may be an outage
/// at Apple, the second an account that may not read single devices.
#[must_use]
pub fn classify(last: &DeviceValue, absence: &Absence, answer: LookUp, at: i64) -> Verdict {
    match answer {
        LookUp::Found(mut found) => {
            if !counts(found.released_from_org_date_time, found.added_to_org_date_time) {
                return Verdict::Present { found };
            }
            found.mdm_server_id = None;
            found.mdm_server_name = None;
            let date = found.released_from_org_date_time.unwrap_or(at);
            let evidence =
                vec![absent(absence.last_scan), format!("lookup {}: 200, released {}", text(at), text(date))];
            Verdict::Released { after: found, evidence }
        }
        LookUp::NotFound { control: true } => Verdict::Released {
            after: Box::new(left(last.clone(), at)),
            evidence: vec![absent(absence.last_scan), format!("lookup {}: 404, control read 200", text(at))],
        },
        LookUp::Forbidden { control: true } if absence.last_ended_at - absence.first_ended_at >= FORBIDDEN_NEEDS => {
            Verdict::Released {
                after: Box::new(left(last.clone(), absence.last_ended_at)),
                evidence: vec![
                    absent(absence.first_scan),
                    absent(absence.last_scan),
                    format!("lookup {}: 403, control read 200", text(at)),
                ],
            }
        }
        LookUp::Forbidden { control: true } => Verdict::Open {
            why: "the look-up is forbidden, and no two complete scans a day apart missed it".to_owned(),
        },
        LookUp::NotFound { control: false } | LookUp::Forbidden { control: false } => Verdict::Open {
            why: "the look-up was refused, and no control read answered 200 in the same minute".to_owned(),
        },
        LookUp::Failed { why } => Verdict::Open { why },
    }
}

/// Returns the record after a release at `at` that Apple did not show: without status and service, which nobody knows now.
pub fn left(last: DeviceValue, at: i64) -> DeviceValue {
    DeviceValue {
        status: None,
        mdm_server_id: None,
        mdm_server_name: None,
        released_from_org_date_time: Some(at),
        ..last
    }
}

/// Tells whether a release date is one: one before the device was added belongs to an earlier stay.
pub fn counts(released_at: Option<i64>, added_at: Option<i64>) -> bool {
    match (released_at, added_at) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(released), Some(added)) => released >= added,
    }
}

fn absent(scan: u64) -> String {
    format!("scan {scan}: absent")
}

/// Writes epoch milliseconds as people write them.
pub(crate) fn text(at: i64) -> String {
    chrono::DateTime::from_timestamp_millis(at)
        .map_or_else(|| at.to_string(), |at| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}
