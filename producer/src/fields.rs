//! The fields of a record as a table: what is compared, and in which group.
//!
//! The tables are written by taking the record apart by name, so that a field added to the schema does not compile
//! until someone has decided what it means.

use windfall_schemas::device::DeviceValue;
use windfall_schemas::server::ServerValue;

/// The group of fields that one answer of Apple's shows together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// What the key says; never compared.
    Identity,
    /// What the list and the single read both give.
    Attributes,
    /// The management service, by the linkage lists.
    Server,
    /// Date and author of the release; being listed shows them as empty.
    Release,
    /// The cover that ends last.
    Coverage,
    /// Shown by Apple, kept, and never a reason for an event.
    Volatile,
}

/// A field's value in the form in which it is compared.
///
/// `null`, `""` and `[]` are one thing. Texts and lists are compared as they stand, MAC addresses as twelve upper-case
/// digits, JSON by its meaning.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Field<'a> {
    Empty,
    Text(&'a str),
    List(&'a [String]),
    Macs(&'a [String]),
    Number(i64),
    Flag(bool),
    Json(&'a str),
}

impl PartialEq for Field<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Field::Empty, Field::Empty) => true,
            (Field::Text(a), Field::Text(b)) => a == b,
            (Field::List(a), Field::List(b)) => a == b,
            (Field::Macs(a), Field::Macs(b)) => a == b || same_macs(a, b),
            (Field::Number(a), Field::Number(b)) => a == b,
            (Field::Flag(a), Field::Flag(b)) => a == b,
            (Field::Json(a), Field::Json(b)) => a == b || same_json(a, b),
            _ => false,
        }
    }
}

fn same_macs(a: &[String], b: &[String]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| mac_digits(a) == mac_digits(b))
}

fn mac_digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_hexdigit).map(|c| c.to_ascii_uppercase()).collect()
}

fn same_json(a: &str, b: &str) -> bool {
    match (serde_json::from_str::<serde_json::Value>(a), serde_json::from_str::<serde_json::Value>(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

fn text(value: &Option<String>) -> Field<'_> {
    value.as_deref().filter(|text| !text.is_empty()).map_or(Field::Empty, Field::Text)
}

fn list(value: &Option<Vec<String>>) -> Field<'_> {
    value.as_deref().filter(|list| !list.is_empty()).map_or(Field::Empty, Field::List)
}

fn macs(value: &Option<Vec<String>>) -> Field<'_> {
    value.as_deref().filter(|list| !list.is_empty()).map_or(Field::Empty, Field::Macs)
}

fn number(value: Option<i64>) -> Field<'static> {
    value.map_or(Field::Empty, Field::Number)
}

fn flag(value: Option<bool>) -> Field<'static> {
    value.map_or(Field::Empty, Field::Flag)
}

fn json(value: &Option<String>) -> Field<'_> {
    value.as_deref().filter(|text| !text.is_empty() && *text != "{}").map_or(Field::Empty, Field::Json)
}

/// A row of a field table.
pub(crate) type Row<'a> = (&'static str, Group, Field<'a>);

/// Number of fields of a device, its key included.
pub(crate) const DEVICE_FIELDS: usize = 34;

