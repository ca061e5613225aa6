//! What each step of a scan puts into its one transaction: pure functions from what is known and what was read.

mod approval;
mod close;
mod page;
mod retell;
mod serverlist;
mod settle;
mod unwritable;

use std::sync::Arc;

use windfall_schemas::device::DeviceValue;
use windfall_schemas::envelope::Envelope;
use windfall_schemas::notification::Notification;
use windfall_schemas::reject::RejectValue;
use windfall_schemas::server::ServerValue;

pub use approval::{Answer, approve, approve_others};
pub use close::{Moment, close, forget_seen, give_up};
pub use page::{in_doubt, page};
pub use retell::{count_again, retell};
pub use serverlist::{ReadServers, begin, has_nobody, link};
pub use settle::settle;
pub use unwritable::{Unwritable, reject_of_page, reject_of_servers, reject_of_step};

use crate::checkpoint::ScanRecord;
use crate::observation::Reads;

/// The content of one transaction, in the order in which it is written: events, rejects, notifications, then the parts
/// of `abm.scans`, of which the header comes last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// Changes of devices.
    pub devices: Vec<Envelope<Arc<DeviceValue>>>,
    /// Changes of management services; a tombstone follows each `d`.
    pub servers: Vec<Envelope<Arc<ServerValue>>>,
    /// Items that never become a record.
    pub rejects: Vec<RejectValue>,
    /// Progress and answers.
    pub notifications: Vec<Notification>,
    /// Parts of the scan state, the header last.
    pub parts: Vec<ScanRecord>,
    /// Devices that were observed, changed or not, and by which requests.
    pub observed: Vec<(String, Reads)>,
    /// When they were observed, in epoch milliseconds.
    pub observed_at: i64,
    /// Devices that were compared and found equal.
    pub unchanged: u64,
    /// The span that the events carry.
    pub traceparent: String,
}

impl Step {
    /// Tells whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
            && self.servers.is_empty()
            && self.rejects.is_empty()
            && self.notifications.is_empty()
            && self.parts.is_empty()
    }
}
