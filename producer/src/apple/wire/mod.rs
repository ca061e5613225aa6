//! Apple's documents, read with tolerance: one item that cannot be read rejects itself, never its page.
//!
//! A page is refused as a whole only when it is not the document asked for: no JSON, cut off, no list `data`.
//!
//! | reason | what was wrong with an item |
//! | --- | --- |
//! | `not_an_object` | it is no resource |
//! | `no_id` | it has no `id`, or one that cannot be a key; where it has a serial number it is named by that |
//! | `wrong_type` | it is a resource of another type |
//! | `no_attributes` | it says nothing: taking it as it is would empty a known record |
//! | `bad_attribute` | an attribute has a value that its field cannot hold |
//! | `duplicate_id` | another item of the page has the same id and says something else |
//! | `too_large` | it is larger than any event may be |

pub(crate) mod attributes;
mod paging;
mod resources;
mod values;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use windfall_schemas::device::DeviceValue;
use windfall_schemas::identifiers::DeviceId;
use windfall_schemas::server::ServerValue;

use self::attributes::{MdmServerAttributes, OrgDeviceAttributes};
use self::values::Text;
use super::{Item, Rejected};
use crate::device;

pub(crate) use paging::Next;

/// Largest item: before and after image of an event must fit into one record.
const MAX_ITEM_BYTES: usize = 96 * 1024;
/// So much of a rejected item is kept.
const MAX_RAW_BYTES: usize = 256 * 1024;
/// Apple's largest page has 1,000 items.
const MAX_ITEMS: usize = 5_000;
/// Longest message of a rejection, in characters.
const MAX_MESSAGE: usize = 500;

/// Why a document as a whole cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreadable(pub(crate) String);

/// A list document, item by item.
#[derive(Debug)]
pub(crate) struct List<T> {
    pub(crate) items: Vec<Item<T>>,
    pub(crate) rejected: Vec<Rejected>,
    pub(crate) next: Next,
    pub(crate) total: Option<u64>,
}

/// Reads a page of devices.
pub(crate) fn devices(body: &[u8], org: &str) -> Result<List<DeviceValue>, Unreadable> {
    list(body, |raw| device(raw, org), |device| &device.device_id)
}

/// Reads a page of management services.
pub(crate) fn servers(body: &[u8], org: &str) -> Result<List<ServerValue>, Unreadable> {
    list(body, |raw| server(raw, org), |server| &server.server_id)
}

/// Reads a page of a linkage list.
pub(crate) fn linkage(body: &[u8]) -> Result<List<DeviceId>, Unreadable> {
    list(body, linked, DeviceId::as_str)
}

/// Reads a document of one device.
pub(crate) fn single_device(body: &[u8], org: &str) -> Result<DeviceValue, Unreadable> {
    let document: Single<'_> = parse(body)?;
    let Some(data) = document.data else { return Err(Unreadable("its `data` is empty".to_owned())) };
    device(data.get(), org).map_err(|fault| Unreadable(format!("its device: {}", fault.message)))
}

/// Reads a to-one linkage; an empty id, `null` and no `data` all mean that there is none.
pub(crate) fn to_one(body: &[u8]) -> Result<Option<String>, Unreadable> {
    let document: Single<'_> = parse(body)?;
    let Some(data) = document.data.filter(|data| data.get() != "null") else { return Ok(None) };
    let resource: Resource<'_> = serde_json::from_str(data.get()).map_err(|error| Unreadable(error.to_string()))?;
    Ok(resource.id)
}

/// Reads Apple's error document; `None` for a body of any other kind.
pub(crate) fn error_codes(body: &[u8]) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Problem>,
    }
    #[derive(Deserialize)]
    struct Problem {
        #[serde(default)]
        code: Text,
    }
    let Errors { errors } = serde_json::from_slice(body).ok()?;
    let codes: Vec<_> = errors.into_iter().take(8).map(|Problem { code }| word(code.0.unwrap_or_default())).collect();
    (!codes.is_empty()).then_some(codes)
}

