//! Laws: what holds for every set of contributions and every history of source records.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use windfall_schemas::asset::{AssetRecord, FieldValue};
use windfall_schemas::contribution::{Contribution, ContributionKey};
use windfall_schemas::link::{Link, LinkKey, LinkedAsset};
use windfall_schemas::wire::Codec;
use windfall_transformer::asset::Asset;
use windfall_transformer::collection::{self, CompiledCollection};
use windfall_transformer::contribution::{SourceRecord, map};
use windfall_transformer::event::{DecodedRow, SourceEvent};
use windfall_transformer::links::SourcePosition;
use windfall_transformer::mapping::Program;
use windfall_transformer::merge::{Merged, merge};
use windfall_transformer::remembered::{Contributions, Lasts, Links};
use windfall_transformer::{LoadedCollection, Value, load_collections};

const RULES: &str = "collection: things
fields:
  serial: { type: string, unique: true }
  a: string
  b: string
  c: string
  d: string
  e: string
  f: string
identify_by: [serial]
merge:
  a: newest
  b: first
  c: max
  d: union
  e: agree
  f: { prefer: [jamf, abm], stale_after: 5ms, blank: keep }
";

fn rules() -> CompiledCollection {
    collection::parse("rules.yaml", RULES).unwrap()
}

fn value() -> impl Strategy<Value = FieldValue> {
    prop_oneof![
        2 => Just(FieldValue::Null),
        5 => prop::sample::select(vec!["x", "y", "z", "x, y"]).prop_map(|text| FieldValue::String(text.to_owned())),
    ]
}

/// What up to four records of two organizations and three sources say of one asset, in any order.
fn contributions() -> impl Strategy<Value = Vec<Contribution>> {
    let sources = prop::sample::select(vec!["abm.devices", "jamf.computers", "jamf.mobile_devices"]);
    let one = (sources, any::<bool>(), 0..20i64, 0..20i64, prop::collection::vec(value(), 7));
    let said = prop::collection::vec(one, 0..=4).prop_map(|said| {
        said.into_iter()
            .enumerate()
            .map(|(index, (source, released, source_ts_ms, claimed_ms, fields))| Contribution {
                asset_id: "A".into(),
                source: source.into(),
                source_key: format!("org{}/{index}", index % 2),
                released,
                org: Some(format!("org{}", index % 2)),
                source_ts_ms: Some(source_ts_ms),
                claimed_ms: Some(claimed_ms),
                fields,
                ..Contribution::default()
            })
            .collect::<Vec<_>>()
    });
    said.prop_shuffle()
}

/// Names the subjects of what is disagreed on.
fn subjects(merged: Option<&Merged>) -> Vec<&str> {
    merged.iter().flat_map(|merged| &merged.conflicts).map(|conflict| conflict.subject.as_str()).collect()
}

/// An event of a small world: which device of two organizations, which serial number it shows, or that it is gone.
#[derive(Debug, Clone)]
struct Seen {
    device: u8,
    serial: Option<u8>,
    status: u8,
    released: bool,
}

fn history() -> impl Strategy<Value = Vec<Seen>> {
    let seen = (0..4u8, prop::option::weighted(0.85, 0..3u8), 0..3u8, prop::bool::weighted(0.2));
    let seen = seen.prop_map(|(device, serial, status, released)| Seen { device, serial, status, released });
    prop::collection::vec(seen, 1..25)
}

fn record(offset: usize, seen: &Seen) -> SourceRecord {
    let (org, offset) = (if seen.device.is_multiple_of(2) { "acme" } else { "globex" }, i64::try_from(offset).unwrap());
    let event = seen.serial.map(|serial| SourceEvent {
        after: Some(DecodedRow(vec![
            ("org".into(), Value::Text(org.into())),
            // Serial number 2 is a placeholder: the record is of no asset then.
            ("serial_number".into(), Value::Text(if serial == 2 { "N/A".into() } else { format!("SIM{serial}") })),
            ("status".into(), Value::Text(format!("S{}", seen.status))),
            ("released_from_org_date_time".into(), if seen.released { Value::Integer(5) } else { Value::Null }),
        ])),
        ts_ms: offset,
        org: org.into(),
        op: "u".into(),
        kind: Some("updated".into()),
        event_id: Some(format!("e{offset}")),
        fingerprint: None,
    });
    SourceRecord {
        source: "abm.devices".into(),
        source_key: format!("{org}/{}", seen.device),
        at: SourcePosition { partition: 0, offset },
        event,
    }
}

/// Both loops over topics in memory: what was written into contributions and into the flat topic.
#[derive(Default, Clone)]
struct World {
    links: BTreeMap<LinkKey, Link>,
    contributions: Vec<(String, (String, String), Option<Contribution>)>,
    merged: usize,
    assets: BTreeMap<String, Asset>,
    flat: Vec<(String, Option<Arc<AssetRecord>>)>,
}

