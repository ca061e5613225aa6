//! The life of a fleet: what happens to it, and when, as its seed says.
//!
//! Waiting times are exponential with rates that follow the size of the fleet. The same seed gives the same life
//! however often and in whatever steps it is asked to go on.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::apple_time::{DAY, Millis};
use crate::draw::Draw;
use crate::fleet::Fleet;
use crate::journal::Change;
use crate::portrait;

/// The stream of numbers that lives follow: of those tried, the one whose seed 7, the demo's, has a telling first day.
const STREAM: u64 = 274;

/// How often things happen, each per device of the fleet and day.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    /// Devices bought; most get a server within two hours.
    pub added: f64,
    /// Unassigned devices given a server, per *unassigned* device and day.
    pub assigned: f64,
    /// Devices moved to another server.
    pub reassigned: f64,
    /// Devices that lose their server.
    pub unassigned: f64,
    /// Devices released.
    pub released: f64,
    /// Released devices that come back.
    pub readded: f64,
    /// Attributes corrected.
    pub corrected: f64,
}

impl Rates {
    /// An office: 200 devices see six additions, a dozen assignments and one or two releases a day.
    #[must_use]
    pub fn office() -> Self {
        Self {
            added: 0.03,
            assigned: 0.15,
            reassigned: 0.015,
            unassigned: 0.004,
            released: 0.007,
            readded: 0.0025,
            corrected: 0.01,
        }
    }

    /// Nothing happens but what a caller does by hand.
    #[must_use]
    pub fn still() -> Self {
        Self {
            added: 0.0,
            assigned: 0.0,
            reassigned: 0.0,
            unassigned: 0.0,
            released: 0.0,
            readded: 0.0,
            corrected: 0.0,
        }
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self::office()
    }
}

/// A round of changes: how many of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Round {
    /// Devices bought.
    pub added: u32,
    /// Unassigned devices given a server.
    pub assigned: u32,
    /// Devices moved to another server.
    pub reassigned: u32,
    /// Devices that lose their server.
    pub unassigned: u32,
    /// Devices released.
    pub released: u32,
    /// Released devices that come back.
    pub readded: u32,
    /// Attributes corrected.
    pub corrected: u32,
}

impl Round {
    /// Asks for `n` of each kind.
    #[must_use]
    pub fn of_each(n: u32) -> Self {
        Self { added: n, assigned: n, reassigned: n, unassigned: n, released: n, readded: n, corrected: n }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Add,
    Assign,
    Reassign,
    Unassign,
    Release,
    Readd,
    Correct,
}

/// The life of one fleet.
#[derive(Debug)]
pub(crate) struct Life {
    rates: Rates,
    draw: Draw,
    next: Option<Millis>,
    /// New devices that will get a server: when, which, and where to.
    awaited: BinaryHeap<Reverse<(Millis, u32, u16)>>,
}

impl Life {
    /// Begins a life at `origin`.
    pub(crate) fn new(seed: u64, org: u64, rates: Rates, origin: Millis, fleet: &Fleet) -> Self {
        let mut life = Self { rates, draw: Draw::keyed(seed, &[org, STREAM]), next: None, awaited: BinaryHeap::new() };
        life.schedule(origin, fleet);
        life
    }

    /// Lives on until `to` and returns what happened, in its order; nothing when `to` is past already.
    pub(crate) fn advance(&mut self, fleet: &mut Fleet, to: Millis) -> Vec<Change> {
        let mut changes = Vec::new();
        loop {
            let awaited = self.awaited.peek().map(|Reverse((at, _, _))| *at);
            let next = match (awaited, self.next) {
                (Some(awaited), Some(next)) => awaited.min(next),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => return changes,
            };
            if next > to {
                return changes;
            }
            if awaited == Some(next) {
                self.deliver(fleet, &mut changes);
            } else {
                let deed = self.choose(fleet);
                self.act(deed, fleet, next, &mut changes);
                self.schedule(next, fleet);
            }
        }
    }

