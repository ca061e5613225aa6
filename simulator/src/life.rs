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
use crate::fleet::{Fleet, Unit};
use crate::journal::Change;
use crate::portrait;

/// The stream of random numbers for lives, chosen so that the first day of seed 7, the demo's, shows every usual change.
const STREAM: u64 = 274;

/// One number for each kind of change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PerKind<T> {
    /// Devices bought; most of those that [`Rates`] buy get a server within two hours.
    pub added: T,
    /// Unassigned devices given a server; as a rate, per *unassigned* device and day.
    pub assigned: T,
    /// Devices moved to another server.
    pub reassigned: T,
    /// Devices that lose their server.
    pub unassigned: T,
    /// Devices released.
    pub released: T,
    /// Released devices that come back.
    pub readded: T,
    /// Attributes corrected.
    pub corrected: T,
}

/// How often changes happen by themselves, each per device of the fleet and day; by default never.
pub type Rates = PerKind<f64>;

/// How many changes of each kind happen at once.
pub type Round = PerKind<u32>;

impl Rates {
    /// An office: 200 devices see six additions, a dozen assignments and one or two releases a day.
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
}

impl Round {
    /// Asks for `n` of each kind.
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
        // A small fleet changes too: the rates are those of twenty devices at least.
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
        let fits: fn(&Unit) -> bool = match deed {
            Deed::Add => return self.order(fleet, at, changes),
            Deed::Assign => |unit| unit.released.is_none() && unit.server.is_none(),
            Deed::Reassign | Deed::Unassign => |unit| unit.server.is_some(),
            Deed::Release | Deed::Correct => |unit| unit.released.is_none(),
            Deed::Readd => |unit| unit.released.is_some(),
        };
        let Some(index) = self.any(fleet, fits) else { return };
        match deed {
            Deed::Add => {}
            Deed::Assign => changes.extend(fleet.assign(index, fleet.usual_server(index), at).ok().flatten()),
            Deed::Reassign => {
                let mut others = fleet.standing();
                others.retain(|place| Some(*place) != fleet.unit(index).server);
                if !others.is_empty() {
                    let server = *self.draw.pick(&others);
                    changes.extend(fleet.assign(index, Some(server), at).ok().flatten());
                }
            }
            Deed::Unassign => changes.extend(fleet.assign(index, None, at).ok().flatten()),
            Deed::Release => changes.extend(fleet.release(index, None, at)),
            Deed::Readd => changes.extend(fleet.readd(index, at)),
            Deed::Correct => {
                let (attribute, value) = self.correction();
                changes.push(fleet.correct(index, attribute, value, at));
            }
        }
    }

    fn order(&mut self, fleet: &mut Fleet, at: Millis, changes: &mut Vec<Change>) {
        let size = 1 + self.draw.below(largest_order(fleet));
        for _ in 0..size {
            let index = fleet.ever();
            changes.extend(fleet.add(at, None));
            if self.draw.chance(0.85) {
                let wait = self.draw.between(10 * 60_000, 120 * 60_000);
                self.awaited.extend(fleet.usual_server(index).map(|server| Reverse((at + wait, index, server))));
            }
        }
    }

    fn deliver(&mut self, fleet: &mut Fleet, changes: &mut Vec<Change>) {
        let Some(Reverse((at, index, server))) = self.awaited.pop() else { return };
        let unit = fleet.unit(index);
        let stands = fleet.servers().get(usize::from(server)).is_some_and(|server| !server.removed);
        if unit.released.is_none() && unit.server.is_none() && stands {
            changes.extend(fleet.assign(index, Some(server), at).ok().flatten());
        }
    }

    fn correction(&mut self) -> (&'static str, Value) {
        match self.draw.below(5) {
            0 => ("orderNumber", json!(format!("7{:09}", 900_000_000 + self.draw.below(99_999_999)))),
            1 => ("deviceCapacity", json!(self.draw.pick(&["128GB", "256GB", "512GB", "1TB"]))),
            // A replaced board: an address that no device has at first.
            2 => ("wifiMacAddress", json!(portrait::mac(0xF0_0000_0000 + self.draw.below(0x0F_FFFF_FFFF)))),
            3 => ("bluetoothMacAddress", json!(portrait::mac(0xE0_0000_0000 + self.draw.below(0x0F_FFFF_FFFF)))),
            _ => ("partNumber", json!(format!("M{:04X}LL/A", self.draw.below(0xFFFF)))),
        }
    }

    /// Finds a device that `fits`: first by some draws, then by a search from a drawn place on.
    fn any(&mut self, fleet: &Fleet, fits: fn(&Unit) -> bool) -> Option<u32> {
        const TRIES: u32 = 32;
        let count = fleet.ever();
        for _ in 0..TRIES {
            let index = self.draw.below(u64::from(count)) as u32;
            if index < count && fits(fleet.unit(index)) {
                return Some(index);
            }
        }
        let start = self.draw.below(u64::from(count)) as u32;
        (0..count).map(|step| (start + step) % count).find(|index| fits(fleet.unit(*index)))
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
    use crate::config::{DEFAULT_SEED, Simulator};
    use crate::journal::ChangeKind;
    use proptest::prelude::*;

    const ORIGIN: Millis = 1_795_000_000_000;

    fn fleet(seed: u64, devices: u32) -> Fleet {
        Fleet::new(&Simulator::builder().seed(seed).devices(devices).servers(4), 0, ORIGIN)
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
            let units: Vec<_> = (0..fleet.ever()).map(|index| fleet.unit(index)).collect();
            let live = units.iter().filter(|unit| unit.released.is_none()).count();
            let unassigned = units.iter().filter(|unit| unit.released.is_none() && unit.server.is_none()).count();
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
        let config = Simulator::default();
        let mut fleet = Fleet::new(&config, 0, ORIGIN);
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
        let mut life = Life::new(3, 0, Rates::default(), ORIGIN, &fleet);
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
        let mut life = Life::new(3, 0, Rates::default(), ORIGIN, &fleet);
        assert!(life.advance(&mut fleet, ORIGIN + 1000 * DAY).is_empty());
    }

    #[test]
    fn every_serial_number_leads_back_to_its_device() {
        let mut fleet = fleet(DEFAULT_SEED, 50);
        fleet.add(ORIGIN, Some("C02XK0AAJG5H")).unwrap();
        for index in 0..fleet.ever() {
            assert_eq!(fleet.find(&fleet.serial(index)), Some(index));
        }
        for unknown in ["SIM0000000", "SIM0000051", "SIM51", "SIM9999999", "SIN0000001", "SIMD0000001", ""] {
            assert_eq!(fleet.find(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn two_seeds_or_organizations_share_no_serial_number_and_no_server() {
        let mut serials = std::collections::BTreeSet::new();
        let mut servers = std::collections::BTreeSet::new();
        for seed in [0, 1, 3, DEFAULT_SEED, 8, 25, 26, 51, 52, 676, 702, u64::MAX] {
            for number in [0, 1, 13] {
                let config = Simulator::builder().seed(seed).devices(20).servers(2);
                let fleet = Fleet::new(&Simulator { orgs: vec!["acme".to_owned(); 14], ..config }, number, ORIGIN);
                for index in 0..fleet.ever() {
                    let serial = fleet.serial(index);
                    assert_eq!(fleet.find(&serial), Some(index));
                    assert!(serials.insert(serial.clone()), "seed {seed}: {serial}");
                }
                for server in fleet.servers() {
                    assert!(servers.insert(server.id.clone()), "seed {seed}: {}", server.id);
                }
            }
        }
    }
}
