//! JSON:API documents, whose members and attributes keep the order that they were given.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::portrait::Attributes;

/// The type of a resource, by Apple's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum ApiKind {
    #[serde(rename = "orgDevices")]
    Device,
    #[serde(rename = "mdmServers")]
    Server,
}

/// A resource, or what a fault made of it.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) kind: ApiKind,
    /// Its id as links name it.
    pub(crate) name: String,
    /// Its member `id`.
    pub(crate) id: Option<Value>,
    pub(crate) attributes: Option<Attributes>,
    /// The URL that its links and relationships begin with.
    pub(crate) url: String,
    pub(crate) relationships: bool,
    /// Text that stands in place of the whole resource.
    pub(crate) raw: Option<Box<RawValue>>,
}

/// A resource by its type and id alone.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Identifier {
    #[serde(rename = "type")]
    pub(crate) kind: ApiKind,
    pub(crate) id: String,
}

/// What a document holds.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Data {
    /// Resources.
    List(Vec<Resource>),
    /// One resource.
    One(Resource),
    /// Devices.
    Linkage(Vec<Identifier>),
    /// A server: one, one with an empty id, or null.
    ToOne(Option<Identifier>),
}

/// The paging of a list.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Paging {
    #[serde(rename = "nextCursor", skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
    pub(crate) limit: u32,
    /// The link to the next page.
    #[serde(skip)]
    pub(crate) next: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) total: Option<i64>,
}

/// A document.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Document {
    pub(crate) data: Data,
    pub(crate) links: Links,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) meta: Option<Meta>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Links {
    #[serde(rename = "self")]
    pub(crate) itself: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) related: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Meta {
    pub(crate) paging: Paging,
}

impl Data {
    /// Returns how many items it holds.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::List(items) => items.len(),
            Self::Linkage(ids) => ids.len(),
            Self::One(_) | Self::ToOne(_) => 1,
        }
    }

    /// Keeps the first items of a list.
    pub(crate) fn truncate(&mut self, keep: usize) {
        match self {
            Self::List(items) => items.truncate(keep),
            Self::Linkage(ids) => ids.truncate(keep),
            Self::One(_) | Self::ToOne(_) => {}
        }
    }
}

impl ApiKind {
    /// Returns Apple's name of the type.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Device => "orgDevices",
            Self::Server => "mdmServers",
        }
    }
}

impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { kind, name: _, id, attributes, url, relationships, raw } = self;
        if let Some(raw) = raw {
            return raw.serialize(serializer);
        }
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry("type", kind)?;
        if let Some(id) = id {
            members.serialize_entry("id", id)?;
        }
        if let Some(attributes) = attributes {
            members.serialize_entry("attributes", &InOrder(attributes))?;
        }
        let link = |tail: &str| format!("{url}{tail}");
        let related = match kind {
            ApiKind::Device => json!({
                "assignedServer": { "links": {
                    "self": link("/relationships/assignedServer"), "related": link("/assignedServer"),
                } },
                "appleCareCoverage": { "links": { "related": link("/appleCareCoverage") } },
            }),
            ApiKind::Server => json!({ "devices": { "links": { "self": link("/relationships/devices") } } }),
        };
        if *relationships {
            members.serialize_entry("relationships", &related)?;
        }
        if *kind == ApiKind::Device {
            members.serialize_entry("links", &json!({ "self": url }))?;
        }
        members.end()
    }
}

/// Attributes as a JSON object in their order.
struct InOrder<'a>(&'a Attributes);

impl Serialize for InOrder<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}
