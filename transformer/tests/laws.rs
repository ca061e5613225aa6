//! Laws: what holds for every set of contributions and every history of source records.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use windfall_schemas::asset::{AssetRecord, FieldValue};
use windfall_schemas::contribution::Contribution;
use windfall_schemas::link::{Link, LinkKey};
use windfall_transformer::asset::Asset;
use windfall_transformer::collection::{self, CompiledCollection};
use windfall_transformer::contribution::{SourceRecord, map};
use windfall_transformer::event::SourceEvent;
use windfall_transformer::links::Position;
use windfall_transformer::mapping::Program;
use windfall_transformer::mapping::source::DecodedRow;
use windfall_transformer::merge::merge;
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

fn contributions() -> impl Strategy<Value = Vec<Contribution>> {
    let one = (any::<bool>(), 0..20i64, 0..20i64, any::<bool>(), prop::collection::vec(value(), 7));
    prop::collection::vec(one, 0..6).prop_map(|said| {
        said.into_iter()
            .enumerate()
            .map(|(index, (released, source_ts_ms, claimed_ms, jamf, fields))| Contribution {
                asset_id: "A".into(),
                source: if jamf { "jamf.computers".into() } else { "abm.devices".into() },
                source_key: format!("org{}/{index}", index % 2),
                released,
                source_ts_ms: Some(source_ts_ms),
                claimed_ms: Some(claimed_ms),
                fields,
                ..Contribution::default()
            })
            .collect()
    })
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
        at: Position { partition: 0, offset },
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

/// What becomes of an asset as its sources are heard one after the other: a text, a withdrawal, or what cannot be read.
fn heard<'a>(log: impl Iterator<Item = (usize, &'a (u8, Said))>) -> Asset {
    let mut asset = Asset { version: -1, ..Asset::default() };
    for (offset, (source, said)) in log {
        let offset = i64::try_from(offset).unwrap();
        let key = ("abm.devices".to_owned(), format!("acme/{source}"));
        let contribution = |owner: u8| Contribution {
            asset_id: "A".into(),
            source: key.0.clone(),
            source_key: key.1.clone(),
            fields: vec![FieldValue::String(owner.to_string()); 7],
            source_ts_ms: Some(offset),
            source_partition: Some(0),
            source_offset: Some(offset),
            ..Contribution::default()
        };
        let said = said.map(|owner| owner.map(contribution));
        let _ = asset.hear(key.clone(), offset, said);
    }
    asset
}

/// One record of `contributions`.
type Said = Result<Option<u8>, ()>;

fn shipped() -> LoadedCollection {
    load_collections(Path::new("."), &[]).unwrap().remove(0)
}

proptest! {
    #[test]
    fn merging_does_not_care_about_order(said in contributions().prop_shuffle(), sorted in Just(())) {
        let () = sorted;
        let collection = rules();
        let mut other = said.clone();
        other.sort_by(|a, b| a.source_key.cmp(&b.source_key));
        prop_assert_eq!(merge(&collection, &said), merge(&collection, &other));
        other.reverse();
        prop_assert_eq!(merge(&collection, &said), merge(&collection, &other));
    }

    #[test]
    fn merging_what_was_merged_changes_nothing(said in contributions()) {
        let collection = rules();
        let Some(merged) = merge(&collection, &said) else { return Ok(()) };
        // As if the record itself were the only thing said.
        let again = Contribution { fields: merged.fields.clone(), ..said[0].clone() };
        prop_assert_eq!(merge(&collection, [&again]).unwrap().fields, merged.fields);
    }

    #[test]
    fn a_conflict_exists_exactly_where_live_sources_disagree(said in contributions()) {
        let collection = rules();
        let position = collection.schema.position("e").unwrap();
        let live = said.iter().any(|said| !said.released);
        let mut values: Vec<String> = said
            .iter()
            .filter(|said| !said.released || !live)
            .map(|said| said.fields[position].to_string())
            .filter(|value| value != "null")
            .collect();
        values.sort();
        values.dedup();
        let conflicts = merge(&collection, &said).map_or(0, |merged| merged.conflicts.len());
        prop_assert_eq!(conflicts, usize::from(values.len() > 1));
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
    fn what_compaction_leaves_comes_to_the_same_as_the_whole_log_readable_or_not(
        log in prop::collection::vec((0..3u8, prop_oneof![
            3 => (0..3u8).prop_map(|owner| Ok(Some(owner))),
            1 => Just(Ok(None)),
            1 => Just(Err(())),
        ]), 0..12),
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
