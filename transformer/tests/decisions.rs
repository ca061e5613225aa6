//! Decision tables: links, what is published of an asset, conflicts from their opening to their end.

use windfall_schemas::asset::FieldValue;
use windfall_schemas::contribution::Contribution;
use windfall_schemas::link::{Link, LinkKey, LinkedAsset};
use windfall_transformer::asset::{Asset, ContributionVerdict};
use windfall_transformer::collection::{self, CompiledCollection};
use windfall_transformer::links::{Follow, SourcePosition, follow};

fn link(offset: i64, assets: &[(&str, i64)]) -> Link {
    let assets = assets
        .iter()
        .map(|(asset_id, claimed_ms)| LinkedAsset { asset_id: (*asset_id).into(), claimed_ms: *claimed_ms });
    Link {
        source: "abm.devices".into(),
        source_key: "acme/1".into(),
        source_partition: 3,
        source_offset: offset,
        assets: assets.collect(),
    }
}

fn go(withdrawn: &[&str], claimed_ms: i64, link: Option<Link>) -> Follow {
    Follow::Go { withdrawn: withdrawn.iter().map(|asset_id| (*asset_id).to_owned()).collect(), claimed_ms, link }
}

#[test]
fn a_link_follows_its_table() {
    let key = LinkKey { source: "abm.devices".into(), source_key: "acme/1".into() };
    let at = SourcePosition { partition: 3, offset: 20 };
    let cases = [
        ("at the link's offset, as before", Some(link(20, &[("B", 5)])), Some(("B", 90)), go(&[], 5, None)),
        (
            "at the link's offset, by another program",
            Some(link(20, &[("A", 5)])),
            Some(("B", 90)),
            go(&["A"], 90, Some(link(20, &[("B", 90)]))),
        ),
        ("before the link's offset", Some(link(21, &[])), None, Follow::Seen),
        ("nothing known, nothing said", None, None, go(&[], 0, None)),
        ("an empty list, nothing said", Some(link(10, &[])), None, go(&[], 0, None)),
        ("nothing known, an asset", None, Some(("A", 90)), go(&[], 90, Some(link(20, &[("A", 90)])))),
        ("an empty list, an asset", Some(link(10, &[])), Some(("A", 90)), go(&[], 90, Some(link(20, &[("A", 90)])))),
        ("the same asset keeps its claim", Some(link(10, &[("A", 5)])), Some(("A", 90)), go(&[], 5, None)),
        ("another asset", Some(link(10, &[("A", 5)])), Some(("B", 90)), go(&["A"], 90, Some(link(20, &[("B", 90)])))),
        ("gone", Some(link(10, &[("A", 5)])), None, go(&["A"], 0, Some(link(20, &[])))),
        (
            "one of two stays with its claim",
            Some(link(10, &[("A", 5), ("B", 6)])),
            Some(("B", 90)),
            go(&["A"], 6, Some(link(20, &[("B", 6)]))),
        ),
    ];
    for (name, known, asset, wanted) in cases {
        assert_eq!(follow(&key, known.as_ref(), &at, asset), wanted, "{name}");
    }
}

#[test]
fn a_link_of_another_partition_hides_nothing() {
    let key = LinkKey { source: "abm.devices".into(), source_key: "acme/1".into() };
    let at = SourcePosition { partition: 4, offset: 0 };
    assert_eq!(follow(&key, Some(&link(20, &[("A", 5)])), &at, Some(("A", 90))), go(&[], 5, None));
}

fn things() -> CompiledCollection {
    let text = "collection: things\nfields: { serial: { type: string, unique: true }, owner: string }\nidentify_by: [serial]\nmerge: { owner: agree }\n";
    collection::parse("things.yaml", text).unwrap()
}

fn said(org: &str, offset: i64, claimed_ms: i64, owner: &str) -> Contribution {
    Contribution {
        asset_id: "A".into(),
        source: "abm.devices".into(),
        source_key: format!("{org}/1"),
        org: Some(org.into()),
        fields: vec![FieldValue::String("A".into()), FieldValue::String(owner.into())],
        source_ts_ms: Some(offset),
        claimed_ms: Some(claimed_ms),
        source_partition: Some(0),
        source_offset: Some(offset),
        ..Contribution::default()
    }
}

fn key(contribution: &Contribution) -> (String, String) {
    (contribution.source.clone(), contribution.source_key.clone())
}

#[test]
fn a_conflict_opens_once_and_ends_when_the_sources_agree() {
    let collection = things();
    let mut asset = Asset::default();
    let mut tell = |said: Contribution, cause| {
        asset.apply(key(&said), Some(said));
        asset.conclude(&collection, "A", cause, 0)
    };
    assert_eq!(tell(said("acme", 1, 1, "ann"), 1).conflicts, []);
    let opened = tell(said("globex", 2, 2, "bob"), 2);
    assert_eq!(opened.conflicts.len(), 1);
    let conflict = &opened.conflicts[0];
    assert_eq!(
        (conflict.state.as_str(), conflict.held.as_deref(), conflict.seen_at),
        ("open", Some("\"ann\""), Some(2))
    );
    assert!(conflict.candidates.as_deref().unwrap().contains("globex/1"));
    assert_eq!(tell(said("globex", 3, 2, "bob"), 3).conflicts, [], "the same disagreement is no news");
    let ended = tell(said("globex", 4, 2, "ann"), 4);
    assert_eq!(ended.conflicts.len(), 1);
    assert_eq!((ended.conflicts[0].state.as_str(), ended.conflicts[0].seen_at), ("closed", Some(4)));
    assert_eq!(tell(said("globex", 5, 2, "ann"), 5).conflicts, [], "an ended conflict stays ended");
    assert_eq!(tell(said("globex", 6, 2, "eve"), 6).conflicts.len(), 1, "and may open again");
}

