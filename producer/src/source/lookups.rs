//! Look-ups of missing devices, one after another, each settled in a transaction of its own.

use tracing::{debug, info, warn};
use windfall_runtime::diagnose::Diagnose;
use windfall_runtime::failpoint;
use windfall_runtime::telemetry::chain;
use windfall_schemas::identifiers::DeviceId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Interruption;
use super::asking::LOOK_UP_TRIES;
use super::session::{Session, millis};
use crate::apple::{Answer, DirectoryError, Lookup};
use crate::fields::Fields as _;
use crate::memory::Memory;
use crate::release::LookUp;
use crate::step;

/// A control read vouches for look-ups of this long, in milliseconds.
const CONTROL_HOLDS: i64 = 60_000;
/// Time that the requests themselves may take until then, in milliseconds.
const CONTROL_MARGIN: i64 = 10_000;
/// Devices that are asked for a control read: one of them alone may be odd.
const CONTROLS: usize = 3;
/// Look-ups that are made although a scan is due: a scan that takes longer than its interval must not starve them.
const FEWEST_LOOK_UPS: usize = 20;

impl Session<'_> {
    /// Looks up every suspect whose time has come, `most` of them, until `enough` says that the next scan is due; what is
    /// left stays due.
    ///
    /// A 404 or 403 counts only with a control read *after* it; one such read settles those of the minute before it.
    pub(super) async fn look_up_due(
        &mut self,
        most: usize,
        enough: impl Fn(&Self) -> bool,
    ) -> Result<(), Interruption> {
        let now = self.now();
        let suspects = self.memory.scans.suspects.iter();
        let due = suspects.filter(|(_, suspect)| suspect.wait(now).is_zero()).map(|(id, _)| id.clone());
        let due: Vec<String> = due.take(most).collect();
        let mut refused: Vec<Refused> = Vec::new();
        for (device_id, done) in due.into_iter().zip(0usize..) {
            if done >= FEWEST_LOOK_UPS && enough(self) {
                break;
            }
            if self.memory.scans.suspects.contains_key(&device_id) {
                refused.extend(self.look_up(device_id).await?);
            }
            if refused.first().is_some_and(|first| self.control_is_due(&first.answer)) {
                self.settle_refused(&mut refused).await?;
            }
        }
        self.settle_refused(&mut refused).await
    }

    /// Tells whether another look-up would bring the control reads too late for the first of those refused.
    fn control_is_due(&self, first: &Answer) -> bool {
        let requests = i64::try_from(CONTROLS).unwrap_or(i64::MAX) + 1;
        let more = requests * millis(self.directory.pace().period) + CONTROL_MARGIN;
        self.now() - first.received_at.timestamp_millis() + more >= CONTROL_HOLDS
    }

    /// Settles the devices that were answered with 404 or 403, by a control read after them.
    async fn settle_refused(&mut self, refused: &mut Vec<Refused>) -> Result<(), Interruption> {
        if refused.is_empty() {
            return Ok(());
        }
        let control = self.control().await?;
        for Refused { device_id, forbidden, answer } in std::mem::take(refused) {
            let control = control.as_ref().is_some_and(|control| vouches(control, &answer));
            let said = if forbidden { LookUp::Forbidden { control } } else { LookUp::NotFound { control } };
            self.settle(&device_id, said, &answer).await?;
        }
        Ok(())
    }

    /// Looks a device up and settles what was said; a 404 or 403 is handed back, since it waits for its control read.
    async fn look_up(&mut self, device_id: String) -> Result<Option<Refused>, Interruption> {
        failpoint!("producer.look_up.before");
        let read = match DeviceId::parse(&device_id) {
            Ok(id) => self.read_device(&id).await,
            Err(error) => {
                let why = chain(&error).to_string();
                return self.settle_failed(&device_id, why).await;
            }
        };
        failpoint!("producer.look_up.after");
        match read {
            Ok(Lookup::Found { mut device, unread, answer }) => {
                if let Some(known) = self.memory.fleet.get(&device_id) {
                    device.keep(&known.value, |field, _| unread.contains(&field));
                }
                let said = match unread.contains(&"released_from_org_date_time") {
                    true => LookUp::Failed { why: "the release date could not be understood".to_owned() },
                    false => LookUp::Found(device),
                };
                self.settle(&device_id, said, &answer).await.map(|()| None)
            }
            Ok(Lookup::NotFound { answer }) => Ok(Some(Refused { device_id, forbidden: false, answer })),
            Ok(Lookup::Forbidden { answer, .. }) => Ok(Some(Refused { device_id, forbidden: true, answer })),
            Err(Interruption::Directory(error)) => {
                let why = chain(&error).to_string();
                self.settle_failed(&device_id, why).await
            }
            Err(other) => Err(other),
        }
    }

    /// Settles a look-up that got no answer.
    async fn settle_failed(&mut self, device_id: &str, why: String) -> Result<Option<Refused>, Interruption> {
        let (number, received_at) = (self.newest_request, self.source.clock.now());
        let none = Answer { number, path: String::new(), request_id: None, received_at };
        self.settle(device_id, LookUp::Failed { why }, &none).await.map(|()| None)
    }

    async fn settle(&mut self, device_id: &str, said: LookUp, answer: &Answer) -> Result<(), Interruption> {
        debug!(source = self.source.org(), device_id, ?said, "missing device looked up");
        let mut step = step::settle(&self.source.origin, &self.memory, device_id, said, answer, self.now());
        failpoint!("producer.look_up_commit.before");
        if let Err(unwritable) = self.commit_writable(&step).await? {
            step::reject_of_step(&self.source.origin, &mut step, &unwritable, self.now());
            self.commit(&step).await?;
        }
        failpoint!("producer.look_up_commit.after");
        for event in &step.devices {
            let kind = event.kind.as_ref().map_or("", |kind| kind.as_str());
            info!(source = self.source.org(), kind, evidence = ?event.evidence, "missing device settled");
        }
        Ok(())
    }

    /// Reads devices that the newest complete scan has seen, until one of them answers: a 404 or 403 counts only while Apple
    /// answers for others.
    async fn control(&mut self) -> Result<Option<Answer>, Interruption> {
        let mut forbidden = None;
        let scan = self.memory.scans.devices.as_ref().map_or(0, |scan| scan.number);
        for id in controls(&self.memory, &self.controls.last, (scan << 32) + self.newest_request) {
            let Ok(device_id) = DeviceId::parse(&id) else { continue };
            self.controls.last = id;
            match self.read_device(&device_id).await {
                Ok(Lookup::Found { answer, .. }) => {
                    self.controls.forbidden = false;
                    self.source.part.clear("single_reads");
                    return Ok(Some(answer));
                }
                Ok(Lookup::Forbidden { refusal, .. }) => forbidden = Some(DirectoryError::Forbidden(refusal)),
                Ok(Lookup::NotFound { .. }) | Err(Interruption::Directory(_)) => {}
                Err(other) => return Err(other),
            }
        }
        if let Some(error) = forbidden {
            self.source.part.detail("single_reads", error.told());
            if !std::mem::replace(&mut self.controls.forbidden, true) {
                let (error, help) = (chain(&error), error.help());
                warn!(source = self.source.org(), %error, help = help.as_deref(), "single reads are not allowed, so none confirms a release");
            }
        }
        Ok(None)
    }

    async fn read_device(&mut self, id: &DeviceId) -> Result<Lookup, Interruption> {
        let directory = self.directory;
        let read = self.ask(LOOK_UP_TRIES, || directory.device(id)).await?;
        let (Lookup::Found { answer, .. } | Lookup::NotFound { answer } | Lookup::Forbidden { answer, .. }) = &read;
        self.newest_request = answer.number;
        Ok(read)
    }
}

