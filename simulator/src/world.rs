//! Everything simulated: organizations, accounts, faults; and what can be done to it.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::apple_time::{Millis, later, moment};
use crate::command::{Command, CommandError, Done};
use crate::config::{PagingStyle, SimulatorConfig};
use crate::credentials::Credentials;
use crate::draw::Draw;
use crate::fault::Plan;
use crate::fleet::{Beginning, Fleet, FleetError};
use crate::journal::{Change, Truth};
use crate::life::Life;
use crate::limiter::Limiter;
use crate::shape::Shapes;
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

/// The settings that answers depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) seed: u64,
    pub(crate) school: bool,
    pub(crate) shapes: Shapes,
    pub(crate) paging: PagingStyle,
    pub(crate) cursor_ttl: Duration,
    pub(crate) linkage_lag: Millis,
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
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) orgs: Vec<Org>,
    pub(crate) tokens: Tokens,
    pub(crate) faults: Plan,
    pub(crate) manner: Manner,
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
    pub(crate) fn new(config: &SimulatorConfig, accounts: &[Credentials], now: Now) -> Self {
        let origin = now.life.timestamp_millis();
        let orgs = config.orgs.iter().enumerate().map(|(number, org)| {
            let number = number as u64;
            let fleet = Fleet::new(&Beginning {
                org: org.clone(),
                number,
                seed: config.seed,
                devices: config.devices,
                servers: config.servers,
                unassigned_share: config.unassigned_share,
                gone_share: config.gone_share,
                origin,
            });
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
            manner: Manner {
                seed: config.seed,
                school: config.school,
                shapes: config.shapes,
                paging: config.paging,
                cursor_ttl: config.cursor_ttl,
                linkage_lag: config.linkage_lag.as_millis() as Millis,
            },
            ids: Draw::keyed(salt, &[0x1D5]),
            answers: 0,
            changes: Vec::new(),
            life_offset: chrono::Duration::zero(),
            wall_offset: chrono::Duration::zero(),
        }
    }

    /// Lets every organization live on until `to`.
    pub(crate) fn advance(&mut self, to: DateTime<Utc>) {
        for Org { fleet, life, .. } in &mut self.orgs {
            self.changes.extend(life.advance(fleet, to.timestamp_millis()));
        }
    }

    /// Takes the changes that are not in the journal yet.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
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

    /// Obeys a command in the organization `org`, the first one when none is named.
    pub(crate) fn obey(&mut self, command: &Command, org: Option<&str>, now: Now) -> Result<Done, CommandError> {
        let number = match org {
            None => 0,
            Some(alias) => self
                .orgs
                .iter()
                .position(|org| org.fleet.org() == alias)
                .ok_or_else(|| FleetError::UnknownOrg { org: alias.to_owned() })?,
        };
        let at = now.life.timestamp_millis();
        let changes = match command {
            Command::ExpireCursors => {
                self.orgs[number].cursors_from = now.wall + chrono::Duration::milliseconds(1);
                Vec::new()
            }
            Command::RevokeTokens => {
                self.tokens.revoke(number);
                Vec::new()
            }
            Command::RevokeKey => {
                self.tokens.revoke_key(number);
                Vec::new()
            }
            Command::AdvanceLife { seconds } => {
                let to = later(now.life, *seconds);
                self.life_offset += to - now.life;
                self.advance(to);
                return Ok(Done { changes: self.changes.clone() });
            }
            Command::AdvanceWall { seconds } => {
                self.wall_offset += later(now.wall, *seconds) - now.wall;
                Vec::new()
            }
            Command::AddFaults { script } => {
                self.faults.add(&script.parse()?);
                Vec::new()
            }
            Command::ClearFaults => {
                self.faults.clear();
                Vec::new()
            }
            _ => change(&mut self.orgs[number], command, at)?,
        };
        self.changes.extend(changes.iter().cloned());
        Ok(Done { changes })
    }
}

/// Makes the change that a command asks of one organization.
fn change(org: &mut Org, command: &Command, at: Millis) -> Result<Vec<Change>, FleetError> {
    let Org { fleet, life, .. } = org;
    let one = |change: Change| vec![change];
    Ok(match command {
        Command::Live { round } => life.round(*round, fleet, at),
        Command::Add { device, server } => {
            let added = fleet.add(at, device.as_deref())?;
            let index = fleet.ever() - 1;
            let mut changes = one(added);
            if let Some(server) = server {
                let place = place(fleet, server)?;
                changes.extend(fleet.assign(index, Some(place), at)?);
            }
            changes
        }
        Command::Release { device, answer } => one(fleet.release(index(fleet, device)?, *answer, at)?),
        Command::ReleaseShare { percent } => release_share(fleet, *percent, at),
        Command::Readd { device } => one(fleet.readd(index(fleet, device)?, at)?),
        Command::Assign { device, server } => {
            let place = place(fleet, server)?;
            fleet.assign(index(fleet, device)?, Some(place), at)?.into_iter().collect()
        }
        Command::Unassign { device } => fleet.assign(index(fleet, device)?, None, at)?.into_iter().collect(),
        Command::Correct { device, attribute, value } => {
            one(fleet.correct(index(fleet, device)?, attribute, value.clone(), at))
        }
        Command::Hide { device } => fleet.hide(index(fleet, device)?, true, at).into_iter().collect(),
        Command::Show { device } => fleet.hide(index(fleet, device)?, false, at).into_iter().collect(),
        Command::AddServer { name } => one(fleet.add_server(name, at)?),
        Command::RenameServer { server, name } => one(fleet.rename_server(place(fleet, server)?, name, at)),
        Command::ConnectServer { server } => one(fleet.connect_server(place(fleet, server)?, at)),
        Command::RemoveServer { server } => fleet.remove_server(place(fleet, server)?, at),
        Command::ExpireCursors
        | Command::RevokeTokens
        | Command::RevokeKey
        | Command::AdvanceLife { .. }
        | Command::AdvanceWall { .. }
        | Command::AddFaults { .. }
        | Command::ClearFaults => Vec::new(),
    })
}

fn release_share(fleet: &mut Fleet, percent: f64, at: Millis) -> Vec<Change> {
    let live: Vec<u32> = (0..fleet.ever()).filter(|index| !fleet.state(*index).released).collect();
    let count = (live.len() as f64 * percent / 100.0).round() as usize;
    live.into_iter().take(count).filter_map(|index| fleet.release(index, None, at).ok()).collect()
}

fn index(fleet: &Fleet, device: &str) -> Result<u32, FleetError> {
    fleet.find(device).ok_or_else(|| FleetError::UnknownDevice { device: device.to_owned() })
}

fn place(fleet: &Fleet, server: &str) -> Result<u16, FleetError> {
    fleet.find_server(server).ok_or_else(|| FleetError::UnknownServer { server: server.to_owned() })
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
