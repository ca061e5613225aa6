//! Records that cannot be written, such as one that is too large: each becomes a reject, and the rest of its step is written.

use windfall_schemas::device::DeviceValue;
use windfall_schemas::reject::RejectValue;
use windfall_schemas::wire::WireError;
use xxhash_rust::xxh3::xxh3_128;

use super::{ReadServers, Step};
use crate::apple::{Page, Rejected};
use crate::checkpoint::DEVICES;
use crate::event::Origin;

/// The reason of a reject whose record is larger than what is sent.
const TOO_LARGE: &str = "too_large_to_send";
/// The reason of a reject whose record does not fit its schema.
const UNFIT: &str = "unfit";

/// A record that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritable {
    /// Id of the device or the server.
    pub id: String,
    /// What is wrong with it.
    pub error: WireError,
}

impl Unwritable {
    fn reason(&self) -> &'static str {
        match self.error {
            WireError::TooLarge { .. } => TOO_LARGE,
            _ => UNFIT,
        }
    }

    fn message(&self) -> String {
        format!("its record cannot be written: {}", self.error)
    }
}

/// Makes the reject of an item of the devices table at a `place` that no other item has.
pub(super) fn reject_of(origin: &Origin, place: &str, reason: &str, message: String, at: i64) -> RejectValue {
    let stage = if matches!(reason, TOO_LARGE | UNFIT) { "encode" } else { "decode" };
    RejectValue {
        reject_id: format!("{:032x}", xxh3_128(format!("{}/{place}", origin.org).as_bytes())),
        rejected_at: at,
        stage: stage.to_owned(),
        reason: reason.to_owned(),
        message,
        org: Some(origin.org.clone()),
        resource: Some(DEVICES.to_owned()),
        content_type: Some("application/json".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        ..RejectValue::default()
    }
}

/// Turns the devices of a page whose records cannot be written into rejects of the page; returns how many there were.
///
/// The page is planned anew then: the devices count as seen, and nothing is published of them.
pub fn reject_of_page(page: &mut Page, unwritable: &[Unwritable]) -> usize {
    let before = page.rejected.len();
    for found in unwritable {
        // A device that stands on the page twice is the same one twice.
        for item in page.items.extract_if(.., |item| item.value.device_id == found.id) {
            page.rejected.push(Rejected {
                index: item.index,
                id: Some(found.id.clone()),
                reason: found.reason(),
                message: found.message(),
                raw: as_read(&item.value),
            });
        }
    }
    page.rejected.len() - before
}

/// Leaves servers whose records cannot be written as they are known: the list is not complete then, and nothing is removed.
pub fn reject_of_servers(read: &mut ReadServers, unwritable: &[Unwritable]) -> usize {
    let before = read.servers.len();
    for found in unwritable {
        read.servers.retain(|server| server.server_id != found.id);
        read.faults.push(format!("server `{}`: {}", found.id, found.message()));
    }
    read.complete = false;
    before - read.servers.len()
}

/// Takes the events that cannot be written out of a step that is no page, and puts rejects in their place.
///
/// What the step says besides, such as that a suspicion has ended, stands: the next scan begins it anew.
pub fn reject_of_step(origin: &Origin, step: &mut Step, unwritable: &[Unwritable], at: i64) {
    for found in unwritable {
        for event in
            step.devices.extract_if(.., |event| event.after.as_ref().is_some_and(|it| it.device_id == found.id))
        {
            let place = event.event_id.as_deref().unwrap_or_default();
            let reject = RejectValue {
                resource_id: Some(found.id.clone()),
                scan_id: event.source.scan_id,
                url: event.source.url,
                request_id: event.source.request_id,
                payload: event.after.as_deref().map(as_read),
                ..reject_of(origin, place, found.reason(), found.message(), at)
            };
            step.rejects.push(reject.cut());
        }
        step.observed.retain(|(device_id, _)| *device_id != found.id);
    }
}

/// The device as it was read, by our names of its fields; Apple's bytes are gone by then.
fn as_read(value: &DeviceValue) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
