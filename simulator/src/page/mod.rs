//! The documents that answer a request.

mod note;
mod paging;

use serde_json::json;

use crate::answer::Asked;
use crate::cursor::Cursor;
use crate::document::{Data, Document, Kind, Paging, Resource};
use crate::draw::mix;
use crate::fault::{Action, spoil};
use crate::fleet::Fleet;
use crate::portrait::Attributes;
use crate::problem::Problem;
use crate::query::{Parameters, Route};
use crate::server::{NO_SERVER, Server};
use crate::shape::{Setting, spell};
use crate::world::{Now, World};

/// What an answer is made from.
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

/// A document and what it is about.
pub(crate) struct Page {
    pub(crate) document: Document,
    about: About,
}

enum About {
    Devices,
    Servers,
    Linkage(String),
    Assigned(String),
}

impl View<'_> {
    /// Makes the document.
    pub(crate) fn page(&self) -> Result<Page, Problem> {
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

    fn devices(&self) -> Page {
        let fleet = self.fleet();
        let window = self.window(fleet.ever(), |index| fleet.state(index).listed);
        let items = window.places.iter().copied().map(|index| self.device_resource(index, Setting::List)).collect();
        let document = self.list(Data::List(items), &window, None);
        Page { document, about: About::Devices }
    }

    fn device(&self, id: &str) -> Result<Page, Problem> {
        let index = self.readable(id)?;
        let mut items = vec![self.device_resource(index, Setting::Single)];
        self.spoil_items(&mut items);
        let data = items.pop().map_or(Data::ToOne(None), Data::One);
        Ok(Page { document: self.document(data, None), about: About::Devices })
    }

    fn assigned_server_id(&self, id: &str) -> Result<Page, Problem> {
        let index = self.readable(id)?;
        let server = self.linked(index);
        // The empty forms that clients of the live service have met; which one is the device's, not the moment's.
        let data = match (server, mix(self.world.manner.seed, &[0xE397, u64::from(index)]) % 3) {
            (Some(server), _) => Data::ToOne(Some(server.id.clone())),
            (None, 0) => Data::ToOne(Some(String::new())),
            (None, 1) => Data::ToOne(None),
            (None, _) => return Err(Problem::missing("mdmServers", "")),
        };
        let related = format!("{}/v1/orgDevices/{id}/assignedServer", self.asked.base);
        let document = Document { related: Some(related), ..self.document(data, None) };
        Ok(Page { document, about: About::Assigned(id.to_owned()) })
    }

    fn assigned_server(&self, id: &str) -> Result<Page, Problem> {
        let index = self.readable(id)?;
        let server = self.linked(index).ok_or_else(|| Problem::missing("mdmServers", ""))?;
        let data = Data::One(self.server_resource(server, server.brief()));
        Ok(Page { document: self.document(data, None), about: About::Servers })
    }

    fn servers(&self) -> Page {
        let fleet = self.fleet();
        let server = |place: u32| &fleet.servers()[place as usize];
        let window = self.window(fleet.servers().len() as u32, |place| !server(place).removed);
        let items =
            window.places.iter().copied().map(|place| self.server_resource(server(place), server(place).listed()));
        let data = Data::List(items.collect());
        Page { document: self.list(data, &window, None), about: About::Servers }
    }

    fn server(&self, id: &str) -> Result<Page, Problem> {
        let server = self.server_of(id)?;
        let data = Data::One(self.server_resource(server, server.single()));
        Ok(Page { document: self.document(data, None), about: About::Servers })
    }

    fn linkage(&self, id: &str) -> Result<Page, Problem> {
        let server = self.server_of(id)?;
        let fleet = self.fleet();
        let (now, lag) = (self.now.millis(), self.lag());
        let place = fleet.server_by_id(&server.id).unwrap_or(NO_SERVER);
        let linked = |index: u32| !fleet.state(index).released && fleet.linked(index, now, lag) == place;
        let window = self.window(fleet.ever(), linked);
        let mut ids: Vec<String> = window.places.iter().copied().map(|index| fleet.serial(index)).collect();
        for (action, _) in self.actions {
            if let Action::DoubleLink(count) = action {
                let others = (0..fleet.ever()).filter(|index| {
                    let state = fleet.state(*index);
                    state.listed && state.server.is_some_and(|server| server != place)
                });
                ids.extend(others.take(*count).map(|index| fleet.serial(index)));
            }
        }
        let related = format!("{}/v1/mdmServers/{id}/devices", self.asked.base);
        let document = self.list(Data::Linkage(ids), &window, Some(related));
        Ok(Page { document, about: About::Linkage(id.to_owned()) })
    }

    /// Finds a device that single reads show.
    fn readable(&self, id: &str) -> Result<u32, Problem> {
        let fleet = self.fleet();
        fleet
            .find(id)
            .filter(|index| !(fleet.state(*index).released && fleet.state(*index).gone))
            .ok_or_else(|| Problem::missing("orgDevices", id))
    }

    fn server_of(&self, id: &str) -> Result<&Server, Problem> {
        let fleet = self.fleet();
        let place = fleet.server_by_id(id).ok_or_else(|| Problem::missing("mdmServers", id))?;
        Ok(&fleet.servers()[usize::from(place)])
    }

    fn linked(&self, index: u32) -> Option<&Server> {
        let fleet = self.fleet();
        if fleet.state(index).released {
            return None;
        }
        match fleet.linked(index, self.now.millis(), self.lag()) {
            NO_SERVER => None,
            place => Some(&fleet.servers()[usize::from(place)]),
        }
    }

    fn lag(&self) -> i64 {
        let by_fault = self.actions.iter().find_map(|(action, _)| match action {
            Action::Lag(lag) => i64::try_from(lag.as_millis()).ok(),
            _ => None,
        });
        by_fault.unwrap_or(self.world.manner.linkage_lag)
    }

    fn spoil_items(&self, items: &mut Vec<Resource>) {
        for (action, _) in self.actions {
            if let Action::Item { fault, count, device } = action {
                spoil(items, *fault, *count, device.as_deref());
            }
        }
    }

    fn document(&self, data: Data, paging: Option<Paging>) -> Document {
        let query = self.parameters.written(self.resource_name(), self.parameters.cursor.as_deref());
        Document {
            data,
            base: self.asked.base.clone(),
            itself: format!("{}{query}", self.asked.path),
            related: None,
            paging,
        }
    }

    fn resource_name(&self) -> &'static str {
        match self.route {
            Route::Devices | Route::Device(_) => Kind::Device.name(),
            _ => Kind::Server.name(),
        }
    }

    fn device_resource(&self, index: u32, setting: Setting) -> Resource {
        let fleet = self.fleet();
        let manner = self.world.manner;
        let salt = mix(manner.seed, &[u64::from(index), self.world.answers]);
        let name = fleet.serial(index);
        let attributes = spell(fleet.attributes(index), manner.shapes, setting, salt);
        self.resource(Kind::Device, name, attributes, &["assignedServer", "appleCareCoverage"])
    }

    fn server_resource(&self, server: &Server, attributes: Attributes) -> Resource {
        self.resource(Kind::Server, server.id.clone(), attributes, &["devices"])
    }

    fn resource(&self, kind: Kind, name: String, mut attributes: Attributes, relationships: &[&str]) -> Resource {
        let fields = self.fields();
        if let Some(fields) = fields {
            attributes.retain(|(name, _)| fields.iter().any(|field| field == name));
        }
        let related = |fields: &Vec<String>| relationships.iter().any(|name| fields.iter().any(|field| field == name));
        Resource {
            kind,
            id: Some(json!(name)),
            name,
            attributes: Some(attributes),
            relationships: fields.is_none_or(related),
            raw: None,
        }
    }
}