/// Apple's codes are dotted words; anything else is not repeated.
fn word(code: String) -> String {
    let sound = code.len() <= 100 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if sound { code } else { String::new() }
}

#[derive(Deserialize)]
struct Single<'a> {
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    data: Items<'a>,
    #[serde(default)]
    links: paging::Links,
    #[serde(default)]
    meta: paging::Meta,
}

/// Items as they stand; more than a page can hold are no page.
struct Items<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ItemsVisitor)
    }
}

struct ItemsVisitor;

impl<'de> Visitor<'de> for ItemsVisitor {
    type Value = Items<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list `data`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::with_capacity(1024);
        while let Some(item) = seq.next_element()? {
            if items.len() >= MAX_ITEMS {
                return Err(de::Error::custom(format_args!("more than {MAX_ITEMS} items on a page")));
            }
            items.push(item);
        }
        Ok(Items(items))
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Unreadable> {
    serde_json::from_slice(body).map_err(|error| {
        let start = body.iter().position(|byte| !byte.is_ascii_whitespace()).map_or(body, |at| &body[at..]);
        Unreadable(match start.first() {
            None => "it is empty".to_owned(),
            Some(b'<') => "it is HTML or XML, not JSON".to_owned(),
            Some(b'{') if error.is_eof() => format!("its JSON is cut off after {} bytes", body.len()),
            Some(b'{') => format!("its JSON is not the document asked for: {}", cut(&error.to_string())),
            Some(_) => "it is not a JSON document".to_owned(),
        })
    })
}

/// What is wrong with one item.
struct Fault {
    id: Option<String>,
    reason: &'static str,
    message: String,
}

impl Fault {
    fn new(id: Option<String>, reason: &'static str, message: impl Into<String>) -> Self {
        Self { id, reason, message: message.into() }
    }
}

/// Reads the items of a list. Of several with one id the first counts; an equal one is dropped, another is rejected.
fn list<T: PartialEq>(
    body: &[u8],
    read: impl Fn(&str) -> Result<T, Fault>,
    id: impl Fn(&T) -> &str,
) -> Result<List<T>, Unreadable> {
    let Document { data: Items(data), links, meta } = parse(body)?;
    let mut items: Vec<Item<T>> = Vec::with_capacity(data.len());
    let mut first: HashMap<String, usize> = HashMap::with_capacity(data.len());
    let mut rejected = Vec::new();
    for (index, raw) in data.into_iter().map(RawValue::get).enumerate() {
        let value = match read(raw) {
            Ok(value) => value,
            Err(fault) => {
                rejected.push(rejection(index, fault, raw));
                continue;
            }
        };
        match first.entry(id(&value).to_owned()) {
            Entry::Vacant(place) => {
                place.insert(items.len());
                items.push(Item { index, value });
            }
            Entry::Occupied(place) if items[*place.get()].value == value => {}
            Entry::Occupied(place) => {
                let other = items[*place.get()].index;
                let message = format!("item {other} of the page has the same id and says something else");
                let fault = Fault::new(Some(place.key().clone()), "duplicate_id", message);
                rejected.push(rejection(index, fault, raw));
            }
        }
    }
    let paging::Meta { next, total } = meta;
    Ok(List { items, rejected, next: Next::of(next, links.next), total })
}

fn rejection(index: usize, fault: Fault, raw: &str) -> Rejected {
    let Fault { id, reason, message } = fault;
    let raw = &raw.as_bytes()[..raw.len().min(MAX_RAW_BYTES)];
    Rejected { index, id, reason, message: cut(&message), raw: raw.to_vec() }
}

fn cut(message: &str) -> String {
    message.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect()
}

/// A resource: what it is, which one, and its attributes as they stand.
#[derive(Default)]
struct Resource<'a> {
    kind: Option<String>,
    id: Option<String>,
    attributes: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Resource<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ResourceVisitor)
    }
}

struct ResourceVisitor;