    /// Makes a round of changes happen `at` one moment.
    pub(crate) fn round(&mut self, round: Round, fleet: &mut Fleet, at: Millis) -> Vec<Change> {
        let Round { added, assigned, reassigned, unassigned, released, readded, corrected } = round;
        let mut changes = Vec::new();
        let plan = [
            (Deed::Readd, readded),
            (Deed::Reassign, reassigned),
            (Deed::Assign, assigned),
            (Deed::Unassign, unassigned),
            (Deed::Correct, corrected),
            (Deed::Release, released),
        ];
        for (deed, times) in plan {
            for _ in 0..times {
                self.act(deed, fleet, at, &mut changes);
            }
        }
        for _ in 0..added {
            changes.extend(fleet.add(at, None));
        }
        changes
    }

    fn schedule(&mut self, from: Millis, fleet: &Fleet) {
        let daily: f64 = self.daily(fleet).iter().map(|(_, rate)| rate).sum();
        self.next = (daily > 0.0).then(|| from + (self.draw.wait(DAY as f64 / daily) as Millis).max(1));
    }

    fn daily(&self, fleet: &Fleet) -> [(Deed, f64); 7] {
        // A small fleet lives too: rates are those of twenty devices at least.
        let size = f64::from(fleet.live().max(20));
        let rates = &self.rates;
        [
            (Deed::Add, rates.added * size / order_mean(fleet)),
            (Deed::Assign, rates.assigned * f64::from(fleet.unassigned())),
            (Deed::Reassign, rates.reassigned * size),
            (Deed::Unassign, rates.unassigned * size),
            (Deed::Release, rates.released * size),
            (Deed::Readd, rates.readded * size),
            (Deed::Correct, rates.corrected * size),
        ]
    }

    fn choose(&mut self, fleet: &Fleet) -> Deed {
        let daily = self.daily(fleet);
        let mut left = self.draw.unit() * daily.iter().map(|(_, rate)| rate).sum::<f64>();
        for (deed, rate) in daily {
            if left < rate {
                return deed;
            }
            left -= rate;
        }
        Deed::Correct
    }

    fn act(&mut self, deed: Deed, fleet: &mut Fleet, at: Millis, changes: &mut Vec<Change>) {
        match deed {
            Deed::Add => self.order(fleet, at, changes),
            Deed::Assign => {
                let Some(index) = self.any(fleet, |state| !state.released && state.server.is_none()) else { return };
                let server = fleet.usual_server(index);
                changes.extend(fleet.assign(index, Some(server), at).ok().flatten());
            }
            Deed::Reassign => self.reassign(fleet, at, changes),
            Deed::Unassign => {
                let Some(index) = self.any(fleet, |state| state.server.is_some()) else { return };
                changes.extend(fleet.assign(index, None, at).ok().flatten());
            }
            Deed::Release => {
                let Some(index) = self.any(fleet, |state| !state.released) else { return };
                changes.extend(fleet.release(index, None, at));
            }
            Deed::Readd => {
                let Some(index) = self.any(fleet, |state| state.released) else { return };
                changes.extend(fleet.readd(index, at));
            }
            Deed::Correct => self.correct(fleet, at, changes),
        }
    }

    fn order(&mut self, fleet: &mut Fleet, at: Millis, changes: &mut Vec<Change>) {
        let size = 1 + self.draw.below(largest_order(fleet));
        for _ in 0..size {
            let index = fleet.ever();
            changes.extend(fleet.add(at, None));
            if self.draw.chance(0.85) {
                let wait = self.draw.between(10 * 60_000, 120 * 60_000);
                self.awaited.push(Reverse((at + wait, index, fleet.usual_server(index))));
            }
        }
    }

    fn deliver(&mut self, fleet: &mut Fleet, changes: &mut Vec<Change>) {
        let Some(Reverse((at, index, server))) = self.awaited.pop() else { return };
        let state = fleet.state(index);
        let stands = fleet.servers().get(usize::from(server)).is_some_and(|server| !server.removed);
        if !state.released && state.server.is_none() && stands {
            changes.extend(fleet.assign(index, Some(server), at).ok().flatten());
        }
    }

