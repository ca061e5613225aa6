//! What a test or an operator can make happen.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fleet::ReleaseAnswer;
use crate::life::Round;

/// Something made to happen by hand; as JSON `{"command": "release", "device": "SIM0000001"}`.
///
/// Devices are named by serial number, servers by id or name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Makes a round of changes happen, chosen by the seed.
    Live {
        /// How many of each kind.
        round: Round,
    },
    /// Adds a device, with a serial number of its own when one is given, and assigns it when a server is.
    Add {
        /// Serial number.
        #[serde(default)]
        device: Option<String>,
        /// Server.
        #[serde(default)]
        server: Option<String>,
    },
    /// Releases a device.
    Release {
        /// Serial number.
        device: String,
        /// What its single read says; the seed decides when it is left out.
        #[serde(default)]
        answer: Option<ReleaseAnswer>,
    },
    /// Releases so much of the fleet at once, from the first device on.
    ReleaseShare {
        /// From 0 to 100.
        percent: f64,
    },
    /// Brings a released device back.
    Readd {
        /// Serial number.
        device: String,
    },
    /// Gives a device a server, or another one.
    Assign {
        /// Serial number.
        device: String,
        /// Server.
        server: String,
    },
    /// Takes a device's server away.
    Unassign {
        /// Serial number.
        device: String,
    },
    /// Gives an attribute another value; null takes it away.
    Correct {
        /// Serial number.
        device: String,
        /// Apple's name of the attribute; one that nobody knows is served as well.
        attribute: String,
        /// Its value.
        value: Value,
    },
    /// Hides a device from the listing; single reads and linkage lists go on showing it.
    Hide {
        /// Serial number.
        device: String,
    },
    /// Shows a hidden device again.
    Show {
        /// Serial number.
        device: String,
    },
    /// Makes a server.
    AddServer {
        /// Its name.
        name: String,
    },
    /// Renames a server.
    RenameServer {
        /// Server.
        server: String,
        /// Its new name.
        name: String,
    },
    /// Lets a server connect to Apple, which moves its `lastConnectedDateTime`.
    ConnectServer {
        /// Server.
        server: String,
    },
    /// Removes a server after taking it from its devices.
    RemoveServer {
        /// Server.
        server: String,
    },
    /// Makes every cursor given out so far lead nowhere.
    ExpireCursors,
    /// Ends the organization's tokens.
    RevokeTokens,
    /// Ends the organization's key and tokens.
    RevokeKey,
    /// Moves the time of the fleet's life on.
    AdvanceLife {
        /// So many seconds.
        seconds: i64,
    },
    /// Moves the time of tokens, limits and headers on.
    AdvanceWall {
        /// So many seconds.
        seconds: i64,
    },
}