/// Lists the fields of a device in name order.
pub(crate) fn of_device(value: &DeviceValue) -> [Row<'_>; DEVICE_FIELDS] {
    use Group::{Attributes, Coverage, Identity, Release, Server};
    let DeviceValue {
        org,
        device_id,
        serial_number,
        status,
        product_family,
        product_type,
        device_model,
        device_capacity,
        color,
        part_number,
        order_number,
        order_date_time,
        purchase_source_type,
        purchase_source_id,
        added_to_org_date_time,
        released_from_org_date_time,
        releaser_entity_type,
        releaser_id,
        updated_date_time,
        imei,
        meid,
        eid,
        wifi_mac_address,
        bluetooth_mac_address,
        ethernet_mac_address,
        mdm_server_id,
        mdm_server_name,
        is_mdm_migration_capable,
        mdm_migration_status,
        mdm_migration_deadline_date_time,
        coverage_status,
        coverage_description,
        coverage_end_date_time,
        unmapped,
    } = value;
    [
        ("added_to_org_date_time", Attributes, number(*added_to_org_date_time)),
        ("bluetooth_mac_address", Attributes, macs(bluetooth_mac_address)),
        ("color", Attributes, text(color)),
        ("coverage_description", Coverage, text(coverage_description)),
        ("coverage_end_date_time", Coverage, number(*coverage_end_date_time)),
        ("coverage_status", Coverage, text(coverage_status)),
        ("device_capacity", Attributes, text(device_capacity)),
        ("device_id", Identity, Field::Text(device_id)),
        ("device_model", Attributes, text(device_model)),
        ("eid", Attributes, text(eid)),
        ("ethernet_mac_address", Attributes, macs(ethernet_mac_address)),
        ("imei", Attributes, list(imei)),
        ("is_mdm_migration_capable", Attributes, flag(*is_mdm_migration_capable)),
        ("mdm_migration_deadline_date_time", Attributes, number(*mdm_migration_deadline_date_time)),
        ("mdm_migration_status", Attributes, text(mdm_migration_status)),
        ("mdm_server_id", Server, text(mdm_server_id)),
        ("mdm_server_name", Server, text(mdm_server_name)),
        ("meid", Attributes, list(meid)),
        ("order_date_time", Attributes, number(*order_date_time)),
        ("order_number", Attributes, text(order_number)),
        ("org", Identity, Field::Text(org)),
        ("part_number", Attributes, text(part_number)),
        ("product_family", Attributes, text(product_family)),
        ("product_type", Attributes, text(product_type)),
        ("purchase_source_id", Attributes, text(purchase_source_id)),
        ("purchase_source_type", Attributes, text(purchase_source_type)),
        ("released_from_org_date_time", Release, number(*released_from_org_date_time)),
        ("releaser_entity_type", Release, text(releaser_entity_type)),
        ("releaser_id", Release, text(releaser_id)),
        ("serial_number", Attributes, Field::Text(serial_number)),
        ("status", Attributes, text(status)),
        ("unmapped", Attributes, json(unmapped)),
        ("updated_date_time", Attributes, number(*updated_date_time)),
        ("wifi_mac_address", Attributes, macs(wifi_mac_address)),
    ]
}

/// Number of fields of a server, its key included.
pub(crate) const SERVER_FIELDS: usize = 13;

/// Lists the fields of a server in name order.
pub(crate) fn of_server(value: &ServerValue) -> [Row<'_>; SERVER_FIELDS] {
    use Group::{Attributes, Identity, Volatile};
    let ServerValue {
        org,
        server_id,
        server_name,
        server_type,
        status,
        device_count,
        enable_mdm_disown_flag,
        default_product_families,
        last_connected_date_time,
        last_connected_ip,
        created_date_time,
        updated_date_time,
        unmapped,
    } = value;
    [
        ("created_date_time", Attributes, number(*created_date_time)),
        ("default_product_families", Attributes, list(default_product_families)),
        ("device_count", Volatile, number(*device_count)),
        ("enable_mdm_disown_flag", Attributes, flag(*enable_mdm_disown_flag)),
        ("last_connected_date_time", Volatile, number(*last_connected_date_time)),
        ("last_connected_ip", Volatile, text(last_connected_ip)),
        ("org", Identity, Field::Text(org)),
        ("server_id", Identity, Field::Text(server_id)),
        ("server_name", Attributes, text(server_name)),
        ("server_type", Attributes, text(server_type)),
        ("status", Attributes, text(status)),
        ("unmapped", Attributes, json(unmapped)),
        ("updated_date_time", Attributes, number(*updated_date_time)),
    ]
}

/// Names the fields that differ, in name order, of the groups that `observed` accepts.
pub(crate) fn differing(known: &[Row<'_>], seen: &[Row<'_>], observed: impl Fn(Group) -> bool) -> Vec<&'static str> {
    known
        .iter()
        .zip(seen)
        .filter(|((_, group, known), (_, _, seen))| observed(*group) && known != seen)
        .map(|((name, ..), _)| *name)
        .collect()
}
