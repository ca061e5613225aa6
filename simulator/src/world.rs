//! The whole simulated state: organizations, accounts and faults; and the commands that change it.

use chrono::{DateTime, Utc};

use crate::apple_time::{Millis, later, moment};
use crate::command::Command;
use crate::config::Simulator;
use crate::credentials::Credentials;
use crate::draw::Draw;
use crate::fault::Plan;
use crate::fleet::{Fleet, FleetError};
use crate::journal::{Change, Truth};
use crate::life::Life;
use crate::limiter::Limiter;
use crate::token::Tokens;

/// One organization.
#[derive(Debug)]
pub(crate) struct Org {
    pub(crate) fleet: Fleet,
    pub(crate) life: Life,
    pub(crate) limiter: Option<Limiter>,
    /// Cursors given out before this wall time lead nowhere.
    pub(crate) cursors_from: DateTime<Utc>,
}

/// The two times of one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Time of the fleet's life.
    pub(crate) life: DateTime<Utc>,
    /// Time of tokens, limits and headers.
    pub(crate) wall: DateTime<Utc>,
}

/// Everything simulated.
pub(crate) struct World {
    pub(crate) orgs: Vec<Org>,
    pub(crate) tokens: Tokens,
    pub(crate) faults: Plan,
    pub(crate) config: Simulator,
    /// Draws request ids.
    pub(crate) ids: Draw,
    /// Number of answers given.
    pub(crate) answers: u64,
    /// Changes that are not in the journal yet.
    changes: Vec<Change>,
    /// How far the two times were moved by hand.
    pub(crate) life_offset: chrono::Duration,
    pub(crate) wall_offset: chrono::Duration,
}

impl World {
    /// Makes the world that belongs to a configuration.
    pub(crate) fn new(config: Simulator, accounts: &[Credentials], now: Now) -> Self {
        let origin = now.life.timestamp_millis();
        let orgs = (0..config.orgs.len() as u64).map(|number| {
            let fleet = Fleet::new(&config, number, origin);
            Org {
                life: Life::new(config.seed, number, config.rates, origin, &fleet),
                fleet,
                limiter: config.rate_limit.map(Limiter::new),
                cursors_from: DateTime::<Utc>::MIN_UTC,
            }
        });
        // Tokens of an earlier run must not be good in this one.
        let salt = config.seed ^ now.wall.timestamp_micros() as u64;
        Self {
            orgs: orgs.collect(),
            tokens: Tokens::new(accounts, config.key_id_rule, config.token_limit, salt),
            faults: Plan::new(&config.faults, config.seed),
            ids: Draw::keyed(salt, &[0x1D5]),
            answers: 0,
            changes: Vec::new(),
            life_offset: chrono::Duration::zero(),
            wall_offset: chrono::Duration::zero(),
            config,
        }
    }

    /// Lets every organization live on until `to`.
    pub(crate) fn advance(&mut self, to: DateTime<Utc>) {
        for Org { fleet, life, .. } in &mut self.orgs {
            self.changes.extend(life.advance(fleet, to.timestamp_millis()));
        }
    }

    /// Takes the changes that are not in the journal yet.
    pub(crate) fn take_changes(&mut self) -> impl Iterator<Item = Change> {
        std::mem::take(&mut self.changes).into_iter()
    }

    /// Returns everything as it is.
    pub(crate) fn truth(&self, now: Now) -> Truth {
        let fleets = || self.orgs.iter().map(|org| &org.fleet);
        Truth {
            at: now.life,
            devices: fleets().flat_map(|fleet| (0..fleet.ever()).map(|index| fleet.truth(index))).collect(),
            servers: fleets()
                .flat_map(|fleet| fleet.standing().into_iter().map(|place| fleet.true_server(place)))
                .collect(),
        }
    }

