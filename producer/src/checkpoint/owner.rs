//! Who has taken an organization over: written at every take-over and while there is work, so that both can be seen.

use serde::{Deserialize, Serialize};
use windfall_schemas::scan::{ScanPart, ScanValue};

use super::{DEVICES, Part, Scans, State, value};

/// A sign of life of another instance that is younger than this means that it is at work, in milliseconds.
const AT_WORK_WITHIN: i64 = 60_000;

/// Which of an organization's writers is meant: each has a transactional id of its own, and fences only its like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// The one that serves.
    Serving,
    /// The one of `--once`.
    SingleRun,
}

impl Writer {
    /// Returns the part of `abm.scans` that names who is this writer.
    #[must_use]
    pub fn part(self) -> ScanPart {
        match self {
            Writer::Serving => ScanPart::Owner,
            Writer::SingleRun => ScanPart::SingleRun,
        }
    }
}

/// A process that has taken an organization over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Owner {
    /// Name of the process among its peers.
    pub instance: String,
    /// What tells it from another process of the same name.
    pub process: String,
    /// When it last showed that it is at work, at first by taking over, in epoch milliseconds.
    pub shown_at: i64,
}

impl Owner {
    /// Writes the take-over, or that it goes on, as a record.
    #[must_use]
    pub fn part(&self, org: &str, writer: Writer) -> Part {
        let mut value = value(org, DEVICES, &writer.part(), "");
        value.updated_at = Some(self.shown_at);
        value.detail = serde_json::to_string(self).ok();
        Part::set(value)
    }

    /// Reads the record of a take-over; `None` for one that is none.
    #[must_use]
    pub fn read(value: &ScanValue) -> Option<Self> {
        serde_json::from_str(value.detail.as_deref()?).ok()
    }
}

/// A take-over, or that it goes on, and the offset of its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Where its record stands.
    pub offset: i64,
    /// Who took over.
    pub owner: Owner,
}

/// Returns who has taken over since a process began, when that was not the process itself.
///
/// `claims` are in the order of their offsets, `since` is where the topic ended when the process began, before it fenced
/// anybody. The newest claim counts, since each one fences the one before:
///
/// | newest claim | who owns the source |
/// | --- | --- |
/// | none, or before `since` | nobody since: the predecessor, whom the process was started to follow |
/// | the process's own, also one whose commit was in doubt | the process |
/// | another's, whatever its `instance` | that other one |
#[must_use]
pub fn overtaken_by<'a>(claims: &'a [Claim], since: i64, process: &str) -> Option<&'a Owner> {
    let newest = claims.last().filter(|claim| claim.offset >= since)?;
    (newest.owner.process != process).then_some(&newest.owner)
}

/// Tells which other instance is at work, and how many milliseconds ago it last showed.
///
/// A scan shows by its header, but only from its first page on, and not while it waits for Apple. Then the owner's record
/// is the sign, unless a scan has ended since.
#[must_use]
pub fn at_work(scans: &Scans, instance: &str, now: i64) -> Option<(String, i64)> {
    let running = scans.devices.iter().filter(|header| header.state == State::Running);
    let running = running.map(|header| (&header.instance, header.updated_at));
    let ended_at = scans.devices.as_ref().and_then(|header| header.finished_at).unwrap_or(i64::MIN);
    let owners = scans.owners().filter(|owner| owner.shown_at > ended_at);
    let shown = running.chain(owners.map(|owner| (&owner.instance, owner.shown_at)));
    shown
        .filter(|(other, _)| *other != instance)
        .map(|(other, at)| (other.clone(), now - at))
        .filter(|(_, ago)| lately(*ago))
        // Another machine's clock may be ahead of ours.
        .map(|(other, ago)| (other, ago.max(0)))
        .min_by_key(|(_, ago)| *ago)
}

/// Returns who is at work on the organization in a single run.
#[must_use]
pub fn single_run(scans: &Scans, now: i64) -> Option<&Owner> {
    let ended_at = scans.devices.as_ref().and_then(|header| header.finished_at).unwrap_or(i64::MIN);
    scans.single_run.as_ref().filter(|owner| owner.shown_at > ended_at && lately(now - owner.shown_at))
}

