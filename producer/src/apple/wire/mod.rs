//! Apple's documents, read with tolerance: one item that cannot be read rejects itself, never its page.
//!
//! A page is refused as a whole only when it is not the document asked for: no JSON, cut off, no list `data`.
//!
//! An attribute whose value cannot be understood costs that attribute alone: the item names the field as [`Unread`], and
//! the value is kept in `unmapped` under Apple's name. Of several equal keys in one item the last counts, and half a
//! surrogate pair, or what is no UTF-8, becomes U+FFFD.
//!
//! | reason | what was wrong with an item |
//! | --- | --- |
//! | `not_an_object` | it is no resource |
//! | `no_id` | it has no `id`, or one that cannot be a key; where it has a serial number it is named by that |
//! | `wrong_type` | it is a resource of another type |
//! | `no_attributes` | it says nothing: taking it as it is would empty a known record |
//! | `duplicate_id` | another item of the page has the same id and says something else |
//! | `too_large` | it is larger than any event may be |

pub(crate) mod attributes;
mod document;
mod paging;
mod values;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use windfall_schemas::device::DeviceValue;
use windfall_schemas::identifiers::DeviceId;
use windfall_schemas::server::ServerValue;
use xxhash_rust::xxh3::xxh3_64;

use self::attributes::{Attributes, Identifier, MdmServerAttributes, Name, OrgDeviceAttributes};
use super::{Item, Rejected, Unread};

pub(crate) use paging::Next;

/// So much of a rejected item is kept.
const MAX_RAW_BYTES: usize = 256 * 1024;
/// Type of a device's resource.
const DEVICES: &str = "orgDevices";
/// Longest message of a rejection, in characters.
const MAX_MESSAGE: usize = 500;

/// Why a document as a whole cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub(crate) String);

/// A list document, item by item.
#[derive(Debug)]
pub struct List<T> {
    /// What could be read, in Apple's order.
    pub items: Vec<Item<T>>,
    /// What could not.
    pub rejected: Vec<Rejected>,
    pub(crate) next: Next,
    /// How many there are in all, where Apple says so.
    pub total: Option<u64>,
}

/// Reads a page of devices.
///
/// # Errors
/// When the body is no such document.
pub fn devices(body: &[u8], org: &str) -> Result<List<Box<DeviceValue>>, Unreadable> {
    list(body, DEVICES, |id, attributes: OrgDeviceAttributes| attributes.into_value(org, id))
}

/// Reads a page of management services.
pub(crate) fn servers(body: &[u8], org: &str) -> Result<List<ServerValue>, Unreadable> {
    list(body, "mdmServers", |id, attributes: MdmServerAttributes| attributes.into_value(org, id.into_string()))
}

/// Reads a page of a linkage list, whose items have no attributes.
pub(crate) fn linkage(body: &[u8]) -> Result<List<DeviceId>, Unreadable> {
    list(body, DEVICES, |id, _: Identifier| (id, Unread::new()))
}

/// Reads a document of one device.
pub(crate) fn single_device(body: &[u8], org: &str) -> Result<(Box<DeviceValue>, Unread), Unreadable> {
    let body = text(body);
    let Some(data) = data(&body)? else { return Err(Unreadable("its `data` is empty".to_owned())) };
    let (id, attributes) = resource::<OrgDeviceAttributes>(data.get(), DEVICES)
        .map_err(|fault| Unreadable(format!("its device: {}", fault.message)))?;
    Ok(attributes.into_value(org, id))
}

/// Reads a to-one linkage; an empty id, `null` and no `data` all mean that there is none.
pub(crate) fn to_one(body: &[u8]) -> Result<Option<String>, Unreadable> {
    let body = text(body);
    let Some(data) = data(&body)? else { return Ok(None) };
    let resource: Resource<de::IgnoredAny> =
        serde_json::from_str(data.get()).map_err(|error| Unreadable(error.to_string()))?;
    Ok(resource.id)
}

/// One problem of Apple's error document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Its code; empty where it is none.
    pub(crate) code: String,
    /// Apple's sentence, as it came: it may quote what was sent.
    pub(crate) detail: String,
    /// Whether it is about the cursor.
    pub(crate) cursor: bool,
}

