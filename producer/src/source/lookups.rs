//! Look-ups of missing devices, one after another, each settled in a transaction of its own.

use tracing::{debug, info};
use windfall_runtime::failpoint;
use windfall_runtime::telemetry::chain;
use windfall_schemas::identifiers::DeviceId;

use super::Interruption;
use super::asking::LOOK_UP_TRIES;
use super::tenure::Tenure;
use crate::apple::{Answer, DeviceDirectory, DirectoryError, Lookup};
use crate::release::LookUp;
use crate::step::{self, Reading};

/// A control read vouches for look-ups of this long, in milliseconds.
const CONTROL_HOLDS: i64 = 60_000;

impl<D: DeviceDirectory + 'static> Tenure<'_, D> {
    /// Looks up every suspect whose time has come.
    pub(super) async fn look_up_due(&mut self) -> Result<(), Interruption> {
        let now = self.now();
        let suspects = self.memory.scans.suspects.iter();
        let due: Vec<String> =
            suspects.filter(|(_, suspect)| suspect.next_try_at <= now).map(|(id, _)| id.clone()).collect();
        for device_id in due {
            if self.memory.scans.suspects.contains_key(&device_id) {
                self.look_up(&device_id).await?;
            }
        }
        Ok(())
    }

    async fn look_up(&mut self, device_id: &str) -> Result<(), Interruption> {
        failpoint!("producer.look_up.before");
        let (answer, reading) = self.single_read(device_id).await?;
        failpoint!("producer.look_up.after");
        debug!(source = self.source.org(), device_id, ?answer, "missing device looked up");
        let origin = &self.source.settings.origin;
        let step = step::settle(origin, &self.memory, device_id, answer, &reading, self.now());
        self.commit(&step).await?;
        failpoint!("producer.look_up_commit.after");
        for event in &step.devices {
            let kind = event.kind.as_ref().map_or("", |kind| kind.as_str());
            info!(source = self.source.org(), kind, evidence = ?event.evidence, "missing device settled");
        }
        Ok(())
    }

    async fn single_read(&mut self, device_id: &str) -> Result<(LookUp, Reading), Interruption> {
        let failed = |why: String, request: u64, at: i64| {
            (LookUp::Failed { why }, Reading { request, read_at: at, request_id: None, url: None })
        };
        let id = match DeviceId::parse(device_id) {
            Ok(id) => id,
            Err(error) => return Ok(failed(chain(&error).to_string(), self.newest_request, self.now())),
        };
        match self.read_device(&id).await {
            Ok(Lookup::Found { device, answer }) => Ok((LookUp::Found(device), reading(&answer))),
            Ok(Lookup::NotFound { answer }) => {
                let reading = reading(&answer);
                let control = self.control(device_id, reading.read_at).await?;
                Ok((LookUp::NotFound { control }, reading))
            }
            Err(Interruption::Directory(DirectoryError::Forbidden(refusal))) => {
                let reading = Reading {
                    request: self.newest_request,
                    read_at: self.now(),
                    request_id: refusal.request_id,
                    url: Some(refusal.path),
                };
                Ok((LookUp::Forbidden, reading))
            }
            Err(Interruption::Directory(error)) => {
                Ok(failed(chain(&error).to_string(), self.newest_request, self.now()))
            }
            Err(other) => Err(other),
        }
    }

    /// Reads a device that the newest scan has seen: a 404 counts only while Apple answers for others.
    async fn control(&mut self, missing: &str, at: i64) -> Result<bool, Interruption> {
        if self.control_at.is_some_and(|control_at| (at - control_at).abs() <= CONTROL_HOLDS) {
            return Ok(true);
        }
        let Some(id) = self.control_device(missing) else { return Ok(false) };
        match self.read_device(&id).await {
            Ok(Lookup::Found { answer, .. }) => {
                let read_at = answer.received_at.timestamp_millis();
                self.control_at = Some(read_at);
                Ok((at - read_at).abs() <= CONTROL_HOLDS)
            }
            Ok(Lookup::NotFound { .. }) | Err(Interruption::Directory(_)) => Ok(false),
            Err(other) => Err(other),
        }
    }

    fn control_device(&self, missing: &str) -> Option<DeviceId> {
        let scans = &self.memory.scans;
        let live = self.memory.fleet.live_devices().map(|(id, _)| id);
        let seen = live.filter(|id| *id != missing && !scans.suspects.contains_key(*id) && !scans.held(id));
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

fn reading(answer: &Answer) -> Reading {
    Reading {
        request: answer.number,
        read_at: answer.received_at.timestamp_millis(),
        request_id: answer.request_id.clone(),
        url: Some(answer.path.clone()),
    }
}
