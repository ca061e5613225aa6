//! One fixed record per schema, every field filled; and all current files by subject.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use windfall_schemas::{
    asset::{AssetKey, AssetMeta, AssetRecord, Collection, DEVICES_VALUE_SCHEMA, FieldType, FieldValue},
    conflict::{Conflict, ConflictKey},
    contribution::{Contribution, ContributionKey},
    device::DeviceValue,
    envelope::{Block, Channel, Envelope, Kind, Op, Snapshot, Source},
    link::{Link, LinkKey, LinkedAsset},
    notification::Notification,
    reject::RejectValue,
    scan::ScanValue,
    server::ServerValue,
    topic::{Names, SubjectSchema},
};

/// A moment in 2026 that stands in all samples.
pub(crate) const MOMENT: i64 = 1_785_900_000_123;

pub(crate) fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

pub(crate) fn texts(values: &[&str]) -> Option<Vec<String>> {
    Some(values.iter().map(|value| (*value).to_owned()).collect())
}

/// The default collection, as its file has it.
pub(crate) fn devices() -> Arc<Collection> {
    Arc::new(Collection::from_value_schema(DEVICES_VALUE_SCHEMA).unwrap())
}

/// All current schemas by subject.
pub(crate) fn schemas() -> BTreeMap<String, String> {
    let names = Names::default();
    names
        .base_schemas()
        .into_iter()
        .chain(names.collection_schemas(&devices()))
        .map(|SubjectSchema { subject, text }| (subject, text))
        // Published, and filled by no part yet.
        .chain(["abm.coverages-key", "abm.coverages-value"].map(|subject| (subject.to_owned(), read(file_of(subject)))))
        .collect()
}

/// Path below the crate's folder.
pub(crate) fn path(below: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(below)
}

/// Path of the file that a subject's current schema stands in.
pub(crate) fn file_of(subject: &str) -> PathBuf {
    let (folder, rest) = subject.split_once('.').unwrap();
    path(&format!("{folder}/{rest}.avsc"))
}

