//! What the journal says of a page.

use serde_json::{Map, Value};

use super::{About, Page};
use crate::api::Keep;
use crate::document::{Data, Resource};
use crate::journal::{Response, Served, ServedAssignment, ServedLinkage, digest};

impl Page {
    /// Notes what the document holds.
    pub(crate) fn note(&self, mut record: Response, keep: Keep) -> Response {
        if let Some(paging) = &self.document.paging {
            record.last = Some(paging.next.is_none());
        }
        if keep == Keep::Nothing {
            return record;
        }
        match (&self.document.data, &self.about) {
            (Data::List(items), About::Servers) => {
                record.servers = items.iter().map(|item| serve(item, keep)).collect()
            }
            (Data::One(item), About::Servers) => record.servers = vec![serve(item, keep)],
            (Data::List(items), _) => record.devices = items.iter().map(|item| serve(item, keep)).collect(),
            (Data::One(item), _) => record.devices = vec![serve(item, keep)],
            (Data::Linkage(ids), About::Linkage(server)) => {
                record.linkage = Some(ServedLinkage { server_id: server.clone(), device_ids: ids.clone() });
            }
            (Data::ToOne(id), About::Assigned(device)) => {
                let server_id = id.clone().filter(|id| !id.is_empty());
                record.assigned = Some(ServedAssignment { device_id: device.clone(), server_id });
            }
            (Data::Linkage(_) | Data::ToOne(_), _) => {}
        }
        record
    }
}

fn serve(item: &Resource, keep: Keep) -> Served {
    let whole = item.raw.is_none();
    let attributes = item.attributes.as_ref().filter(|_| whole).map(|attributes| {
        let members: Map<String, Value> =
            attributes.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        Value::Object(members)
    });
    Served {
        id: item.id.as_ref().filter(|_| whole).and_then(Value::as_str).map(str::to_owned),
        digest: digest(attributes.as_ref().unwrap_or(&Value::Null)),
        attributes: attributes.filter(|_| keep == Keep::Attributes),
    }
}
