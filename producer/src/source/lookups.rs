//! Look-ups of missing devices, one after another, each settled in a transaction of its own.

use tracing::{debug, info};
use windfall_runtime::failpoint;
use windfall_runtime::telemetry::chain;
use windfall_schemas::identifiers::DeviceId;

use super::Interruption;
use super::asking::LOOK_UP_TRIES;
use super::tenure::{Tenure, millis};
use crate::apple::{Answer, DeviceDirectory, DirectoryError, Lookup};
use crate::fields::keep_in_device;
use crate::ledger::LedgerError;
use crate::release::LookUp;
use crate::step::{self, Reading};

/// A control read vouches for look-ups of this long, in milliseconds.
const CONTROL_HOLDS: i64 = 60_000;
/// Time that the requests themselves may take until then, in milliseconds.
const CONTROL_MARGIN: i64 = 10_000;
/// Look-ups that are made although a scan is due: a scan that takes longer than its interval must not starve them.
const FEWEST_LOOK_UPS: usize = 20;

impl<D: DeviceDirectory + 'static> Tenure<'_, D> {
    /// Looks up every suspect whose time has come, until `enough` says that the next scan is due; what is left stays due.
    ///
    /// A 404 counts only with a control read *after* it; one such read settles the 404s of the minute before it.
    pub(super) async fn look_up_due(&mut self, enough: impl Fn(&Self) -> bool) -> Result<(), Interruption> {
        let now = self.now();
        let suspects = self.memory.scans.suspects.iter();
        let due: Vec<String> =
            suspects.filter(|(_, suspect)| suspect.wait(now).is_zero()).map(|(id, _)| id.clone()).collect();
        let mut missing: Vec<(String, Answer)> = Vec::new();
        for (device_id, done) in due.into_iter().zip(0usize..) {
            if done >= FEWEST_LOOK_UPS && enough(self) {
                break;
            }
            if self.memory.scans.suspects.contains_key(&device_id) {
                missing.extend(self.look_up(device_id).await?);
            }
            if missing.first().is_some_and(|(_, first)| self.control_is_due(first)) {
                self.settle_missing(&mut missing).await?;
            }
        }
        self.settle_missing(&mut missing).await
    }

    /// Tells whether another look-up would bring the control read too late for the first of the 404s.
    fn control_is_due(&self, first: &Answer) -> bool {
        let two_more = 2 * millis(self.directory.pace().period) + CONTROL_MARGIN;
        self.now() - first.received_at.timestamp_millis() + two_more >= CONTROL_HOLDS
    }

    /// Settles the devices that were answered with 404, by one control read after them.
    async fn settle_missing(&mut self, missing: &mut Vec<(String, Answer)>) -> Result<(), Interruption> {
        if missing.is_empty() {
            return Ok(());
        }
        let control = self.control().await?;
        for (device_id, answer) in std::mem::take(missing) {
            let control = control.as_ref().is_some_and(|control| vouches(control, &answer));
            self.settle(&device_id, LookUp::NotFound { control }, &reading(&answer)).await?;
        }
        Ok(())
    }

