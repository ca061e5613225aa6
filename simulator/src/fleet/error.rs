//! Why a change could not be made.

/// Why a change could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// No such organization is served.
    #[error("there is no organization `{org}`")]
    UnknownOrg {
        /// The alias asked for.
        org: String,
    },
    /// No such device was ever in the fleet.
    #[error("there is no device `{device}`")]
    UnknownDevice {
        /// The serial number asked for.
        device: String,
    },
    /// A device with this serial number is or was there.
    #[error("there is a device `{device}` already")]
    DeviceExists {
        /// The serial number.
        device: String,
    },
    /// The fleet will give this serial number to a device of its own.
    #[error("`{device}` is a serial number that the fleet gives by itself; take one of another form")]
    Reserved {
        /// The serial number.
        device: String,
    },
    /// No server with this id or name stands.
    #[error("there is no server `{server}`")]
    UnknownServer {
        /// The id or name asked for.
        server: String,
    },
    /// A server of this name stands.
    #[error("there is a server `{server}` already")]
    ServerExists {
        /// Its name.
        server: String,
    },
    /// The device has left the organization.
    #[error("the device `{device}` was released")]
    Released {
        /// The serial number.
        device: String,
    },
    /// The device never left the organization.
    #[error("the device `{device}` was not released")]
    NotReleased {
        /// The serial number.
        device: String,
    },
}
