//! Names, partitions and settings are those of the contract.

use std::collections::BTreeSet;

use windfall_schemas::topic::{
    CollectionTopics, Names, Table, TopicSpec, client_id, key_subject, min_insync_replicas, source_member,
    transactional_id, value_subject,
};

use crate::samples;

fn declared(prefix: &str) -> Vec<TopicSpec> {
    let collection =
        CollectionTopics { collection: "devices", sources: vec!["abm.devices"], sinks: vec!["assets", "lake"] };
    Names::new(prefix).declared_topics(&[collection])
}

#[test]
fn the_declared_topics_are_those_of_the_contract() {
    let lines: Vec<String> = declared("")
        .into_iter()
        .chain([Names::default().registry_topic()])
        .map(|spec| {
            let settings: Vec<String> =
                spec.settings().iter().skip(2).map(|(name, value)| format!("{name}={value}")).collect();
            format!("{} {} {}", spec.name, spec.partitions, settings.join(" "))
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn every_topic_rests_on_the_brokers_clock() {
    for spec in declared("") {
        let settings = spec.settings();
        assert!(settings.contains(&("message.timestamp.type", "LogAppendTime".to_owned())), "{}", spec.name);
        assert!(settings.contains(&("compression.type", "producer".to_owned())), "{}", spec.name);
    }
}

#[test]
fn the_prefix_stands_in_front_once() {
    let bare: Vec<String> = declared("").into_iter().map(|spec| spec.name).collect();
    let prefixed: Vec<String> = declared("apple.").into_iter().map(|spec| spec.name).collect();
    let expected: Vec<String> = bare.iter().map(|name| format!("apple.{name}")).collect();
    assert_eq!(prefixed, expected);
    let names = Names::new("apple.");
    assert_eq!(names.bare("apple.abm.devices"), Some("abm.devices"));
    assert_eq!(names.bare("abm.devices"), None);
}

#[test]
fn no_two_topics_differ_by_dot_and_underscore_alone() {
    let mut folded: Vec<String> = declared("").iter().map(|spec| spec.name.replace('.', "_")).collect();
    folded.push(Names::default().registry().replace('.', "_"));
    let count = folded.len();
    folded.sort();
    folded.dedup();
    assert_eq!(folded.len(), count);
}

#[test]
fn groups_and_ids_are_those_of_the_contract() {
    let names = Names::new("apple.");
    assert_eq!(names.map_group("devices"), "apple.windfall-map-devices");
    assert_eq!(names.merge_group("devices"), "apple.windfall-merge-devices");
    assert_eq!(names.sink_group("assets"), "apple.windfall-sink-assets");
    assert_eq!(names.producer_group("acme"), "apple.windfall-producer-acme");
    assert_eq!(transactional_id(&names.map_group("devices"), "i1"), "apple.windfall-map-devices-i1");
    assert_eq!(transactional_id(&names.merge_group("devices"), "i1"), "apple.windfall-merge-devices-i1");
    assert_eq!(client_id("map", "i1"), "windfall-map-i1");
    assert_eq!(
        names.dead_letters(&names.assets("devices"), &names.sink_group("assets")),
        "apple.assets.devices.windfall-sink-assets.dlq"
    );
}

#[test]
fn the_source_is_named_by_the_prefix_without_its_dot() {
    assert_eq!(Names::default().source_name(), "windfall");
    assert_eq!(Names::new("apple.").source_name(), "apple");
    assert_eq!(Names::new("apple-").source_name(), "apple-");
}

#[test]
fn subjects_are_topics_with_what_the_schema_is_for() {
    assert_eq!(key_subject("abm.devices"), "abm.devices-key");
    assert_eq!(value_subject("abm.devices"), "abm.devices-value");
    let prefixed = Names::new("apple.").collection_schemas(&samples::devices());
    assert!(prefixed.iter().all(|schema| schema.subject.starts_with("apple.assets.devices")));
    // The prefix never stands in a schema: one text serves all.
    assert!(prefixed.iter().all(|schema| !schema.text.contains("apple.")));
}

#[test]
fn a_table_is_found_by_its_topic() {
    for table in Table::ALL {
        assert_eq!(Table::from_topic(table.topic), Some(table));
    }
    assert_eq!(Table::from_topic("jamf.computers"), None);
}

#[test]
fn one_replica_may_be_away() {
    assert_eq!([1, 2, 3, 5].map(min_insync_replicas), [1, 1, 2, 4]);
}

#[test]
fn the_order_of_members_differs_from_source_to_source() {
    let first = |source: &str| {
        let members = ["a", "b", "c"].map(|instance| source_member(source, instance));
        members.into_iter().min().unwrap()
    };
    let firsts: BTreeSet<String> = (0..20).map(|number| first(&format!("org-{number}")).split_off(9)).collect();
    assert_eq!(firsts.into_iter().collect::<Vec<_>>(), ["a", "b", "c"], "each is first for some source");
    assert_eq!(source_member("acme", "host-1.example"), source_member("acme", "host-1.example"));
    assert!(source_member("acme", "host-1.example").ends_with("-host-1.example"));
}