    /// Looks a device up and settles what was said; a 404 is handed back, since it waits for its control read.
    async fn look_up(&mut self, device_id: String) -> Result<Option<(String, Answer)>, Interruption> {
        failpoint!("producer.look_up.before");
        let failed = |why: String, request: u64, at: i64| {
            (LookUp::Failed { why }, Reading { request, read_at: at, request_id: None, url: None })
        };
        let read = match DeviceId::parse(&device_id) {
            Ok(id) => self.read_device(&id).await,
            Err(error) => {
                let (said, reading) = failed(chain(&error).to_string(), self.newest_request, self.now());
                self.settle(&device_id, said, &reading).await?;
                return Ok(None);
            }
        };
        failpoint!("producer.look_up.after");
        let (said, reading) = match read {
            Ok(Lookup::Found { mut device, unread, answer }) => {
                keep_in_device(&mut device, &unread, self.memory.fleet.get(&device_id).map(|known| &*known.value));
                let said = match unread.contains(&"released_from_org_date_time") {
                    true => LookUp::Failed { why: "the release date could not be understood".to_owned() },
                    false => LookUp::Found(device),
                };
                (said, reading(&answer))
            }
            Ok(Lookup::NotFound { answer }) => return Ok(Some((device_id, answer))),
            Err(Interruption::Directory(DirectoryError::Forbidden(refusal))) => {
                let reading = Reading {
                    request: self.newest_request,
                    read_at: self.now(),
                    request_id: refusal.request_id,
                    url: Some(refusal.path),
                };
                (LookUp::Forbidden, reading)
            }
            Err(Interruption::Directory(error)) => failed(chain(&error).to_string(), self.newest_request, self.now()),
            Err(other) => return Err(other),
        };
        self.settle(&device_id, said, &reading).await?;
        Ok(None)
    }

    async fn settle(&mut self, device_id: &str, said: LookUp, reading: &Reading) -> Result<(), Interruption> {
        debug!(source = self.source.org(), device_id, ?said, "missing device looked up");
        let origin = &self.source.settings.origin;
        let mut step = step::settle(origin, &self.memory, device_id, said, reading, self.now());
        failpoint!("producer.look_up_commit.before");
        match self.commit(&step).await {
            Err(Interruption::Ledger(LedgerError::Unwritable(unwritable))) => {
                step::reject_of_step(&self.source.settings.origin, &mut step, &unwritable, self.now());
                self.commit(&step).await?;
            }
            committed => committed?,
        }
        failpoint!("producer.look_up_commit.after");
        for event in &step.devices {
            let kind = event.kind.as_ref().map_or("", |kind| kind.as_str());
            info!(source = self.source.org(), kind, evidence = ?event.evidence, "missing device settled");
        }
        Ok(())
    }

    /// Reads a device that the newest scan has seen: a 404 counts only while Apple answers for others.
    async fn control(&mut self) -> Result<Option<Answer>, Interruption> {
        let Some(id) = self.control_device() else { return Ok(None) };
        match self.read_device(&id).await {
            Ok(Lookup::Found { answer, .. }) => Ok(Some(answer)),
            Ok(Lookup::NotFound { .. }) | Err(Interruption::Directory(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    fn control_device(&self) -> Option<DeviceId> {
        let scans = &self.memory.scans;
        let live = self.memory.fleet.live_devices().map(|(id, _)| id);
        let seen = live.filter(|id| !scans.suspects.contains_key(*id) && !scans.held(id));
        DeviceId::parse(seen.min()?).ok()
    }

    async fn read_device(&mut self, id: &DeviceId) -> Result<Lookup, Interruption> {
        let read = self.ask(LOOK_UP_TRIES, |directory| {
            let id = id.clone();
            async move { directory.device(&id).await }
        });
        let read = read.await?;
        let (Lookup::Found { answer, .. } | Lookup::NotFound { answer }) = &read;
        self.newest_request = answer.number;
        Ok(read)
    }
}

/// Tells whether a control read was made after a 404 and in the same minute.
fn vouches(control: &Answer, missing: &Answer) -> bool {
    let apart = control.received_at.timestamp_millis() - missing.received_at.timestamp_millis();
    control.number > missing.number && apart.abs() <= CONTROL_HOLDS
}

fn reading(answer: &Answer) -> Reading {
    Reading {
        request: answer.number,
        read_at: answer.received_at.timestamp_millis(),
        request_id: answer.request_id.clone(),
        url: Some(answer.path.clone()),
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn answer(number: u64, seconds: i64) -> Answer {
        let received_at = DateTime::from_timestamp(seconds, 0).unwrap();
        Answer { number, path: String::new(), request_id: None, received_at }
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