impl World {
    fn map(&mut self, program: &Program, record: SourceRecord) {
        let key = record.link_key();
        let step = map(program, self.links.get(&key), record);
        for key in step.withdrawals {
            self.contributions.push((key.asset_id, (key.source, key.source_key), None));
        }
        if let Some(contribution) = step.contribution {
            let source = (contribution.source.clone(), contribution.source_key.clone());
            self.contributions.push((contribution.asset_id.clone(), source, Some(contribution)));
        }
        self.links.extend(step.link.map(|link| (key, link)));
    }

    fn merge(&mut self, collection: &CompiledCollection) {
        while let Some((asset_id, source, contribution)) = self.contributions.get(self.merged).cloned() {
            let asset = self.assets.entry(asset_id.clone()).or_default();
            asset.apply(source, contribution);
            let cause = i64::try_from(self.merged).unwrap();
            let conclusion = asset.conclude(collection, &asset_id, cause, 0);
            self.flat.extend(conclusion.record.map(|record| (asset_id.clone(), Some(record))));
            self.flat.extend(conclusion.tombstone.then_some((asset_id, None)));
            self.merged += 1;
        }
    }

    fn standing(&self) -> BTreeMap<String, Arc<AssetRecord>> {
        let mut standing = BTreeMap::new();
        for (asset_id, record) in &self.flat {
            match record {
                Some(record) => standing.insert(asset_id.clone(), Arc::clone(record)),
                None => standing.remove(asset_id),
            };
        }
        standing
    }
}

/// Makes the record of `contributions` at `offset`, mapped from the source record at `source_offset`.
fn contribution(
    source: u8,
    offset: i64,
    source_offset: i64,
    said: &Said,
) -> ((String, String), Result<Option<Contribution>, ()>) {
    let key = ("abm.devices".to_owned(), format!("acme/{source}"));
    let contribution = |owner: u8| Contribution {
        asset_id: "A".into(),
        source: key.0.clone(),
        source_key: key.1.clone(),
        fields: vec![FieldValue::String(owner.to_string()); 7],
        source_ts_ms: Some(offset),
        event_id: Some(format!("e{offset}")),
        source_partition: Some(0),
        source_offset: Some(source_offset),
        ..Contribution::default()
    };
    let said = said.map(|owner| owner.map(contribution));
    (key, said)
}

/// What becomes of an asset as its sources are heard one after the other: a text, a withdrawal, or what cannot be read.
fn heard<'a>(log: impl Iterator<Item = (usize, &'a (u8, Said))>) -> Asset {
    let mut asset = Asset { version: -1, ..Asset::default() };
    for (offset, (source, said)) in log {
        let offset = i64::try_from(offset).unwrap();
        let (key, said) = contribution(*source, offset, offset, said);
        let _ = asset.hear(key, offset, said);
    }
    asset
}

fn log() -> impl Strategy<Value = Vec<(u8, Said)>> {
    let said = prop_oneof![
        3 => (0..3u8).prop_map(|owner| Ok(Some(owner))),
        1 => Just(Ok(None)),
        1 => Just(Err(())),
    ];
    prop::collection::vec((0..3u8, said), 0..12)
}

/// One record of `contributions`.
type Said = Result<Option<u8>, ()>;

fn shipped() -> LoadedCollection {
    load_collections(Path::new("."), &[]).unwrap().remove(0)
}