    fn reassign(&mut self, fleet: &mut Fleet, at: Millis, changes: &mut Vec<Change>) {
        let Some(index) = self.any(fleet, |state| state.server.is_some()) else { return };
        let present = fleet.state(index).server;
        let others: Vec<u16> = fleet.standing().into_iter().filter(|place| Some(*place) != present).collect();
        if !others.is_empty() {
            let server = *self.draw.pick(&others);
            changes.extend(fleet.assign(index, Some(server), at).ok().flatten());
        }
    }

    fn correct(&mut self, fleet: &mut Fleet, at: Millis, changes: &mut Vec<Change>) {
        let Some(index) = self.any(fleet, |state| !state.released) else { return };
        let (attribute, value) = self.correction();
        changes.push(fleet.correct(index, attribute, value, at));
    }

    fn correction(&mut self) -> (&'static str, Value) {
        match self.draw.below(5) {
            0 => ("orderNumber", json!(format!("7{:09}", 900_000_000 + self.draw.below(99_999_999)))),
            1 => ("deviceCapacity", json!(self.draw.pick(&["128GB", "256GB", "512GB", "1TB"]))),
            // A replaced board: beyond every address that a portrait paints.
            2 => ("wifiMacAddress", json!(portrait::mac(0xF0_0000_0000 + self.draw.below(0x0F_FFFF_FFFF)))),
            3 => ("bluetoothMacAddress", json!(portrait::mac(0xE0_0000_0000 + self.draw.below(0x0F_FFFF_FFFF)))),
            _ => ("partNumber", json!(format!("M{:04X}LL/A", self.draw.below(0xFFFF)))),
        }
    }