/// Tells whether a sign is of now: what lies further in the future than that is of a clock that was set back.
fn lately(ago: i64) -> bool {
    (-AT_WORK_WITHIN..AT_WORK_WITHIN).contains(&ago)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Header;

    const NOW: i64 = 1_764_000_000_000;

    fn owner(instance: &str, process: &str) -> Owner {
        Owner { instance: instance.into(), process: process.into(), shown_at: NOW }
    }

    fn claims(claims: &[(i64, &str, &str)]) -> Vec<Claim> {
        let claim = |(offset, instance, process): &(i64, &str, &str)| Claim {
            offset: *offset,
            owner: owner(instance, process),
        };
        claims.iter().map(claim).collect()
    }

    #[test]
    fn a_process_is_overtaken_only_by_a_newer_claim_that_is_not_its_own() {
        let overtaken = |told: &[(i64, &str, &str)]| {
            let claims = claims(told);
            overtaken_by(&claims, 100, "p1").map(|owner| owner.process.clone())
        };
        assert_eq!(overtaken(&[]), None);
        assert_eq!(overtaken(&[(99, "b", "p0")]), None, "the predecessor, whom it was started to follow");
        assert_eq!(overtaken(&[(99, "b", "p0"), (100, "a", "p1")]), None);
        assert_eq!(overtaken(&[(100, "a", "p1"), (120, "b", "p2")]), Some("p2".into()));
        assert_eq!(overtaken(&[(100, "b", "p2")]), Some("p2".into()), "its own claim never came through");
        assert_eq!(overtaken(&[(100, "a", "p1"), (120, "a", "p2")]), Some("p2".into()), "of the same name");
        assert_eq!(overtaken(&[(100, "b", "p2"), (120, "a", "p1")]), None, "its own came after, and fenced the other");
    }

    #[test]
    fn a_take_over_is_read_as_it_was_written_and_each_writer_has_its_own() {
        let mut scans = Scans::default();
        scans.apply(&owner("a", "p1").part("acme", Writer::Serving));
        scans.apply(&owner("b", "p2").part("acme", Writer::SingleRun));
        assert_eq!(scans.owners().cloned().collect::<Vec<_>>(), [owner("a", "p1"), owner("b", "p2")]);
        let part = owner("b", "p2").part("acme", Writer::SingleRun);
        assert_eq!(Owner::read(part.value.as_ref().unwrap()), Some(owner("b", "p2")));
        scans.apply(&Header::begin("acme", None, "c", NOW).part("acme", DEVICES));
        assert_eq!(scans.owners().count(), 2, "a header takes nothing over");
    }

    #[test]
    fn another_instance_is_at_work_while_its_scan_moves_or_is_about_to_begin() {
        let mut scans = Scans::default();
        assert_eq!(at_work(&scans, "a", NOW), None);
        scans.apply(&owner("b", "p2").part("acme", Writer::Serving));
        assert_eq!(at_work(&scans, "a", NOW + 59_999), Some(("b".into(), 59_999)), "it reads its servers");
        assert_eq!(at_work(&scans, "b", NOW), None, "a process that comes back goes on");
        assert_eq!(at_work(&scans, "a", NOW + 60_000), None);
        assert_eq!(at_work(&scans, "a", NOW - 5_000), Some(("b".into(), 0)), "its clock is ahead");

        let mut header = Header::begin("acme", None, "b", NOW);
        header.updated_at = NOW + 90_000;
        scans.apply(&header.part("acme", DEVICES));
        assert_eq!(at_work(&scans, "a", NOW + 100_000), Some(("b".into(), 10_000)));
        (header.state, header.finished_at) = (State::Complete, Some(NOW + 1));
        scans.apply(&header.part("acme", DEVICES));
        assert_eq!(at_work(&scans, "a", NOW + 2), None, "its scan has ended");
    }

    #[test]
    fn a_single_run_is_at_work_until_its_scan_has_ended_or_it_shows_no_more() {
        let mut scans = Scans::default();
        scans.apply(&owner("b", "p2").part("acme", Writer::Serving));
        assert_eq!(single_run(&scans, NOW), None, "it serves");
        scans.apply(&owner("a", "p1").part("acme", Writer::SingleRun));
        assert_eq!(single_run(&scans, NOW + 59_999), Some(&owner("a", "p1")));
        assert_eq!(single_run(&scans, NOW + 60_000), None);
        assert_eq!(single_run(&scans, NOW - 3_600_000), None, "its clock was ahead, and it has ended long since");
        assert_eq!(at_work(&scans, "c", NOW - 3_600_000), None);
        let mut header = Header::begin("acme", None, "a", NOW);
        (header.state, header.finished_at) = (State::Complete, Some(NOW + 5));
        scans.apply(&header.part("acme", DEVICES));
        assert_eq!(single_run(&scans, NOW + 6), None);
        let looks_up = Owner { shown_at: NOW + 7, ..owner("a", "p1") };
        scans.apply(&looks_up.part("acme", Writer::SingleRun));
        assert_eq!(single_run(&scans, NOW + 8), Some(&looks_up));
    }
}