proptest! {
    #[test]
    fn merging_does_not_care_about_order(said in contributions()) {
        let collection = rules();
        let mut other = said.clone();
        other.sort_by(|a, b| a.source_key.cmp(&b.source_key));
        prop_assert_eq!(merge(&collection, &said), merge(&collection, &other));
        other.reverse();
        prop_assert_eq!(merge(&collection, &said), merge(&collection, &other));
    }

    #[test]
    fn sources_that_all_say_what_they_were_merged_to_are_merged_to_the_same_and_disagree_on_nothing(
        said in contributions(),
    ) {
        let collection = rules();
        let Some(merged) = merge(&collection, &said) else {
            prop_assert!(said.is_empty());
            return Ok(());
        };
        let again: Vec<_> =
            said.iter().map(|said| Contribution { fields: merged.fields.clone(), ..said.clone() }).collect();
        let again = merge(&collection, &again).unwrap();
        prop_assert_eq!(&again.fields, &merged.fields);
        prop_assert!(!subjects(Some(&again)).contains(&"e"));
    }

    #[test]
    fn what_only_released_records_say_beside_live_ones_fills_no_field_but_where_the_rule_asks_for_any_value(
        said in contributions(),
    ) {
        let collection = rules();
        let live: Vec<_> = said.iter().filter(|said| !said.released).cloned().collect();
        prop_assume!(!live.is_empty());
        let (all, live) = (merge(&collection, &said).unwrap(), merge(&collection, &live).unwrap());
        for (position, field) in collection.schema.fields().iter().enumerate() {
            // `newest`, `first` and `blank: keep` rather take an old value than none.
            let any_value = ["a", "b", "f"].contains(&field.name.as_str());
            if !any_value {
                prop_assert_eq!(&all.fields[position], &live.fields[position], "{}", field.name);
            }
        }
        prop_assert_eq!(all.conflicts, live.conflicts);
    }

    #[test]
    fn a_conflict_exists_exactly_where_live_sources_disagree_or_are_several_devices_of_one_organization(
        said in contributions(),
    ) {
        let collection = rules();
        let position = collection.schema.position("e").unwrap();
        let live = said.iter().any(|said| !said.released);
        let said_now: Vec<_> = said.iter().filter(|said| !said.released || !live).collect();
        let values: BTreeSet<String> = said_now
            .iter()
            .map(|said| said.fields[position].to_string())
            .filter(|value| value != "null")
            .collect();
        let organizations: BTreeSet<_> = said_now.iter().map(|said| (&said.source, &said.org)).collect();
        let mut wanted = Vec::new();
        wanted.extend((values.len() > 1).then_some("e"));
        wanted.extend((organizations.len() < said_now.len()).then_some("asset_id"));
        let merged = merge(&collection, &said);
        prop_assert_eq!(subjects(merged.as_ref()), wanted);
    }

    #[test]
    fn what_every_device_last_showed_is_what_the_assets_are(history in history()) {
        let loaded = shipped();
        let program = &loaded.mappings[0].program;
        let mut world = World::default();
        for (offset, seen) in history.iter().enumerate() {
            world.map(program, record(offset, seen));
            world.merge(&loaded.collection);
        }
        // The model: the last event of each device alone, mapped afresh.
        let mut last = BTreeMap::new();
        for (offset, seen) in history.iter().enumerate() {
            last.insert(seen.device, offset);
        }
        let mut model: BTreeMap<String, Vec<Contribution>> = BTreeMap::new();
        for offset in last.into_values() {
            if let Some(said) = map(program, None, record(offset, &history[offset])).contribution {
                model.entry(said.asset_id.clone()).or_default().push(said);
            }
        }
        let standing = world.standing();
        prop_assert_eq!(standing.keys().collect::<Vec<_>>(), model.keys().collect::<Vec<_>>());
        for (asset_id, said) in &model {
            let merged = merge(&loaded.collection, said).unwrap();
            prop_assert_eq!(&standing[asset_id].fields, &merged.fields, "{}", asset_id);
        }
    }

    #[test]
    fn mapped_and_withdrawn_leaves_nothing(history in history()) {
        let loaded = shipped();
        let program = &loaded.mappings[0].program;
        let mut world = World::default();
        let gone = (0..4).map(|device| Seen { device, serial: None, status: 0, released: false });
        for (offset, seen) in history.iter().cloned().chain(gone).enumerate() {
            world.map(program, record(offset, &seen));
        }
        world.merge(&loaded.collection);
        prop_assert!(world.standing().is_empty());
        prop_assert!(world.assets.values().all(|asset| asset.contributions.is_empty() && asset.last.is_none()));
        prop_assert!(world.links.values().all(|link| link.assets.is_empty()));
    }

    #[test]
    fn replaying_any_stretch_changes_nothing(history in history(), from in 0..25usize, again in 0..25usize) {
        let loaded = shipped();
        let program = &loaded.mappings[0].program;
        let mut world = World::default();
        for (offset, seen) in history.iter().enumerate() {
            world.map(program, record(offset, seen));
        }
        world.merge(&loaded.collection);
        let (links, flat) = (world.links.clone(), world.flat.clone());
        // The map reads a stretch again up to the end, then once more a part of it: offsets were lost twice.
        for start in [from, again.max(from)] {
            for (offset, seen) in history.iter().enumerate().skip(start) {
                world.map(program, record(offset, seen));
            }
            world.merge(&loaded.collection);
        }
        prop_assert_eq!(&world.links, &links);
        prop_assert_eq!(world.flat.len(), flat.len(), "nothing is published again");
    }

    #[test]
    fn a_record_is_published_exactly_when_it_differs_and_its_version_only_grows(history in history()) {
        let loaded = shipped();
        let program = &loaded.mappings[0].program;
        let mut world = World::default();
        for (offset, seen) in history.iter().enumerate() {
            world.map(program, record(offset, seen));
        }
        world.merge(&loaded.collection);
        let mut last: BTreeMap<&str, (Option<&AssetRecord>, i64)> = BTreeMap::new();
        for (asset_id, published) in &world.flat {
            let entry = last.entry(asset_id).or_insert((None, i64::MIN));
            match published {
                Some(published) => {
                    let same = entry.0.is_some_and(|last| {
                        let sources = |record: &AssetRecord| (record.meta.org.clone(), record.meta.device_id.clone());
                        last.fields == published.fields && last.deleted == published.deleted && sources(last) == sources(published)
                    });
                    prop_assert!(!same, "the same record twice in a row");
                    prop_assert!(published.version > entry.1 || entry.0.is_none() && published.version >= entry.1);
                    *entry = (Some(published), published.version);
                }
                None => {
                    prop_assert!(entry.0.is_some_and(|last| last.deleted), "a tombstone follows a deletion");
                    entry.0 = None;
                }
            }
        }
    }

    #[test]
    fn an_asset_that_is_packed_between_any_two_records_comes_to_the_same_as_one_that_never_is(log in log()) {
        let collection = rules();
        let codec = Codec::new(1, &collection.schema.contributions_value_schema()).unwrap();
        let read = |encoded: &[u8]| collection.schema.decode_contribution(&codec, encoded);
        let none = |_: &[u8]| -> Result<AssetRecord, ()> { panic!("nothing was folded") };
        let (mut said, mut folded, mut lasts) = (Contributions::default(), Contributions::default(), Lasts::default());
        let mut asset = Asset { version: -1, ..Asset::default() };
        for (offset, (source, record)) in (0..).zip(&log) {
            // Every third is older than what is known.
            let (key, record) = contribution(*source, offset, if offset % 3 == 2 { 0 } else { offset }, record);
            // What cannot be read is a single byte.
            let value = record.as_ref().map_or(Some(vec![0]), |said| {
                said.as_ref().map(|said| collection.schema.encode_contribution(&codec, said).unwrap())
            });
            let mut unpacked = said.unpack("A", read);
            unpacked.asset.conflicts.clone_from(&asset.conflicts);
            lasts.unpack(&collection, "A", &mut unpacked.asset, none);
            let heard = unpacked.hear(key.clone(), offset, value.as_deref(), record.clone());
            prop_assert_eq!(heard, asset.hear(key.clone(), offset, record));
            prop_assert_eq!(
                unpacked.asset.conclude(&collection, "A", offset, 0),
                asset.conclude(&collection, "A", offset, 0)
            );
            said.pack("A", &unpacked);
            lasts.pack("A", &unpacked.asset);
            let key = ContributionKey { asset_id: "A".into(), source: key.0, source_key: key.1 };
            folded.fold(key, offset, value.as_deref(), read);
        }
        let (said, folded) = (said.unpack("A", read).asset, folded.unpack("A", read).asset);
        prop_assert_eq!((&said.contributions, &said.unreadable), (&asset.contributions, &asset.unreadable));
        prop_assert_eq!((&folded.contributions, &folded.unreadable), (&asset.contributions, &asset.unreadable));
    }

    #[test]
    fn a_link_is_remembered_as_it_was(links in prop::collection::vec((0..3u8, 0..3u8, any::<i64>(), 0..3usize), 0..12)) {
        let (mut plain, mut packed) = (BTreeMap::new(), Links::default());
        for (source, key, number, assets) in links {
            let link = Link {
                source: format!("s{source}"),
                source_key: "k".repeat(key.into()),
                source_partition: 7,
                source_offset: number,
                assets: (0..assets)
                    .map(|asset| LinkedAsset { asset_id: format!("A{asset}"), claimed_ms: number })
                    .collect(),
            };
            let key = link.key();
            if number % 5 == 0 {
                plain.remove(&key);
                packed.remove(&key);
            } else {
                packed.insert(&link);
                plain.insert(key.clone(), link);
            }
            prop_assert_eq!(packed.get(&key), plain.get(&key).cloned());
        }
        let all: BTreeMap<_, _> = packed.iter().map(|link| (link.key(), link)).collect();
        prop_assert_eq!(all, plain);
    }

    #[test]
    fn what_compaction_leaves_comes_to_the_same_as_the_whole_log_readable_or_not(
        log in log(),
    ) {
        let collection = rules();
        let last = |source: u8| log.iter().rposition(|(other, _)| *other == source);
        let mut whole = heard(log.iter().enumerate());
        let mut left = heard(log.iter().enumerate().filter(|(offset, (source, _))| last(*source) == Some(*offset)));
        prop_assert_eq!(&whole.contributions, &left.contributions);
        prop_assert_eq!(&whole.unreadable, &left.unreadable);
        let concluded = whole.conclude(&collection, "A", 99, 0);
        prop_assert_eq!(&concluded, &left.conclude(&collection, "A", 99, 0));
        prop_assert!(whole.unreadable.is_empty() || concluded.is_empty(), "what is held is left as it is");
    }
}
