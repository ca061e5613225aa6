//! Access to a running simulator: one lock around its state, its two clocks and its journal.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};

use crate::answer::{Answer, Asked};
use crate::clock::TimeSource;
use crate::command::Command;
use crate::fault::{FaultScript, ScriptError};
use crate::fleet::FleetError;
use crate::journal::{Change, Journal, Line, Record, Truth};
use crate::life::Round;
use crate::world::{Now, World, whole_millis};

/// What all clones of a [`Handle`] share.
pub(crate) struct Shared {
    pub(crate) world: Mutex<World>,
    pub(crate) life_clock: TimeSource,
    pub(crate) wall_clock: TimeSource,
    pub(crate) journal: Journal,
}

impl Shared {
    /// Lets the fleets live on to now, calls `work`, and writes what changed into the journal before anyone sees it.
    fn with<T>(&self, work: impl FnOnce(&mut World, Now) -> T) -> T {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Now {
            life: whole_millis((self.life_clock)() + world.life_offset),
            wall: (self.wall_clock)() + world.wall_offset,
        };
        world.advance(now.life);
        let note =
            |world: &mut World| world.take_changes().for_each(|change| self.journal.write(Record::Change(change)));
        note(&mut world);
        let result = work(&mut world, now);
        note(&mut world);
        result
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// Drives a running simulator; clones drive the same one.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Handle {
    /// Answers a request.
    pub(crate) fn answer(&self, asked: &Asked) -> Answer {
        self.shared.with(|world, now| world.answer(asked, now, self.shared.journal.keep))
    }

    /// Obeys a command in the first organization.
    ///
    /// # Errors
    /// When the command names what is not there, or cannot be done.
    pub fn command(&self, command: Command) -> Result<Vec<Change>, FleetError> {
        self.command_in(None, command)
    }

    /// Obeys a command in an organization.
    ///
    /// # Errors
    /// When the command names what is not there, or cannot be done.
    pub fn command_in(&self, org: Option<&str>, command: Command) -> Result<Vec<Change>, FleetError> {
        self.shared.with(|world, now| world.obey(&command, org, now))
    }

    /// Makes a round of changes happen in every organization, chosen by the seed.
    pub fn live(&self, round: Round) -> Vec<Change> {
        let orgs = self.orgs();
        orgs.iter().flat_map(|org| self.command_in(Some(org), Command::Live { round }).unwrap_or_default()).collect()
    }

    /// Releases a device; what single reads say follows from the seed.
    ///
    /// # Errors
    /// When there is no such device, or it was released.
    pub fn release(&self, device: &str) -> Result<Vec<Change>, FleetError> {
        self.command(Command::Release { device: device.to_owned(), answer: None })
    }

    /// Gives a device a server, by the server's id or name.
    ///
    /// # Errors
    /// When there is no such device or server, or the device was released.
    pub fn assign(&self, device: &str, server: &str) -> Result<Vec<Change>, FleetError> {
        self.command(Command::Assign { device: device.to_owned(), server: server.to_owned() })
    }

    /// Adds rules to the fault script.
    ///
    /// # Errors
    /// When the rules cannot be understood.
    pub fn add_faults(&self, script: &str) -> Result<(), ScriptError> {
        let script: FaultScript = script.parse()?;
        self.shared.with(|world, _| world.faults.add(&script));
        Ok(())
    }

    /// Lifts all faults.
    pub fn clear_faults(&self) {
        self.shared.with(|world, _| world.faults.clear());
    }

    /// Returns each rule of the fault script with how often it has played.
    pub fn faults_played(&self) -> Vec<(String, u64)> {
        self.shared.with(|world, _| world.faults.played())
    }

    /// Returns everything as it is now.
    pub fn truth(&self) -> Truth {
        self.shared.with(|world, now| world.truth(now))
    }

    /// Returns everything as it is now, and writes it into the journal.
    pub fn journal_truth(&self) -> Truth {
        let truth = self.truth();
        self.shared.journal.write(Record::Truth(truth.clone()));
        truth
    }

    /// Returns the journal, when it is kept in memory.
    pub fn journal(&self) -> Vec<Line> {
        self.shared.journal.lines()
    }

    /// Returns the time of the fleet's life.
    pub fn now(&self) -> DateTime<Utc> {
        self.shared.with(|_, now| now.life)
    }

    /// Returns the aliases of the organizations served.
    pub fn orgs(&self) -> Vec<String> {
        self.shared.with(|world, _| world.orgs.iter().map(|org| org.fleet.org().to_owned()).collect())
    }

    /// Returns how many devices belong to the organizations now.
    pub fn live_devices(&self) -> u32 {
        self.shared.with(|world, _| world.orgs.iter().map(|org| org.fleet.live()).sum())
    }
}
