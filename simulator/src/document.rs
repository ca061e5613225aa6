//! JSON:API documents, written by hand so that attributes keep the order they were given.

use serde_json::Value;

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
    pub(crate) raw: Option<String>,
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
#[derive(Clone, Debug, Default)]
pub(crate) struct Paging {
    pub(crate) limit: u32,
    pub(crate) cursor: Option<String>,
    /// The link to the next page.
    pub(crate) next: Option<String>,
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

impl Document {
    /// Writes the document.
    pub(crate) fn written(&self) -> String {
        let Self { data, base, itself, related, paging } = self;
        let mut out = String::with_capacity(data.weight());
        out.push_str("{\"data\":");
        data.write(base, &mut out);
        out.push_str(",\"links\":{\"self\":");
        string(&format!("{base}{itself}"), &mut out);
        let next = paging.as_ref().and_then(|paging| paging.next.as_deref());
        for (name, link) in [("next", next), ("related", related.as_deref())] {
            if let Some(link) = link {
                member(name, &mut out);
                string(link, &mut out);
            }
        }
        out.push('}');
        if let Some(paging) = paging {
            paging.write(&mut out);
        }
        out.push('}');
        out
    }
}

impl Paging {
    fn write(&self, out: &mut String) {
        let Self { limit, cursor, next: _, total } = self;
        out.push_str(",\"meta\":{\"paging\":{");
        if let Some(cursor) = cursor {
            out.push_str("\"nextCursor\":");
            string(cursor, out);
            out.push(',');
        }
        out.push_str(&format!("\"limit\":{limit}"));
        if let Some(total) = total {
            out.push_str(&format!(",\"total\":{total}"));
        }
        out.push_str("}}");
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

    fn weight(&self) -> usize {
        match self {
            Self::List(resources) => 300 + resources.len() * 1300,
            Self::Linkage(ids) => 300 + ids.len() * 50,
            Self::One(_) | Self::ToOne(_) => 2000,
        }
    }

    fn write(&self, base: &str, out: &mut String) {
        match self {
            Self::List(resources) => array(resources, out, |resource, out| resource.write(base, out)),
            Self::One(resource) => resource.write(base, out),
            Self::Linkage(ids) => array(ids, out, |id, out| identifier("orgDevices", id, out)),
            Self::ToOne(Some(id)) => identifier("mdmServers", id, out),
            Self::ToOne(None) => out.push_str("null"),
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
    fn write(&self, base: &str, out: &mut String) {
        let Self { kind, name, id, attributes, relationships, raw } = self;
        if let Some(raw) = raw {
            out.push_str(raw);
            return;
        }
        out.push_str("{\"type\":");
        string(kind.name(), out);
        if let Some(id) = id {
            member("id", out);
            out.push_str(&id.to_string());
        }
        if let Some(attributes) = attributes {
            member("attributes", out);
            object(attributes, out);
        }
        let path = format!("{base}/v1/{}/{name}", kind.name());
        if *relationships {
            member("relationships", out);
            write_relationships(*kind, &path, out);
        }
        if *kind == Kind::Device {
            out.push_str(",\"links\":{\"self\":");
            string(&path, out);
            out.push('}');
        }
        out.push('}');
    }
}

fn write_relationships(kind: Kind, path: &str, out: &mut String) {
    let link = |tail: &str, out: &mut String| string(&format!("{path}{tail}"), out);
    match kind {
        Kind::Device => {
            out.push_str("{\"assignedServer\":{\"links\":{\"self\":");
            link("/relationships/assignedServer", out);
            out.push_str(",\"related\":");
            link("/assignedServer", out);
            out.push_str("}},\"appleCareCoverage\":{\"links\":{\"related\":");
            link("/appleCareCoverage", out);
            out.push_str("}}}");
        }
        Kind::Server => {
            out.push_str("{\"devices\":{\"links\":{\"self\":");
            link("/relationships/devices", out);
            out.push_str("}}}");
        }
    }
}

/// Writes attributes as a JSON object in their order.
pub(crate) fn object(attributes: &Attributes, out: &mut String) {
    out.push('{');
    for (place, (name, value)) in attributes.iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        string(name, out);
        out.push(':');
        out.push_str(&value.to_string());
    }
    out.push('}');
}

fn array<T>(items: &[T], out: &mut String, write: impl Fn(&T, &mut String)) {
    out.push('[');
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        write(item, out);
    }
    out.push(']');
}

fn identifier(kind: &str, id: &str, out: &mut String) {
    out.push_str("{\"type\":");
    string(kind, out);
    member("id", out);
    string(id, out);
    out.push('}');
}

fn member(name: &str, out: &mut String) {
    out.push(',');
    string(name, out);
    out.push(':');
}

fn string(text: &str, out: &mut String) {
    out.push_str(&Value::from(text).to_string());
}