#[test]
fn a_conflict_of_thousands_names_a_hundred_claims_and_among_them_each_value() {
    let collection = things();
    let mut asset = Asset::default();
    for number in 0..3_000 {
        let owner = if number == 2_999 { "bob" } else { "ann" };
        let claim = said(&format!("org{number:04}"), number, number, owner);
        asset.apply(key(&claim), Some(claim));
    }
    let conflict = asset.conclude(&collection, "A", 3_000, 0).conflicts.remove(0);
    assert_eq!((conflict.held.as_deref(), conflict.seen_at), (Some("\"ann\""), Some(2_999)));
    let candidates: Vec<serde_json::Value> = serde_json::from_str(&conflict.candidates.unwrap()).unwrap();
    assert_eq!(candidates.len(), 101);
    let keys: Vec<_> = candidates[..2].iter().map(|claim| claim["source_key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["org0000/1", "org0001/1"], "the earliest first");
    assert_eq!(candidates[99]["value"], "bob");
    assert_eq!(candidates[100], serde_json::json!({ "more": 2_900 }));
}

#[test]
fn a_conflict_ends_with_its_asset() {
    let collection = things();
    let mut asset = Asset::default();
    for said in [said("acme", 1, 1, "ann"), said("globex", 2, 2, "bob")] {
        asset.apply(key(&said), Some(said));
    }
    assert_eq!(asset.conclude(&collection, "A", 2, 0).conflicts.len(), 1);
    for org in ["acme", "globex"] {
        asset.apply(("abm.devices".into(), format!("{org}/1")), None);
    }
    let gone = asset.conclude(&collection, "A", 4, 0);
    assert_eq!(gone.conflicts[0].state, "closed");
    assert!(gone.tombstone && gone.record.unwrap().deleted);
}

#[test]
fn an_older_contribution_is_refused_and_one_of_the_same_record_counts_only_under_another_program() {
    let collection = things();
    let mut asset = Asset::default();
    let newer = said("acme", 9, 1, "ann");
    asset.apply(key(&newer), Some(newer.clone()));
    assert!(asset.conclude(&collection, "A", 1, 0).record.is_some());
    assert_eq!(asset.apply(key(&newer), Some(said("acme", 8, 1, "old"))), ContributionVerdict::Stale);
    assert_eq!(asset.apply(key(&newer), Some(newer.clone())), ContributionVerdict::Stale, "a repetition");
    assert!(asset.conclude(&collection, "A", 2, 7).is_empty());
    let by_another = |owner| Contribution { mapping: Some("things@2".into()), ..said("acme", 9, 1, owner) };
    assert_eq!(asset.apply(key(&newer), Some(by_another("ann"))), ContributionVerdict::Changed);
    assert!(asset.conclude(&collection, "A", 3, 7).is_empty(), "it says the same");
    assert_eq!(
        asset.apply(key(&newer), Some(Contribution { mapping: Some("things@3".into()), ..said("acme", 9, 1, "eve") })),
        ContributionVerdict::Changed
    );
    assert!(asset.conclude(&collection, "A", 4, 7).record.is_some());
    assert_eq!(
        asset.apply(key(&newer), Some(Contribution { mapping: Some("things@4".into()), ..said("acme", 8, 1, "old") })),
        ContributionVerdict::Stale
    );
}

#[test]
fn a_version_is_the_offset_that_caused_it_and_never_goes_back() {
    let collection = things();
    let mut asset = Asset { version: -1, ..Asset::default() };
    let mut version = |said: Contribution, cause| {
        asset.apply(key(&said), Some(said));
        asset.conclude(&collection, "A", cause, 0).record.unwrap().version
    };
    assert_eq!(version(said("acme", 1, 1, "ann"), 0), 0);
    assert_eq!(version(said("acme", 2, 1, "bob"), 40), 40);
    assert_eq!(version(said("acme", 3, 1, "eve"), 12), 41, "reconciled with an offset that is no longer the newest");
}

#[test]
fn a_tombstone_that_a_crash_left_out_is_written_alone() {
    let collection = things();
    let mut asset = Asset::default();
    let only = said("acme", 1, 1, "ann");
    asset.apply(key(&only), Some(only.clone()));
    asset.conclude(&collection, "A", 1, 0);
    asset.apply(key(&only), None);
    let deleted = asset.conclude(&collection, "A", 2, 0).record.unwrap();
    let mut asset = Asset { version: deleted.version, last: Some(deleted), ..Asset::default() };
    let conclusion = asset.conclude(&collection, "A", 3, 0);
    assert!(conclusion.tombstone && conclusion.record.is_none());
    assert!(asset.conclude(&collection, "A", 4, 0).is_empty(), "nothing is left to delete");
}