pub(crate) fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn device() -> DeviceValue {
    DeviceValue {
        org: "acme".into(),
        device_id: "SIM0000001".into(),
        serial_number: "SIM0000001".into(),
        status: text("ASSIGNED"),
        product_family: text("iPhone"),
        product_type: text("iPhone15,2"),
        device_model: text("iPhone 14 Pro"),
        device_capacity: text("256GB"),
        color: text("Größe 1"),
        part_number: text("MQ1A3LL/A"),
        order_number: text("1234567890"),
        order_date_time: Some(MOMENT - 3),
        purchase_source_type: text("APPLE"),
        purchase_source_id: text("1111"),
        added_to_org_date_time: Some(MOMENT - 2),
        released_from_org_date_time: Some(MOMENT),
        releaser_entity_type: text("USER"),
        releaser_id: text("user-1"),
        updated_date_time: Some(MOMENT - 1),
        imei: texts(&["350000000001012", "350000000001020"]),
        meid: texts(&["35000000000101"]),
        eid: text("89049032000000000000000000010154"),
        wifi_mac_address: texts(&["020000001001"]),
        bluetooth_mac_address: texts(&["020000001002"]),
        ethernet_mac_address: texts(&["020000001003", "020000001004"]),
        mdm_server_id: text("srv-1"),
        mdm_server_name: text("Jamf Cloud"),
        is_mdm_migration_capable: Some(true),
        mdm_migration_status: text("NONE"),
        mdm_migration_deadline_date_time: Some(MOMENT + 1),
        coverage_status: text("ACTIVE"),
        coverage_description: text("AppleCare+"),
        coverage_end_date_time: Some(MOMENT + 2),
        unmapped: text(r#"{"someNewAttribute":"x"}"#),
    }
}

pub(crate) fn server() -> ServerValue {
    ServerValue {
        org: "acme".into(),
        server_id: "srv-1".into(),
        server_name: text("Jamf Cloud"),
        server_type: text("MDM"),
        status: text("ACTIVE"),
        device_count: Some(12),
        enable_mdm_disown_flag: Some(false),
        default_product_families: texts(&["iPhone", "iPad"]),
        last_connected_date_time: Some(MOMENT),
        last_connected_ip: text("192.0.2.7"),
        created_date_time: Some(MOMENT - 9),
        updated_date_time: Some(MOMENT - 8),
        unmapped: text(r#"{"a":1}"#),
    }
}

pub(crate) fn source(table: &str) -> Source {
    Source {
        version: "0.1.0".into(),
        connector: "abm".into(),
        name: "windfall".into(),
        ts_ms: MOMENT,
        snapshot: Snapshot::First,
        db: "acme".into(),
        sequence: text(r#"["00000000000000000001"]"#),
        ts_us: Some(MOMENT * 1000),
        ts_ns: Some(7),
        table: table.into(),
        api: text("business"),
        api_version: text("v1"),
        scan_id: text("scan-41"),
        scan_started_ms: Some(MOMENT - 100),
        page: Some(1),
        page_index: Some(0),
        request_id: text("req-1"),
        url: text("/v1/orgDevices/SIM0000001"),
        channel: Some(Channel::Scan),
        actor_type: text("USER"),
        actor_id: text("user-1"),
        actor_name: text("Jane"),
        audit_event_id: text("audit-1"),
    }
}

pub(crate) fn envelope<V: Clone>(table: &str, value: V) -> Envelope<V> {
    Envelope {
        before: Some(value.clone()),
        after: Some(value),
        source: source(table),
        op: Op::Update,
        ts_ms: Some(MOMENT + 1),
        ts_us: Some(MOMENT * 1000 + 1),
        ts_ns: Some(9),
        transaction: Some(Block { id: "t-1".into(), total_order: 1, data_collection_order: 2 }),
        event_id: text("0123456789abcdef0123456789abcdef"),
        kind: Some(Kind::Released),
        changed: vec!["released_from_org_date_time".into(), "releaser_id".into()],
        fingerprint: text("fedcba9876543210fedcba9876543210"),
        evidence: vec!["scan 41: absent".into(), "lookup 2026-11-21T09:14:03Z: 404".into()],
    }
}

/// An envelope in which everything that may be absent is.
pub(crate) fn bare_envelope<V>(table: &str) -> Envelope<V> {
    let source = Source {
        version: "0.1.0".into(),
        connector: "abm".into(),
        name: "windfall".into(),
        db: "acme".into(),
        table: table.into(),
        ..Source::default()
    };
    Envelope {
        before: None,
        after: None,
        source,
        op: Op::Create,
        ts_ms: None,
        ts_us: None,
        ts_ns: None,
        transaction: None,
        event_id: None,
        kind: None,
        changed: vec![],
        fingerprint: None,
        evidence: vec![],
    }
}

pub(crate) fn scan() -> ScanValue {
    ScanValue {
        org: "acme".into(),
        table: "devices".into(),
        part: "seen:3".into(),
        scan_id: "scan-41".into(),
        scan_number: Some(41),
        state: text("running"),
        cursor: text("MDowOjE3"),
        page: Some(3),
        started_at: Some(MOMENT),
        updated_at: Some(MOMENT + 1),
        finished_at: Some(MOMENT + 2),
        requests: Some(5),
        devices: Some(2500),
        counts: text(r#"{"added":2}"#),
        ids: texts(&["SIM0000001", "SIM0000002"]),
        detail: text("{}"),
        plan_hash: text("abc"),
    }
}

pub(crate) fn reject() -> RejectValue {
    RejectValue {
        reject_id: "r-1".into(),
        rejected_at: MOMENT,
        stage: "decode".into(),
        reason: "no_id".into(),
        message: "the item has no id".into(),
        retriable: true,
        org: text("acme"),
        resource: text("devices"),
        resource_id: text("SIM0000001"),
        scan_id: text("scan-41"),
        page: Some(1),
        page_index: Some(2),
        url: text("/v1/orgDevices"),
        request_id: text("req-1"),
        http_status: Some(200),
        payload: Some(vec![0, 1, 0xFF]),
        content_type: text("application/json"),
        producer_version: text("0.1.0"),
        trace_id: text("trace"),
    }
}

pub(crate) fn notification() -> Notification {
    Notification {
        id: "n-1".into(),
        kind: "COMPLETED".into(),
        aggregate_type: "Initial Snapshot".into(),
        // One entry: the order of a map's entries is the writer's own.
        additional_data: Some(BTreeMap::from([("scan_id".to_owned(), "scan-41".to_owned())])),
        timestamp: MOMENT,
    }
}

pub(crate) fn link() -> Link {
    Link {
        source: "abm.devices".into(),
        source_key: "acme/SIM0000001".into(),
        source_partition: 3,
        source_offset: 17,
        assets: vec![LinkedAsset { asset_id: "SIM0000001".into(), claimed_ms: MOMENT }],
    }
}

pub(crate) fn link_key() -> LinkKey {
    link().key()
}

pub(crate) fn conflict() -> Conflict {
    Conflict {
        asset_id: "SIM0000001".into(),
        subject: "order_number".into(),
        state: "open".into(),
        held: text("\"1\""),
        candidates: text("{}"),
        seen_at: Some(MOMENT),
    }
}

pub(crate) fn conflict_key() -> ConflictKey {
    conflict().key()
}

pub(crate) fn asset_key() -> AssetKey {
    AssetKey { asset_id: "SIM0000001".into() }
}

/// A value for each field of the collection, none of them null.
pub(crate) fn field_values(collection: &Collection) -> Vec<FieldValue> {
    let value = |(place, kind): (usize, FieldType)| match kind {
        FieldType::String => FieldValue::String(format!("value {place}")),
        FieldType::Integer => FieldValue::Integer(place as i64 - 3),
        FieldType::Decimal => FieldValue::Decimal(place as f64 / 4.0),
        FieldType::Boolean => FieldValue::Boolean(place % 2 == 0),
        FieldType::Timestamp => FieldValue::Timestamp(MOMENT + place as i64),
    };
    collection.fields().iter().map(|field| field.kind).enumerate().map(value).collect()
}

pub(crate) fn asset(collection: &Collection) -> AssetRecord {
    AssetRecord {
        asset_id: "SIM0000001".into(),
        fields: field_values(collection),
        deleted: true,
        version: 18,
        meta: AssetMeta {
            op: text("u"),
            kind: text("assigned"),
            org: text("acme"),
            device_id: text("SIM0000001"),
            source_ts_ms: Some(MOMENT),
            ts_ms: Some(MOMENT + 1),
            event_id: text("e"),
            fingerprint: text("f"),
            identifier: text("serial_number"),
            mapping: text("abm-devices@1"),
            sources: text("{}"),
        },
    }
}

pub(crate) fn contribution(collection: &Collection) -> Contribution {
    Contribution {
        asset_id: "SIM0000001".into(),
        source: "abm.devices".into(),
        source_key: "acme/SIM0000001".into(),
        fields: field_values(collection),
        released: true,
        op: text("u"),
        kind: text("released"),
        org: text("acme"),
        source_ts_ms: Some(MOMENT),
        claimed_ms: Some(MOMENT - 4),
        event_id: text("e"),
        fingerprint: text("f"),
        source_partition: Some(3),
        source_offset: Some(17),
        identifier: text("serial_number"),
        mapping: text("abm-devices@1"),
    }
}

pub(crate) fn contribution_key() -> ContributionKey {
    contribution(&devices()).key()
}
