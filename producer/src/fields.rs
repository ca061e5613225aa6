//! The fields of a record as a table: what is compared, in which form, and in which group.

use windfall_schemas::device::DeviceValue;
use windfall_schemas::server::ServerValue;

use crate::packed::{Output, Pack};

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

/// Texts and lists as they stand; `null`, `""` and `[]` are one thing.
fn text(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|text| !text.is_empty())
}

fn list(value: &Option<Vec<String>>) -> Option<&[String]> {
    value.as_deref().filter(|list| !list.is_empty())
}

fn scalar<T: Copy>(value: &T) -> T {
    *value
}

fn required(value: &String) -> &String {
    value
}

/// A serial number, compared without its case: another spelling of it is no change.
struct Serial<'a>(&'a str);

fn serial(value: &str) -> Serial<'_> {
    Serial(value)
}

impl PartialEq for Serial<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(other.0)
    }
}

/// MAC addresses, compared by their digits.
struct Macs<'a>(&'a [String]);

fn macs(value: &Option<Vec<String>>) -> Macs<'_> {
    Macs(value.as_deref().unwrap_or_default())
}

impl PartialEq for Macs<'_> {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&String, &String)| a == b || mac_digits(a) == mac_digits(b);
        self.0.len() == other.0.len() && self.0.iter().zip(other.0).all(same)
    }
}

fn mac_digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_hexdigit).map(|c| c.to_ascii_uppercase()).collect()
}

/// A JSON object, compared by its meaning; one without entries is empty.
struct Json<'a>(Option<&'a str>);

fn json(value: &Option<String>) -> Json<'_> {
    Json(text(value).filter(|text| *text != "{}"))
}

impl PartialEq for Json<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self.0, other.0) {
            (Some(a), Some(b)) => a == b || same_json(a, b),
            (a, b) => a == b,
        }
    }
}

fn same_json(a: &str, b: &str) -> bool {
    match (serde_json::from_str::<serde_json::Value>(a), serde_json::from_str::<serde_json::Value>(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// The fields of a record, each in its group.
pub(crate) trait Fields {
    /// Lists the fields that differ from those `seen`, in name order, of the groups that `observed` accepts.
    fn differing(&self, seen: &Self, observed: impl Fn(Group) -> bool) -> Vec<&'static str>;
    /// Sets the fields that were not read, by name or by group, to what is known of them.
    fn keep(&mut self, known: &Self, unread: impl Fn(&str, Group) -> bool);
    /// Packs the fields of the groups that `wanted` accepts.
    fn pack(&self, wanted: impl Fn(Group) -> bool, out: &mut impl Output);
    /// Sets the fields of these groups to what [`Fields::pack`] has written, taken from the front of `bytes`.
    fn unpack(&mut self, wanted: impl Fn(Group) -> bool, bytes: &mut &[u8]);
}

/// Writes what is done with each field of a record. The record is taken apart by name, so that a field added to the schema
/// does not compile until someone has decided what it means.
macro_rules! fields {
    ($record:ident { $($field:ident: $group:ident by $form:ident,)+ }) => {
        impl Fields for $record {
            fn differing(&self, seen: &Self, observed: impl Fn(Group) -> bool) -> Vec<&'static str> {
                let $record { $($field),+ } = self;
                let mut differing = Vec::new();
                $(if $form($field) != $form(&seen.$field) && observed(Group::$group) {
                    differing.push(stringify!($field));
                })+
                differing
            }

            fn keep(&mut self, known: &Self, unread: impl Fn(&str, Group) -> bool) {
                $(if unread(stringify!($field), Group::$group) {
                    self.$field.clone_from(&known.$field);
                })+
            }

            fn pack(&self, wanted: impl Fn(Group) -> bool, out: &mut impl Output) {
                $(if wanted(Group::$group) {
                    self.$field.pack(out);
                })+
            }

            fn unpack(&mut self, wanted: impl Fn(Group) -> bool, bytes: &mut &[u8]) {
                $(if wanted(Group::$group) {
                    self.$field = Pack::unpack(bytes);
                })+
            }
        }
    };
}

fields! {
    DeviceValue {
        added_to_org_date_time: Attributes by scalar,
        bluetooth_mac_address: Attributes by macs,
        color: Attributes by text,
        coverage_description: Coverage by text,
        coverage_end_date_time: Coverage by scalar,
        coverage_status: Coverage by text,
        device_capacity: Attributes by text,
        device_id: Identity by required,
        device_model: Attributes by text,
        eid: Attributes by text,
        ethernet_mac_address: Attributes by macs,
        imei: Attributes by list,
        is_mdm_migration_capable: Attributes by scalar,
        mdm_migration_deadline_date_time: Attributes by scalar,
        mdm_migration_status: Attributes by text,
        mdm_server_id: Server by text,
        mdm_server_name: Server by text,
        meid: Attributes by list,
        order_date_time: Attributes by scalar,
        order_number: Attributes by text,
        org: Identity by required,
        part_number: Attributes by text,
        product_family: Attributes by text,
        product_type: Attributes by text,
        purchase_source_id: Attributes by text,
        purchase_source_type: Attributes by text,
        released_from_org_date_time: Release by scalar,
        releaser_entity_type: Release by text,
        releaser_id: Release by text,
        serial_number: Attributes by serial,
        status: Attributes by text,
        unmapped: Attributes by json,
        updated_date_time: Attributes by scalar,
        wifi_mac_address: Attributes by macs,
    }
}

fields! {
    ServerValue {
        created_date_time: Attributes by scalar,
        default_product_families: Attributes by list,
        device_count: Volatile by scalar,
        enable_mdm_disown_flag: Attributes by scalar,
        last_connected_date_time: Volatile by scalar,
        last_connected_ip: Volatile by text,
        org: Identity by required,
        server_id: Identity by required,
        server_name: Attributes by text,
        server_type: Attributes by text,
        status: Attributes by text,
        unmapped: Attributes by json,
        updated_date_time: Volatile by scalar,
    }
}
