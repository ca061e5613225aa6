//! What the journal says of a page.

use serde_json::{Map, Value};

use crate::document::{Data, Document, Resource};
use crate::journal::{Keep, Response, Served, ServedAssignment, ServedLinkage, digest};
use crate::query::Route;

/// Notes what the document that answers a request for `route` holds.
pub(crate) fn note(document: &Document, route: &Route, record: &mut Response, keep: Keep) {
    record.last = document.meta.as_ref().map(|meta| meta.paging.next.is_none());
    if keep == Keep::Nothing {
        return;
    }
    let resources = match &document.data {
        Data::List(items) => items.as_slice(),
        Data::One(item) => std::slice::from_ref(item),
        Data::Linkage(_) | Data::ToOne(_) => &[],
    };
    let served = resources.iter().map(|item| serve(item, keep)).collect();
    match (route, &document.data) {
        (Route::Linkage(server_id), Data::Linkage(devices)) => {
            let device_ids = devices.iter().map(|device| device.id.clone()).collect();
            record.linkage = Some(ServedLinkage { server_id: server_id.clone(), device_ids });
        }
        (Route::AssignedServerId(device_id), Data::ToOne(server)) => {
            let server_id = server.as_ref().map(|server| server.id.clone()).filter(|id| !id.is_empty());
            record.assigned = Some(ServedAssignment { device_id: device_id.clone(), server_id });
        }
        (Route::Devices | Route::Device(_), _) => record.devices = served,
        _ => record.servers = served,
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