    /// Obeys a command in the organization `org`, the first one when none is named; returns the true changes that it made.
    pub(crate) fn obey(&mut self, command: &Command, org: Option<&str>, now: Now) -> Result<Vec<Change>, FleetError> {
        let number = match org {
            None => 0,
            Some(alias) => self
                .orgs
                .iter()
                .position(|org| org.fleet.org() == alias)
                .ok_or_else(|| FleetError::UnknownOrg(alias.to_owned()))?,
        };
        let at = now.life.timestamp_millis();
        let Org { fleet, life, cursors_from, .. } = &mut self.orgs[number];
        let mut changes = Vec::new();
        match command {
            Command::Live { round } => changes = life.round(*round, fleet, at),
            Command::Add { device, server } => {
                let place = server.as_deref().map(|server| place(fleet, server)).transpose()?;
                changes.push(fleet.add(at, device.as_deref())?);
                changes.extend(fleet.assign(fleet.ever() - 1, place, at)?);
            }
            Command::Release { device, answer } => changes.push(fleet.release(index(fleet, device)?, *answer, at)?),
            Command::ReleaseShare { percent } => changes = release_share(fleet, *percent, at),
            Command::Readd { device } => changes.push(fleet.readd(index(fleet, device)?, at)?),
            Command::Assign { device, server } => {
                let place = place(fleet, server)?;
                changes.extend(fleet.assign(index(fleet, device)?, Some(place), at)?);
            }
            Command::Unassign { device } => changes.extend(fleet.assign(index(fleet, device)?, None, at)?),
            Command::Correct { device, attribute, value } => {
                changes.push(fleet.correct(index(fleet, device)?, attribute, value.clone(), at));
            }
            Command::Hide { device } => changes.extend(fleet.hide(index(fleet, device)?, true, at)),
            Command::Show { device } => changes.extend(fleet.hide(index(fleet, device)?, false, at)),
            Command::AddServer { name } => changes.push(fleet.add_server(name, at)?),
            Command::RenameServer { server, name } => {
                changes.push(fleet.rename_server(place(fleet, server)?, name, at));
            }
            Command::ConnectServer { server } => changes.push(fleet.connect_server(place(fleet, server)?, at)),
            Command::RemoveServer { server } => changes = fleet.remove_server(place(fleet, server)?, at),
            Command::ExpireCursors => *cursors_from = now.wall + chrono::Duration::milliseconds(1),
            Command::RevokeTokens => self.tokens.revoke(number),
            Command::RevokeKey => self.tokens.revoke_key(number),
            Command::AdvanceLife { seconds } => {
                let to = later(now.life, *seconds);
                self.life_offset += to - now.life;
                self.advance(to);
                return Ok(self.changes.clone());
            }
            Command::AdvanceWall { seconds } => self.wall_offset += later(now.wall, *seconds) - now.wall,
        }
        self.changes.extend(changes.iter().cloned());
        Ok(changes)
    }
}

fn release_share(fleet: &mut Fleet, percent: f64, at: Millis) -> Vec<Change> {
    let live: Vec<u32> = (0..fleet.ever()).filter(|index| fleet.unit(*index).released.is_none()).collect();
    let count = (live.len() as f64 * percent / 100.0).round() as usize;
    live.into_iter().take(count).filter_map(|index| fleet.release(index, None, at).ok()).collect()
}

fn index(fleet: &Fleet, device: &str) -> Result<u32, FleetError> {
    fleet.find(device).ok_or_else(|| FleetError::UnknownDevice(device.to_owned()))
}

fn place(fleet: &Fleet, server: &str) -> Result<u16, FleetError> {
    fleet.find_server(server).ok_or_else(|| FleetError::UnknownServer(server.to_owned()))
}

impl Now {
    /// Returns the life's time in milliseconds.
    pub(crate) fn millis(self) -> Millis {
        self.life.timestamp_millis()
    }
}

/// Keeps only whole milliseconds, which is all that Apple's date-times hold.
pub(crate) fn whole_millis(at: DateTime<Utc>) -> DateTime<Utc> {
    moment(at.timestamp_millis())
}
