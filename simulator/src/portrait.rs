//! The attributes of a device that do not change; they are computed from the seed whenever they are asked for.
//!
//! They are not stored, so a fleet of a million devices needs memory for their states alone.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::apple_time::{DAY, Millis, written};
use crate::catalogue::{self, Cellular, Model};
use crate::config::DEFAULT_SEED;
use crate::draw::{Draw, mix};

/// Attributes by Apple's names, in Apple's usual order; an attribute without a value is null.
pub(crate) type Attributes = Vec<(Cow<'static, str>, Value)>;

/// Names of all attributes that a device can have, in Apple's usual order.
pub(crate) const NAMES: &[&str] = &[
    "serialNumber",
    "addedToOrgDateTime",
    "releasedFromOrgDateTime",
    "updatedDateTime",
    "deviceModel",
    "productFamily",
    "productType",
    "deviceCapacity",
    "partNumber",
    "orderNumber",
    "color",
    "status",
    "orderDateTime",
    "imei",
    "meid",
    "eid",
    "purchaseSourceId",
    "purchaseSourceType",
    "wifiMacAddress",
    "bluetoothMacAddress",
    "ethernetMacAddress",
    "isMdmMigrationCapable",
    "mdmMigrationStatus",
    "mdmMigrationDeadlineDateTime",
];

/// How many devices share one order in a fleet's past.
const ORDER_SIZE: u64 = 6;

/// The device whose attributes are computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sitter {
    /// Seed of the fleet.
    pub(crate) seed: u64,
    /// Number of the organization, so that no two organizations own the same IMEI.
    pub(crate) org: u64,
    /// Number of the device in its fleet, from 0.
    pub(crate) index: u32,
    /// When the organization first got it.
    pub(crate) first_added: Millis,
}

impl Sitter {
    /// Returns where the identifiers of a simulator begin in a space of so many numbers: far apart for two seeds.
    fn first_of(self, space: u64) -> u64 {
        if self.seed == DEFAULT_SEED { 0 } else { mix(self.seed, &[0xF125]) % space }
    }
}

/// Computes the attributes that do not follow from a device's state.
pub(crate) fn portrait(sitter: Sitter) -> Attributes {
    let mut draw = Draw::keyed(sitter.seed, &[sitter.org, u64::from(sitter.index)]);
    let (number, model) = catalogue::model(&mut draw);
    let mut attributes: Attributes = Vec::with_capacity(NAMES.len());
    attributes.push((Cow::Borrowed("deviceModel"), json!(model.name)));
    attributes.push((Cow::Borrowed("productFamily"), json!(model.family)));
    attributes.push((Cow::Borrowed("productType"), json!(model.product_type)));
    attributes.push((Cow::Borrowed("deviceCapacity"), json!(draw.pick(model.capacities))));
    attributes.push((Cow::Borrowed("partNumber"), part_number(model, &mut draw)));
    attributes.push((Cow::Borrowed("color"), filled(draw.pick::<&str>(model.colors))));
    purchase(sitter, &mut draw, &mut attributes);
    radio(sitter, number, model, &mut attributes);
    addresses(sitter, model, &mut attributes);
    attributes.push((
        Cow::Borrowed("isMdmMigrationCapable"),
        if draw.chance(0.3) { json!(draw.chance(0.8)) } else { Value::Null },
    ));
    attributes
}

/// When a device of the fleet's past came to the organization: devices of one order came together.
pub(crate) fn past_addition(seed: u64, org: u64, index: u32, origin: Millis) -> Millis {
    let mut draw = Draw::keyed(seed, &[org, 0xADDED, order_of(index)]);
    let day = origin - draw.between(10, 1400) * DAY;
    day - draw.between(0, DAY / 1000) * 1000 + fraction(&mut draw)
}

/// Draws milliseconds that need 0 to 3 fraction digits.
pub(crate) fn fraction(draw: &mut Draw) -> Millis {
    match draw.below(4) {
        0 => 0,
        1 => draw.between(1, 9) * 100,
        2 => draw.between(1, 99) * 10,
        _ => draw.between(1, 999),
    }
}

fn order_of(index: u32) -> u64 {
    u64::from(index) / ORDER_SIZE
}