/// A device that Apple answered with 404 or 403.
struct Refused {
    device_id: String,
    forbidden: bool,
    answer: Answer,
}

/// The control reads since the take-over.
#[derive(Debug, Default)]
pub(super) struct Controls {
    /// The last device that was asked for.
    last: String,
    /// Whether they were refused too; this is logged once.
    forbidden: bool,
}

/// Chooses devices for control reads among those that the newest complete scan has seen: others for another `seed`, and not
/// the `last` one.
fn controls(memory: &Memory, last: &str, seed: u64) -> Vec<String> {
    let Memory { fleet, scans, .. } = memory;
    let live = fleet.live_devices().map(|(id, _)| id);
    let seen = live.filter(|id| *id != last && !scans.suspects.contains_key(*id) && !scans.held(id));
    let mut seen: Vec<(u64, &str)> = seen.map(|id| (xxh3_64_with_seed(id.as_bytes(), seed), id)).collect();
    if seen.len() > CONTROLS {
        seen.select_nth_unstable(CONTROLS);
        seen.truncate(CONTROLS);
    }
    seen.sort_unstable();
    seen.into_iter().map(|(_, id)| id.to_owned()).collect()
}

/// Tells whether a control read was made after a 404 or 403 and in the same minute.
fn vouches(control: &Answer, missing: &Answer) -> bool {
    let apart = control.received_at.timestamp_millis() - missing.received_at.timestamp_millis();
    control.number > missing.number && apart.abs() <= CONTROL_HOLDS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chrono::DateTime;
    use windfall_schemas::device::DeviceValue;

    use super::*;
    use crate::checkpoint::Suspect;
    use crate::fleet::Event;

    fn answer(number: u64, seconds: i64) -> Answer {
        let received_at = DateTime::from_timestamp(seconds, 0).unwrap();
        Answer { number, path: String::new(), request_id: None, received_at }
    }

    #[test]
    fn another_device_vouches_each_time_and_never_one_that_is_missing() {
        let mut memory = Memory::default();
        for id in ["A", "B", "C", "D", "E", "F"] {
            let value = DeviceValue { device_id: id.to_owned(), ..DeviceValue::default() };
            let after = Some(value.into());
            let event = Event { after, number: 1, made_at: 0, told_at: 0, channel: None };
            memory.fleet.apply(id, Some(event));
        }
        memory.scans.suspects.insert("A".to_owned(), Suspect::new(1, 0));
        let mut met = BTreeSet::new();
        let mut last = String::new();
        for seed in 0..20 {
            let chosen = controls(&memory, &last, seed);
            assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), 3, "{chosen:?}");
            assert!(!chosen.contains(&"A".to_owned()) && !chosen.contains(&last), "{chosen:?} after {last}");
            last.clone_from(&chosen[0]);
            met.extend(chosen);
        }
        assert_eq!(met.into_iter().collect::<String>(), "BCDEF");
    }

    #[test]
    fn a_control_read_vouches_for_the_404s_of_the_minute_before_it_and_for_none_after_it() {
        let control = answer(7, 100);
        assert!(vouches(&control, &answer(6, 100)));
        assert!(vouches(&control, &answer(3, 40)));
        assert!(!vouches(&control, &answer(2, 39)), "too long before");
        assert!(!vouches(&control, &answer(8, 101)), "Apple may have failed between the two");
    }
}
