//! The Rust type beside each file has the file's record name and fields, in its order.

use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor, value::Error},
    forward_to_deserialize_any,
};
use serde_json::Value as Json;
use windfall_schemas::{
    asset::{self, AssetKey},
    conflict::{Conflict, ConflictKey},
    contribution::ContributionKey,
    device::{DeviceKey, DeviceValue},
    envelope::{Block, Envelope, Source},
    link::{Link, LinkKey, LinkedAsset},
    notification::{Notification, NotificationKey},
    reject::RejectValue,
    scan::{ScanKey, ScanValue},
    server::{ServerKey, ServerValue},
};

use crate::samples;

/// Asks a type for its serde name and its fields, and gives it nothing.
struct Ask<'a>(&'a mut Option<(String, Vec<String>)>);

impl<'de> Deserializer<'de> for Ask<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(de::Error::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = Some((name.to_owned(), fields.iter().map(|field| (*field).to_owned()).collect()));
        Err(de::Error::custom("asked"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn of_type<T: for<'de> Deserialize<'de>>() -> (String, Vec<String>) {
    let mut answer = None;
    assert!(T::deserialize(Ask(&mut answer)).is_err());
    answer.expect("the type is a struct")
}

/// Finds the record of that full name anywhere in a schema.
fn record<'a>(schema: &'a Json, wanted: &str, namespace: &str) -> Option<&'a Json> {
    match schema {
        Json::Array(branches) => branches.iter().find_map(|branch| record(branch, wanted, namespace)),
        Json::Object(object) => {
            let namespace = object.get("namespace").and_then(Json::as_str).unwrap_or(namespace);
            let name = object.get("name").and_then(Json::as_str).unwrap_or_default();
            if object.get("type") == Some(&Json::from("record")) && format!("{namespace}.{name}") == wanted {
                return Some(schema);
            }
            object.values().find_map(|inner| record(inner, wanted, namespace))
        }
        _ => None,
    }
}

#[track_caller]
fn agrees<T: for<'de> Deserialize<'de>>(subject: &str, wanted: &str) {
    let schema: Json = serde_json::from_str(&samples::schemas()[subject]).unwrap();
    let record = record(&schema, wanted, "").unwrap_or_else(|| panic!("{subject} has no record {wanted}"));
    let fields: Vec<String> =
        record["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap().to_owned()).collect();
    let name = record["name"].as_str().unwrap().to_owned();
    assert_eq!(of_type::<T>(), (name, fields), "{subject}");
}

#[test]
fn every_type_has_the_name_and_the_fields_of_its_file() {
    agrees::<DeviceKey>("abm.devices-key", "abm.devices.Key");
    agrees::<DeviceValue>("abm.devices-value", "abm.devices.Value");
    agrees::<ServerKey>("abm.servers-key", "abm.servers.Key");
    agrees::<ServerValue>("abm.servers-value", "abm.servers.Value");
    for table in ["devices", "servers", "coverages"] {
        let subject = format!("abm.{table}-value");
        agrees::<Envelope<DeviceValue>>(&subject, &format!("abm.{table}.Envelope"));
        agrees::<Source>(&subject, "abm.connector.Source");
        agrees::<Block>(&subject, "event.block");
    }
    agrees::<ScanKey>("abm.scans-key", "abm.scans.Key");
    agrees::<ScanValue>("abm.scans-value", "abm.scans.Value");
    agrees::<RejectValue>("abm.rejects-value", "abm.rejects.Value");
    agrees::<NotificationKey>("windfall.notifications-key", "io.debezium.connector.common.NotificationKey");
    agrees::<Notification>("windfall.notifications-value", "io.debezium.connector.common.Notification");
    agrees::<AssetKey>("assets.devices-key", "assets.devices.Key");
    agrees::<LinkKey>("assets.devices.links-key", "assets.devices.links.Key");
    agrees::<Link>("assets.devices.links-value", "assets.devices.links.Value");
    agrees::<LinkedAsset>("assets.devices.links-value", "assets.devices.links.Asset");
    agrees::<ContributionKey>("assets.devices.contributions-key", "assets.devices.contributions.Key");
    agrees::<ConflictKey>("assets.devices.conflicts-key", "assets.devices.conflicts.Key");
    agrees::<Conflict>("assets.devices.conflicts-value", "assets.devices.conflicts.Value");
}

#[test]
fn source_is_word_for_word_the_same_type_in_every_change_topic() {
    let schemas = samples::schemas();
    let source = |subject: &str| {
        let schema: Json = serde_json::from_str(&schemas[subject]).unwrap();
        record(&schema, "abm.connector.Source", "").unwrap().clone()
    };
    let devices = source("abm.devices-value");
    assert_eq!(source("abm.servers-value"), devices);
    assert_eq!(source("abm.coverages-value"), devices);
}

#[test]
fn the_generator_prints_the_files_of_the_default_collection() {
    let generated = samples::schemas();
    for (subject, text) in generated.iter().filter(|(subject, _)| subject.starts_with("assets.")) {
        assert_eq!(text, &samples::read(samples::file_of(subject)), "{subject}");
    }
    assert_eq!(generated["assets.devices-key"], asset::DEVICES_KEY_SCHEMA);
    assert_eq!(generated["assets.devices-value"], asset::DEVICES_VALUE_SCHEMA);
}

#[test]
fn every_file_is_the_schema_of_a_subject() {
    let schemas = samples::schemas();
    let mut files = 0;
    for folder in ["abm", "assets", "windfall"] {
        for entry in std::fs::read_dir(samples::path(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let subject = format!("{folder}.{}", name.strip_suffix(".avsc").expect("only .avsc files"));
            assert_eq!(schemas.get(&subject), Some(&samples::read(samples::file_of(&subject))), "{subject}");
            files += 1;
        }
    }
    assert_eq!(files, schemas.len(), "a subject has no file");
}
