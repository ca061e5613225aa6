//! What one answer of Apple's shows of a device, and by which request each group of fields was read.

use windfall_schemas::device::DeviceValue;

use crate::fields::Group;

/// The place of a request among all requests that this process made for one organization.
///
/// Order is taken from here and never from a clock, so a clock that is set back hides no change. What was folded from
/// the topic counts as 0: it was read before this process took the organization over.
pub type RequestNumber = u64;

/// Which groups were read, each with its request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reads {
    /// The request that read the attributes.
    pub attributes: Option<RequestNumber>,
    /// The request that read the management service.
    pub server: Option<RequestNumber>,
    /// The request that showed whether the device is released.
    pub release: Option<RequestNumber>,
}

impl Reads {
    /// Returns the request that read `group`; `None` where it was not read.
    pub fn of(&self, group: Group) -> Option<RequestNumber> {
        match group {
            Group::Attributes => self.attributes,
            Group::Server => self.server,
            Group::Release => self.release,
            Group::Identity | Group::Coverage | Group::Volatile => None,
        }
    }

    /// Returns the numbers of the requests in a form that takes little room; 0 stands for none.
    pub(crate) fn numbers(&self) -> [u32; 3] {
        let number = |read: Option<RequestNumber>| u32::try_from(read.unwrap_or(0)).unwrap_or(u32::MAX);
        [self.attributes, self.server, self.release].map(number)
    }

    /// Takes what [`Reads::numbers`] returned.
    pub(crate) fn from_numbers(numbers: [u32; 3]) -> Self {
        let [attributes, server, release] = numbers.map(|number| (number > 0).then_some(RequestNumber::from(number)));
        Self { attributes, server, release }
    }

    /// Tells whether this reading of `group` may stand over the one already `known`.
    pub fn supersedes(&self, known: &Reads, group: Group) -> bool {
        self.of(group).is_some_and(|mine| mine >= known.of(group).unwrap_or(0))
    }

    /// Keeps of each group the later reading.
    pub fn merge(&mut self, later: &Reads) {
        self.attributes = self.attributes.max(later.attributes);
        self.server = self.server.max(later.server);
        self.release = self.release.max(later.release);
    }
}

/// What one answer shows of a device. Groups without a request in `reads` are empty in `value` and mean nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// The device as it was shown.
    pub value: Box<DeviceValue>,
    /// Which groups of `value` were read.
    pub reads: Reads,
}

impl Observation {
    /// Takes a device as a list or a single read shows it: its attributes and whether it is released, nothing of its service.
    ///
    /// A release date before the date on which the device was added belongs to an earlier stay and is no release.
    pub fn shown(mut value: Box<DeviceValue>, request: RequestNumber) -> Self {
        if !crate::release::counts(value.released_from_org_date_time, value.added_to_org_date_time) {
            value.released_from_org_date_time = None;
            value.releaser_entity_type = None;
            value.releaser_id = None;
        }
        Self { value, reads: Reads { attributes: Some(request), release: Some(request), ..Reads::default() } }
    }

    /// Adds what is known of the management service: its id and name, or `None` for no service.
    #[must_use]
    pub fn with_server(mut self, server: Option<(&str, Option<&str>)>, request: RequestNumber) -> Self {
        self.value.mdm_server_id = server.map(|(id, _)| id.to_owned());
        self.value.mdm_server_name = server.and_then(|(_, name)| name.map(str::to_owned));
        self.reads.server = Some(request);
        self
    }
}