fn filled(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

fn part_number(model: &Model, draw: &mut Draw) -> Value {
    if draw.chance(0.05) {
        return Value::Null;
    }
    // Configure-to-order numbers carry no country.
    if model.part.starts_with('Z') { json!(model.part) } else { json!(format!("{}LL/A", model.part)) }
}

fn purchase(sitter: Sitter, draw: &mut Draw, attributes: &mut Attributes) {
    let order = order_of(sitter.index);
    let mut of_order = Draw::keyed(sitter.seed, &[sitter.org, 0x04DE4, order]);
    let placed = sitter.first_added - of_order.between(1, 5) * DAY;
    let hour = *of_order.pick(&[0, 7, 8]);
    let placed = placed - placed.rem_euclid(DAY) + hour * 3_600_000;
    let (kind, source, number) = match of_order.below(10) {
        0..=5 => ("APPLE", json!("-2000000000000001"), json!(format!("7{:09}", order + 1))),
        6 => ("APPLE", json!("1607"), json!(format!("2{:09}", order + 1))),
        7 => ("RESELLER", json!("1A2B3C"), json!(format!("PO-{}-{:04}", 2023 + order % 3, order + 1))),
        8 => ("RESELLER", json!("4D5E6F"), json!(format!("ABC/1AB2CDE/{:03}", order + 1))),
        _ => ("MANUALLY_ADDED", Value::Null, Value::Null),
    };
    let placed = if number.is_null() || draw.chance(0.02) { Value::Null } else { json!(written(placed)) };
    attributes.push((Cow::Borrowed("orderNumber"), number));
    attributes.push((Cow::Borrowed("orderDateTime"), placed));
    attributes.push((Cow::Borrowed("purchaseSourceId"), source));
    attributes.push((Cow::Borrowed("purchaseSourceType"), json!(kind)));
}

fn radio(sitter: Sitter, model_number: u64, model: &Model, attributes: &mut Attributes) {
    let unique = sitter.first_of(10_000_000_000) + (sitter.org * 100_000_000 + u64::from(sitter.index)) * 2;
    let (imei, meid, eid) = match model.cellular {
        Cellular::None => (Value::Null, Value::Null, Value::Null),
        Cellular::Single => (json!([imei(model_number, unique)]), Value::Null, json!(eid(unique))),
        Cellular::Dual => {
            let first = imei(model_number, unique);
            let meid = first[..14].to_owned();
            (json!([first, imei(model_number, unique + 1)]), json!([meid]), json!(eid(unique)))
        }
    };
    attributes.push((Cow::Borrowed("imei"), imei));
    attributes.push((Cow::Borrowed("meid"), meid));
    attributes.push((Cow::Borrowed("eid"), eid));
}

fn imei(model_number: u64, unique: u64) -> String {
    let body = format!("35{:02}{:010}", model_number % 100, unique % 10_000_000_000);
    let check = luhn(&body);
    format!("{body}{check}")
}

fn luhn(body: &str) -> u32 {
    let sum: u32 = body
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit - b'0');
            let value = if place % 2 == 0 { digit * 2 } else { digit };
            value / 10 + value % 10
        })
        .sum();
    (10 - sum % 10) % 10
}

/// 32 digits whose number leaves 1 when divided by 97, as an eSIM's identifier does.
fn eid(unique: u64) -> String {
    let body = format!("89049032{unique:022}");
    let remainder = body.bytes().fold(0_u64, |left, digit| (left * 10 + u64::from(digit - b'0')) % 97);
    format!("{body}{:02}", 98 - remainder * 100 % 97)
}

fn addresses(sitter: Sitter, model: &Model, attributes: &mut Attributes) {
    let base = sitter.first_of(0xD0_0000_0000) + (sitter.org * 100_000_000 + u64::from(sitter.index)) * 8;
    // One in forty has no addresses on record yet.
    let known = !mix(sitter.seed, &[sitter.org, 0x3AC, u64::from(sitter.index)]).is_multiple_of(40);
    let one = |slot: u64| if known { json!(mac(base + slot)) } else { Value::Null };
    attributes.push((Cow::Borrowed("wifiMacAddress"), one(0)));
    attributes.push((Cow::Borrowed("bluetoothMacAddress"), one(1)));
    let ports: Vec<String> = (0..model.ethernet_ports).map(|port| mac(base + 2 + port)).collect();
    attributes.push((Cow::Borrowed("ethernetMacAddress"), if ports.is_empty() { Value::Null } else { json!(ports) }));
}

/// A locally administered address, which no real device has; bare, as the live service writes it.
pub(crate) fn mac(unique: u64) -> String {
    format!("02{:010X}", unique & 0xFF_FFFF_FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn of(index: u32) -> Attributes {
        portrait(Sitter { seed: 7, org: 0, index, first_added: 1_700_000_000_000 })
    }

    fn value<'a>(attributes: &'a Attributes, name: &str) -> &'a Value {
        attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value).unwrap()
    }

    #[test]
    fn imeis_and_eids_carry_the_check_digits_of_the_published_rules() {
        assert_eq!(luhn("49015420323751"), 8);
        let eid = eid(0);
        let rest = eid.bytes().fold(0_u64, |left, digit| (left * 10 + u64::from(digit - b'0')) % 97);
        assert_eq!((eid.len(), rest), (32, 1));
    }

    #[test]
    fn no_two_devices_share_an_identifier() {
        let mut seen = HashSet::new();
        let fleets = [(7, 0), (7, 13), (0, 0), (8, 0), (11, 1), (u64::MAX, 13)];
        for (index, (seed, org)) in (0..1000).flat_map(|index| fleets.map(|fleet| (index, fleet))) {
            let attributes = portrait(Sitter { seed, org, index, first_added: 1_700_000_000_000 });
            for name in ["imei", "ethernetMacAddress"] {
                for one in value(&attributes, name).as_array().into_iter().flatten() {
                    assert!(seen.insert(one.as_str().unwrap().to_owned()), "{name} {one}");
                }
            }
            for name in ["eid", "wifiMacAddress", "bluetoothMacAddress"] {
                if let Some(one) = value(&attributes, name).as_str() {
                    assert!(seen.insert(one.to_owned()), "{name} {one}");
                }
            }
        }
    }

    #[test]
    fn every_attribute_painted_has_a_name_that_apple_uses() {
        for (name, _) in of(3) {
            assert!(NAMES.contains(&name.as_ref()), "{name}");
        }
    }

    #[test]
    fn a_fleet_has_all_product_families() {
        let families: HashSet<String> =
            (0..2000).map(|index| value(&of(index), "productFamily").as_str().unwrap().to_owned()).collect();
        let expected = ["iPhone", "iPad", "Mac", "AppleTV", "Watch", "Vision"].map(str::to_owned);
        assert_eq!(families, HashSet::from(expected));
    }
}
