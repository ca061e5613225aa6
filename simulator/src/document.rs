//! JSON:API documents, whose attributes keep the order they were given.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::portrait::Attributes;

/// What a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Device,
    Server,
}

/// A resource, or what a fault made of it.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) kind: Kind,
    /// Its id as links name it.
    pub(crate) name: String,
    /// Its member `id`.
    pub(crate) id: Option<Value>,
    pub(crate) attributes: Option<Attributes>,
    pub(crate) relationships: bool,
    /// Text that stands in place of the whole resource.
    pub(crate) raw: Option<Box<RawValue>>,
}

/// What a document holds.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// Resources.
    List(Vec<Resource>),
    /// One resource.
    One(Resource),
    /// Ids of devices.
    Linkage(Vec<String>),
    /// The id of a server: one, an empty one, or null.
    ToOne(Option<String>),
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
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) data: Data,
    /// Origin of the links.
    pub(crate) base: String,
    /// Path and query of the document itself.
    pub(crate) itself: String,
    pub(crate) related: Option<String>,
    pub(crate) paging: Option<Paging>,
}

/// A document in the order of its members.
#[derive(Serialize)]
struct Written<'a> {
    data: WrittenData<'a>,
    links: Links<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Meta<'a>>,
}

#[derive(Serialize)]
struct Links<'a> {
    #[serde(rename = "self")]
    itself: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    related: Option<&'a str>,
}

#[derive(Serialize)]
struct Meta<'a> {
    paging: &'a Paging,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WrittenData<'a> {
    List(Vec<WrittenResource<'a>>),
    One(WrittenResource<'a>),
    Linkage(Vec<Identifier<'a>>),
    ToOne(Option<Identifier<'a>>),
}

#[derive(Serialize)]
struct Identifier<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WrittenResource<'a> {
    Raw(&'a RawValue),
    Whole {
        #[serde(rename = "type")]
        kind: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Value>,
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_order")]
        attributes: Option<&'a Attributes>,
        #[serde(skip_serializing_if = "Option::is_none")]
        relationships: Option<Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        links: Option<Value>,
    },
}

/// Writes attributes as a JSON object in their order.
fn in_order<S: Serializer>(attributes: &Option<&Attributes>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(attributes.iter().copied().flatten().map(|(name, value)| (name, value)))
}

impl Document {
    /// Writes the document.
    pub(crate) fn written(&self) -> String {
        let Self { data, base, itself, related, paging } = self;
        let next = paging.as_ref().and_then(|paging| paging.next.as_deref());
        let written = Written {
            data: data.written(base),
            links: Links { itself: format!("{base}{itself}"), next, related: related.as_deref() },
            meta: paging.as_ref().map(|paging| Meta { paging }),
        };
        serde_json::to_string(&written).expect("its keys are texts")
    }
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

    fn written(&self, base: &str) -> WrittenData<'_> {
        let device = |id| Identifier { kind: Kind::Device.name(), id };
        match self {
            Self::List(items) => WrittenData::List(items.iter().map(|item| item.written(base)).collect()),
            Self::One(item) => WrittenData::One(item.written(base)),
            Self::Linkage(ids) => WrittenData::Linkage(ids.iter().map(|id| device(id)).collect()),
            Self::ToOne(id) => WrittenData::ToOne(id.as_deref().map(|id| Identifier { kind: Kind::Server.name(), id })),
        }
    }
}

impl Kind {
    /// Returns Apple's name of the type.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Device => "orgDevices",
            Self::Server => "mdmServers",
        }
    }
}

impl Resource {
    fn written(&self, base: &str) -> WrittenResource<'_> {
        let Self { kind, name, id, attributes, relationships, raw } = self;
        if let Some(raw) = raw {
            return WrittenResource::Raw(raw);
        }
        let path = format!("{base}/v1/{}/{name}", kind.name());
        let link = |tail: &str| format!("{path}{tail}");
        let related = || match kind {
            Kind::Device => json!({
                "assignedServer": { "links": {
                    "self": link("/relationships/assignedServer"), "related": link("/assignedServer"),
                } },
                "appleCareCoverage": { "links": { "related": link("/appleCareCoverage") } },
            }),
            Kind::Server => json!({ "devices": { "links": { "self": link("/relationships/devices") } } }),
        };
        WrittenResource::Whole {
            kind: kind.name(),
            id: id.as_ref(),
            attributes: attributes.as_ref(),
            relationships: relationships.then(related),
            links: (*kind == Kind::Device).then(|| json!({ "self": path })),
        }
    }
}
