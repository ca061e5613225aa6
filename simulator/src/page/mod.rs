//! The documents that answer a request, and what the journal keeps of them.

mod paging;

use serde_json::{Map, Value, json};

use crate::answer::Asked;
use crate::apple_time::Millis;
use crate::cursor::Cursor;
use crate::document::{ApiKind, Data, Document, Identifier, Links, Meta, Paging, Resource};
use crate::draw::mix;
use crate::fault::{Action, spoil};
use crate::fleet::Fleet;
use crate::journal::{Keep, Response, Served, ServedAssignment, ServedLinkage, digest};
use crate::portrait::Attributes;
use crate::problem::Problem;
use crate::query::{Parameters, Route};
use crate::server::Server;
use crate::shape::spell;
use crate::world::{Now, World};

/// What the document of an answer is made from.
pub(crate) struct View<'a> {
    pub(crate) world: &'a World,
    pub(crate) org: usize,
    pub(crate) asked: &'a Asked,
    pub(crate) route: &'a Route,
    pub(crate) parameters: Parameters,
    pub(crate) cursor: Option<Cursor>,
    pub(crate) now: Now,
    pub(crate) actions: &'a [(Action, String)],
}

impl View<'_> {
    /// Makes the document.
    pub(crate) fn page(&self) -> Result<Document, Problem> {
        match self.route {
            Route::Devices => Ok(self.devices()),
            Route::Device(id) => self.device(id),
            Route::AssignedServerId(id) => self.assigned_server_id(id),
            Route::AssignedServer(id) => self.assigned_server(id),
            Route::Servers => Ok(self.servers()),
            Route::Server(id) => self.server(id),
            Route::Linkage(id) => self.linkage(id),
            Route::Token | Route::Forbidden | Route::Nowhere => Err(Problem::nowhere(&self.asked.path)),
        }
    }

    fn fleet(&self) -> &Fleet {
        &self.world.orgs[self.org].fleet
    }

    fn devices(&self) -> Document {
        let fleet = self.fleet();
        let window = self.window(fleet.ever(), |index| fleet.unit(index).listed());
        let items = window.places.iter().map(|index| self.device_resource(*index)).collect();
        self.list(Data::List(items), &window, None)
    }

    fn device(&self, id: &str) -> Result<Document, Problem> {
        let mut items = vec![self.device_resource(self.readable(id)?)];
        self.spoil_items(&mut items);
        let data = items.pop().map_or(Data::ToOne(None), Data::One);
        Ok(self.document(data, None, None))
    }

    fn assigned_server_id(&self, id: &str) -> Result<Document, Problem> {
        let index = self.readable(id)?;
        let server = |id: String| Data::ToOne(Some(Identifier { kind: ApiKind::Server, id }));
        // The empty forms that clients of the live service have met; the form follows from the device, not from the time.
        let data = match (self.linked(index), mix(self.world.config.seed, &[0xE397, u64::from(index)]) % 3) {
            (Some(found), _) => server(found.id.clone()),
            (None, 0) => server(String::new()),
            (None, 1) => Data::ToOne(None),
            (None, _) => return Err(Problem::missing("mdmServers", "")),
        };
        let related = format!("{}/v1/orgDevices/{id}/assignedServer", self.asked.base);
        Ok(self.document(data, None, Some(related)))
    }

    fn assigned_server(&self, id: &str) -> Result<Document, Problem> {
        let server = self.linked(self.readable(id)?).ok_or_else(|| Problem::missing("mdmServers", ""))?;
        Ok(self.document(Data::One(self.server_resource(server, server.brief())), None, None))
    }

    fn servers(&self) -> Document {
        let servers = self.fleet().servers();
        let window = self.window(servers.len() as u32, |place| !servers[place as usize].removed);
        let shown = window.places.iter().map(|place| &servers[*place as usize]);
        let items = shown.map(|server| self.server_resource(server, server.listed())).collect();
        self.list(Data::List(items), &window, None)
    }

    fn server(&self, id: &str) -> Result<Document, Problem> {
        let (_, server) = self.server_of(id)?;
        Ok(self.document(Data::One(self.server_resource(server, server.single())), None, None))
    }

    fn linkage(&self, id: &str) -> Result<Document, Problem> {
        let (place, _) = self.server_of(id)?;
        let fleet = self.fleet();
        let (now, lag) = (self.now.millis(), self.lag());
        let linked = |index: u32| fleet.unit(index).released.is_none() && fleet.linked(index, now, lag) == Some(place);
        let window = self.window(fleet.ever(), linked);
        let mut indexes = window.places.clone();
        for (action, _) in self.actions {
            if let Action::DoubleLink(count) = action {
                let others = (0..fleet.ever()).filter(|index| {
                    let unit = fleet.unit(*index);
                    unit.listed() && unit.server.is_some_and(|server| server != place)
                });
                indexes.extend(others.take(*count));
            }
        }
        let ids = indexes.into_iter().map(|index| Identifier { kind: ApiKind::Device, id: fleet.serial(index) });
        let related = format!("{}/v1/mdmServers/{id}/devices", self.asked.base);
        Ok(self.list(Data::Linkage(ids.collect()), &window, Some(related)))
    }

    /// Finds a device that single reads show.
    fn readable(&self, id: &str) -> Result<u32, Problem> {
        let fleet = self.fleet();
        let found = fleet.find(id).filter(|index| !fleet.unit(*index).gone);
        found.ok_or_else(|| Problem::missing("orgDevices", id))
    }

    fn server_of(&self, id: &str) -> Result<(u16, &Server), Problem> {
        let place = self.fleet().server_by_id(id).ok_or_else(|| Problem::missing("mdmServers", id))?;
        Ok((place, &self.fleet().servers()[usize::from(place)]))
    }

    fn linked(&self, index: u32) -> Option<&Server> {
        let fleet = self.fleet();
        let place = fleet.linked(index, self.now.millis(), self.lag()).filter(|_| fleet.unit(index).released.is_none());
        place.map(|place| &fleet.servers()[usize::from(place)])
    }

    fn lag(&self) -> Millis {
        let by_fault = self.actions.iter().find_map(|(action, _)| match action {
            Action::Lag(lag) => Some(*lag),
            _ => None,
        });
        by_fault.unwrap_or(self.world.config.linkage_lag).as_millis().try_into().unwrap_or(Millis::MAX)
    }

    fn spoil_items(&self, items: &mut Vec<Resource>) {
        for (action, _) in self.actions {
            if let Action::Item { fault, count, device } = action {
                spoil(items, *fault, *count, device.as_deref());
            }
        }
    }

    fn document(&self, data: Data, paging: Option<Paging>, related: Option<String>) -> Document {
        let query = self.parameters.written(self.resource_name(), self.parameters.cursor.as_deref());
        let itself = format!("{}{}{query}", self.asked.base, self.asked.path);
        let next = paging.as_ref().and_then(|paging| paging.next.clone());
        Document { data, links: Links { itself, next, related }, meta: paging.map(|paging| Meta { paging }) }
    }

    fn resource_name(&self) -> &'static str {
        match self.route {
            Route::Devices | Route::Device(_) => ApiKind::Device.name(),
            _ => ApiKind::Server.name(),
        }
    }

    fn device_resource(&self, index: u32) -> Resource {
        let salt = mix(self.world.config.seed, &[u64::from(index), self.world.answers]);
        let attributes = spell(self.fleet().attributes(index), salt);
        self.resource(ApiKind::Device, self.fleet().serial(index), attributes, &["assignedServer", "appleCareCoverage"])
    }

    fn server_resource(&self, server: &Server, attributes: Attributes) -> Resource {
        self.resource(ApiKind::Server, server.id.clone(), attributes, &["devices"])
    }

    fn resource(&self, kind: ApiKind, name: String, mut attributes: Attributes, relationships: &[&str]) -> Resource {
        let fields = self.fields();
        if let Some(fields) = fields {
            attributes.retain(|(name, _)| fields.iter().any(|field| field == name));
        }
        let related = |fields: &Vec<String>| relationships.iter().any(|name| fields.iter().any(|field| field == name));
        Resource {
            kind,
            id: Some(json!(name)),
            url: format!("{}/v1/{}/{name}", self.asked.base, kind.name()),
            name,
            attributes: Some(attributes),
            relationships: fields.is_none_or(related),
            raw: None,
        }
    }
}

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