    /// Finds a device that `fits`: some tries by chance, then all from a chance place on.
    fn any(&mut self, fleet: &Fleet, fits: impl Fn(crate::fleet::State) -> bool) -> Option<u32> {
        const TRIES: u32 = 32;
        let count = fleet.ever();
        for _ in 0..TRIES {
            let index = self.draw.below(u64::from(count)) as u32;
            if index < count && fits(fleet.state(index)) {
                return Some(index);
            }
        }
        let start = self.draw.below(u64::from(count)) as u32;
        (0..count).map(|step| (start + step) % count).find(|index| fits(fleet.state(*index)))
    }
}

fn largest_order(fleet: &Fleet) -> u64 {
    u64::from(fleet.live() / 60).clamp(2, 200)
}

fn order_mean(fleet: &Fleet) -> f64 {
    (1.0 + largest_order(fleet) as f64) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Beginning;
    use crate::journal::ChangeKind;
    use proptest::prelude::*;

    const ORIGIN: Millis = 1_795_000_000_000;

    fn fleet(seed: u64, devices: u32) -> Fleet {
        Fleet::new(&Beginning {
            org: "acme".to_owned(),
            number: 0,
            seed,
            devices,
            servers: 4,
            unassigned_share: 0.2,
            gone_share: 0.3,
            origin: ORIGIN,
        })
    }

    fn lived(seed: u64, devices: u32, steps: &[Millis]) -> Vec<Change> {
        let mut fleet = fleet(seed, devices);
        let mut life = Life::new(seed, 0, Rates::office(), ORIGIN, &fleet);
        steps.iter().flat_map(|to| life.advance(&mut fleet, ORIGIN + to)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_life_does_not_depend_on_the_steps_in_which_it_is_asked(
            seed in 0_u64..1000,
            mut steps in proptest::collection::vec(0..DAY, 1..12),
        ) {
            steps.sort_unstable();
            steps.push(DAY);
            prop_assert_eq!(lived(seed, 150, &steps), lived(seed, 150, &[DAY]));
        }

        #[test]
        fn the_counts_of_a_fleet_stay_those_of_its_devices(seed in 0_u64..1000, days in 1_i64..20) {
            let mut fleet = fleet(seed, 80);
            let mut life = Life::new(seed, 0, Rates::office(), ORIGIN, &fleet);
            life.advance(&mut fleet, ORIGIN + days * DAY);
            let states: Vec<_> = (0..fleet.ever()).map(|index| fleet.state(index)).collect();
            let live = states.iter().filter(|state| !state.released).count();
            let unassigned = states.iter().filter(|state| !state.released && state.server.is_none()).count();
            let assigned: u32 = fleet.servers().iter().map(|server| server.devices).sum();
            prop_assert_eq!(fleet.live() as usize, live);
            prop_assert_eq!(fleet.unassigned() as usize, unassigned);
            prop_assert_eq!(assigned as usize, live - unassigned);
        }
    }

    #[test]
    fn another_seed_is_another_life() {
        assert_ne!(lived(1, 200, &[DAY]), lived(2, 200, &[DAY]));
    }

    #[test]
    fn a_day_of_two_hundred_devices_looks_like_an_office() {
        let mut sums = std::collections::BTreeMap::new();
        for seed in 0..40 {
            for change in lived(seed, 200, &[DAY]) {
                *sums.entry(change.kind).or_insert(0.0) += 1.0 / 40.0;
            }
        }
        let mean = |kind| sums.get(&kind).copied().unwrap_or(0.0);
        assert!((4.5..7.5).contains(&mean(ChangeKind::Added)), "{sums:?}");
        assert!((9.0..15.0).contains(&mean(ChangeKind::Assigned)), "{sums:?}");
        assert!((2.0..4.0).contains(&mean(ChangeKind::Reassigned)), "{sums:?}");
        assert!((1.0..2.0).contains(&mean(ChangeKind::Released)), "{sums:?}");
        assert!((1.0..3.0).contains(&mean(ChangeKind::Corrected)), "{sums:?}");
    }

    #[test]
    fn the_first_day_of_the_demos_seed_shows_every_usual_kind_of_change() {
        let config = crate::config::SimulatorConfig::default();
        let mut fleet = Fleet::new(&Beginning {
            org: "acme".to_owned(),
            number: 0,
            seed: config.seed,
            devices: config.devices,
            servers: config.servers,
            unassigned_share: config.unassigned_share,
            gone_share: config.gone_share,
            origin: ORIGIN,
        });
        let mut life = Life::new(config.seed, 0, config.rates, ORIGIN, &fleet);
        let mut counts = std::collections::BTreeMap::new();
        for change in life.advance(&mut fleet, ORIGIN + DAY) {
            *counts.entry(change.kind).or_insert(0) += 1;
        }
        let expected = [
            (ChangeKind::Added, 6),
            (ChangeKind::Assigned, 12),
            (ChangeKind::Reassigned, 2),
            (ChangeKind::Unassigned, 1),
            (ChangeKind::Released, 2),
            (ChangeKind::Corrected, 2),
        ];
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_round_makes_as_many_changes_of_each_kind_as_were_asked() {
        let mut fleet = fleet(3, 100);
        let mut life = Life::new(3, 0, Rates::still(), ORIGIN, &fleet);
        life.round(Round { released: 5, ..Round::default() }, &mut fleet, ORIGIN);
        let mut counts = std::collections::BTreeMap::new();
        for change in life.round(Round::of_each(3), &mut fleet, ORIGIN + 1) {
            *counts.entry(change.kind).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 7, "{counts:?}");
        assert!(counts.values().all(|count| *count == 3), "{counts:?}");
    }

    #[test]
    fn a_still_life_stays_still() {
        let mut fleet = fleet(3, 100);
        let mut life = Life::new(3, 0, Rates::still(), ORIGIN, &fleet);
        assert!(life.advance(&mut fleet, ORIGIN + 1000 * DAY).is_empty());
    }

    #[test]
    fn every_serial_number_leads_back_to_its_device() {
        let mut fleet = fleet(3, 50);
        fleet.add(ORIGIN, Some("C02XK0AAJG5H")).unwrap();
        for index in 0..fleet.ever() {
            assert_eq!(fleet.find(&fleet.serial(index)), Some(index));
        }
        for unknown in ["SIM0000000", "SIM0000051", "SIM51", "SIM9999999", "SIN0000001", ""] {
            assert_eq!(fleet.find(unknown), None, "{unknown}");
        }
    }
}