/// Reads Apple's error document; `None` for a body of any other kind.
pub(crate) fn problems(body: &[u8]) -> Option<Vec<Problem>> {
    let document: serde_json::Value = serde_json::from_str(&text(body)).ok()?;
    let problems: Vec<_> = document["errors"].as_array()?.iter().take(8).map(problem).collect();
    (!problems.is_empty()).then_some(problems)
}

fn problem(error: &serde_json::Value) -> Problem {
    let member = |name: &str| error[name].as_str().unwrap_or_default();
    // Apple's codes are dotted words; anything else is not repeated.
    let word = |code: &str| code.len() <= 100 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let code = Some(member("code")).filter(|code| word(code)).unwrap_or_default();
    let detail = if member("detail").is_empty() { member("title") } else { member("detail") };
    let source = error["source"].to_string();
    let cursor = [code, detail, &source].iter().any(|text| text.to_ascii_lowercase().contains("cursor"));
    Problem { code: code.to_owned(), detail: detail.to_owned(), cursor }
}

#[derive(Deserialize)]
struct Single<'a> {
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

fn data(body: &str) -> Result<Option<&RawValue>, Unreadable> {
    let document: Single<'_> = serde_json::from_str(body).map_err(|error| unreadable(body, &error))?;
    Ok(document.data.filter(|data| data.get() != "null"))
}

/// Takes a body as text. What is no UTF-8 in it becomes U+FFFD, and so does half a surrogate pair, which JSON can write and
/// UTF-8 cannot.
fn text(body: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(body);
    let unit = |at: usize| {
        let digits = text.get(at..at + 6).and_then(|escape| escape.strip_prefix("\\u"));
        digits.and_then(|digits| u16::from_str_radix(digits, 16).ok())
    };
    let (mut halves, mut at) = (Vec::new(), 0);
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('\\')) {
        at += found;
        at += match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                halves.push(at);
                6
            }
            _ => 2,
        };
    }
    if halves.is_empty() {
        return text;
    }
    let mut text = text.into_owned();
    halves.into_iter().for_each(|at| text.replace_range(at..at + 6, "\\ufffd"));
    Cow::Owned(text)
}