impl<'de> Visitor<'de> for ResourceVisitor {
    type Value = Resource<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a resource")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut resource = Resource::default();
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match name.as_ref() {
                "type" => resource.kind = map.next_value::<Text>()?.0,
                "id" if resource.id.is_some() => return Err(de::Error::duplicate_field("id")),
                "id" => resource.id = map.next_value::<Text>()?.0,
                "attributes" if resource.attributes.is_some() => return Err(de::Error::duplicate_field("attributes")),
                "attributes" => resource.attributes = Some(map.next_value()?),
                _ => drop(map.next_value::<de::IgnoredAny>()?),
            }
        }
        Ok(resource)
    }
}

/// Reads what an item is called by; the rest may still be wrong.
fn named<'a>(raw: &'a str, kind: &str) -> Result<(DeviceId, Resource<'a>), Fault> {
    if !raw.starts_with('{') {
        return Err(Fault::new(None, "not_an_object", "the item is not an object"));
    }
    let resource: Resource<'_> =
        serde_json::from_str(raw).map_err(|error| Fault::new(rough_name(raw), "bad_attribute", error.to_string()))?;
    let id = match resource.id.as_deref().map(DeviceId::parse) {
        Some(Ok(id)) if matches!(id.as_str(), "." | "..") => {
            return Err(Fault::new(Some(id.into_string()), "no_id", "its `id` cannot stand in a URL"));
        }
        Some(Ok(id)) => id,
        Some(Err(error)) => return Err(Fault::new(rough_name(raw), "no_id", error.to_string())),
        None => return Err(Fault::new(rough_name(raw), "no_id", "the item has no `id`")),
    };
    match &resource.kind {
        Some(other) if other != kind => {
            let message = format!("the item is of type `{}`, not `{kind}`", cut(other));
            Err(Fault::new(Some(id.into_string()), "wrong_type", message))
        }
        _ => Ok((id, resource)),
    }
}

/// Names an item that cannot be read: by its id, else by its serial number, if either can be made out.
fn rough_name(raw: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(raw).ok()?;
    let text = |value: &serde_json::Value| value.as_str().and_then(|text| DeviceId::parse(text).ok());
    let id = text(&value["id"]).or_else(|| text(&value["attributes"]["serialNumber"]))?;
    Some(id.into_string())
}

fn read_attributes<'a, T: Deserialize<'a>>(id: &str, raw: &str, resource: &Resource<'a>) -> Result<T, Fault> {
    let fault = |reason, message: String| Fault::new(Some(id.to_owned()), reason, message);
    if raw.len() > MAX_ITEM_BYTES {
        return Err(fault("too_large", format!("the item has {} bytes, at most {MAX_ITEM_BYTES} are read", raw.len())));
    }
    let empty =
        |text: &str| matches!(text, "null" | "[]" | "\"\"") || text.trim_matches(['{', '}', ' ', '\n']).is_empty();
    let attributes = resource.attributes.filter(|attributes| !empty(attributes.get()));
    let Some(attributes) = attributes else {
        return Err(fault("no_attributes", "the item has no attributes".to_owned()));
    };
    serde_json::from_str(attributes.get()).map_err(|error| fault("bad_attribute", error.to_string()))
}

fn device(raw: &str, org: &str) -> Result<DeviceValue, Fault> {
    let (id, resource) = named(raw, "orgDevices")?;
    let attributes: OrgDeviceAttributes = read_attributes(id.as_str(), raw, &resource)?;
    Ok(device::normalise(org, id, attributes.into()))
}

fn server(raw: &str, org: &str) -> Result<ServerValue, Fault> {
    let (id, resource) = named(raw, "mdmServers")?;
    let attributes: MdmServerAttributes = read_attributes(id.as_str(), raw, &resource)?;
    Ok(attributes.into_value(org, id.into_string()))
}

fn linked(raw: &str) -> Result<DeviceId, Fault> {
    named(raw, "orgDevices").map(|(id, _)| id)
}