/// Says what a body is that is not the document asked for.
fn unreadable(body: &str, error: &serde_json::Error) -> Unreadable {
    Unreadable(match body.trim_ascii_start().as_bytes().first() {
        None => "it is empty".to_owned(),
        Some(b'<') => "it is HTML or XML, not JSON".to_owned(),
        Some(b'{') if error.is_eof() => format!("its JSON is cut off after {} bytes", body.len()),
        Some(b'{') => format!("its JSON is not the document asked for: {}", cut(&error.to_string())),
        Some(_) => "it is not a JSON document".to_owned(),
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

/// Reads a list: at once where every item is as it should be, else item by item.
fn list<A: Attributes, T: PartialEq>(
    body: &[u8],
    kind: &str,
    make: impl Fn(DeviceId, A) -> (T, Unread),
) -> Result<List<T>, Unreadable> {
    match std::str::from_utf8(body).ok().and_then(|body| at_once(body, kind, &make)) {
        Some(list) => Ok(list),
        None => one_by_one(&text(body), kind, make),
    }
}

/// Reads a list in a single pass; `None` when there is anything wrong with it.
fn at_once<A: Attributes, T>(body: &str, kind: &str, make: impl Fn(DeviceId, A) -> (T, Unread)) -> Option<List<T>> {
    // Hashes: two ids that share one are read item by item, where they are compared.
    let mut ids: HashSet<u64> = HashSet::with_capacity(1024);
    let mut items = Vec::with_capacity(1024);
    let document::Rest { links, meta } = document::read(body, |resource: Resource<A>| {
        let (id, attributes) = identified("", kind, resource).and_then(complete).map_err(|fault| fault.reason)?;
        if !ids.insert(xxh3_64(id.as_str().as_bytes())) {
            return Err("duplicate_id");
        }
        let (value, unread) = make(id, attributes);
        items.push(Item { index: items.len(), value, unread });
        Ok(())
    })
    .ok()?;
    let paging::Meta { next, total } = meta;
    Some(List { items, rejected: Vec::new(), next: Next::of(next, links.next), total })
}

/// Reads the items of a list. Of several with one id the first counts; an equal one is dropped, another is rejected.
fn one_by_one<A: Attributes, T: PartialEq>(
    body: &str,
    kind: &str,
    make: impl Fn(DeviceId, A) -> (T, Unread),
) -> Result<List<T>, Unreadable> {
    let mut data: Vec<&RawValue> = Vec::with_capacity(1024);
    let rest = document::read(body, |raw| {
        data.push(raw);
        Ok(())
    });
    let document::Rest { links, meta } = rest.map_err(|error| unreadable(body, &error))?;
    let mut items: Vec<Item<T>> = Vec::with_capacity(data.len());
    let mut first: HashMap<DeviceId, usize> = HashMap::with_capacity(data.len());
    let mut rejected = Vec::new();
    for (index, raw) in data.into_iter().map(RawValue::get).enumerate() {
        let (id, attributes) = match resource::<A>(raw, kind) {
            Ok(read) => read,
            Err(fault) => {
                rejected.push(rejection(index, fault, raw));
                continue;
            }
        };
        let (value, unread) = make(id.clone(), attributes);
        match first.entry(id) {
            Entry::Vacant(place) => {
                place.insert(items.len());
                items.push(Item { index, value, unread });
            }
            Entry::Occupied(place) if items[*place.get()].value == value => {}
            Entry::Occupied(place) => {
                let other = items[*place.get()].index;
                let message = format!("item {other} of the page has the same id and says something else");
                let fault = Fault::new(Some(place.key().to_string()), "duplicate_id", message);
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

/// A resource: what it is, which one, and its attributes, typed or as they stand.
struct Resource<A> {
    kind: Option<String>,
    id: Option<String>,
    attributes: Option<A>,
}

impl<'de, A: Deserialize<'de>> Deserialize<'de> for Resource<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ResourceVisitor(PhantomData))
    }
}

struct ResourceVisitor<A>(PhantomData<A>);

impl<'de, A: Deserialize<'de>> Visitor<'de> for ResourceVisitor<A> {
    type Value = Resource<A>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a resource")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut resource = Resource { kind: None, id: None, attributes: None };
        while let Some(name) = map.next_key_seed(Name)? {
            match name.as_ref() {
                "type" => resource.kind = values::text(map.next_value()?).unwrap_or_default(),
                "id" => resource.id = values::text(map.next_value()?).unwrap_or_default(),
                "attributes" => resource.attributes = map.next_value()?,
                _ => drop(map.next_value::<de::IgnoredAny>()?),
            }
        }
        Ok(resource)
    }
}

/// Reads a resource and its attributes.
fn resource<A: Attributes>(raw: &str, kind: &str) -> Result<(DeviceId, A), Fault> {
    if !raw.starts_with('{') {
        return Err(Fault::new(None, "not_an_object", "the item is not an object"));
    }
    let resource: Resource<&RawValue> =
        serde_json::from_str(raw).map_err(|error| Fault::new(rough_name(raw), "no_id", error.to_string()))?;
    let (id, attributes) = identified(raw, kind, resource)?;
    let said = attributes.map(RawValue::get).filter(|text| text.starts_with('{'));
    match said.map(attributes::read).transpose() {
        Ok(attributes) => complete((id, attributes)),
        Err(error) => Err(Fault::new(Some(id.into_string()), "too_large", error.to_string())),
    }
}

/// Refuses a resource that says nothing.
fn complete<A: Attributes>((id, attributes): (DeviceId, Option<A>)) -> Result<(DeviceId, A), Fault> {
    match attributes.or_else(A::none).filter(|attributes| !attributes.empty()) {
        Some(attributes) => Ok((id, attributes)),
        None => Err(Fault::new(Some(id.into_string()), "no_attributes", "the item has no attributes")),
    }
}

fn identified<A>(raw: &str, kind: &str, resource: Resource<A>) -> Result<(DeviceId, Option<A>), Fault> {
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
        _ => Ok((id, resource.attributes)),
    }
}

/// Names an item that cannot be read: by its id, else by its serial number, if either can be made out.
fn rough_name(raw: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(raw).ok()?;
    let text = |value: &serde_json::Value| value.as_str().and_then(|text| DeviceId::parse(text).ok());
    let id = text(&value["id"]).or_else(|| text(&value["attributes"]["serialNumber"]))?;
    Some(id.into_string())
}
