//! The documents that answer a request.

use serde_json::{Map, Value, json};

use crate::answer::Asked;
use crate::api::Keep;
use crate::config::PagingStyle;
use crate::cursor::Cursor;
use crate::document::{Data, Document, Kind, Paging, Resource};
use crate::draw::mix;
use crate::fault::{Action, spoil};
use crate::fleet::Fleet;
use crate::journal::{Response, Served, ServedAssignment, ServedLinkage, digest};
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

/// Items of a list and the position behind them, when more follow.
struct Window<T> {
    items: Vec<T>,
    next: Option<u32>,
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
        let items = window.items.into_iter().map(|index| self.device_resource(index, Setting::List)).collect();
        let document = self.list(Data::List(items), window.next, None);
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
        let items = window.items.into_iter().map(|place| self.server_resource(server(place), server(place).listed()));
        let data = Data::List(items.collect());
        Page { document: self.list(data, window.next, None), about: About::Servers }
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
        let mut ids: Vec<String> = window.items.into_iter().map(|index| fleet.serial(index)).collect();
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
        let document = self.list(Data::Linkage(ids), window.next, Some(related));
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

    /// Takes the page that the request asks for out of `count` places, of which those count that `fits` names.
    fn window(&self, count: u32, fits: impl Fn(u32) -> bool) -> Window<u32> {
        let limit = self.page_size() as usize;
        let from = self.cursor.as_ref().map_or(0, |cursor| cursor.position);
        let style = self.world.manner.paging;
        let (first, skip) = match style {
            PagingStyle::Keyset => (from, 0),
            PagingStyle::Offset => (0, from as usize),
        };
        let mut items: Vec<u32> = (first..count).filter(|place| fits(*place)).skip(skip).take(limit + 1).collect();
        let beyond = (items.len() > limit).then(|| items.pop()).flatten();
        let next = beyond.map(|beyond| match style {
            PagingStyle::Keyset => self.shifted(&items, beyond, count, &fits),
            PagingStyle::Offset => (i64::from(from) + limit as i64 + self.shift()).max(0) as u32,
        });
        Window { items, next }
    }

    /// Moves the begin of the next page by as many items as faults say.
    fn shifted(&self, items: &[u32], beyond: u32, count: u32, fits: &impl Fn(u32) -> bool) -> u32 {
        let shift = self.shift();
        if shift < 0 {
            let back = items.len().saturating_sub(shift.unsigned_abs() as usize);
            return items.get(back).copied().unwrap_or(beyond);
        }
        (beyond..count).filter(|place| fits(*place)).nth(shift as usize).unwrap_or(count)
    }

    fn shift(&self) -> i64 {
        let shifts = self.actions.iter().map(|(action, _)| if let Action::Shift(by) = action { *by } else { 0 });
        shifts.sum()
    }

    /// A chain of pages keeps the page size of its first request unless another one is asked for.
    fn page_size(&self) -> u32 {
        match (&self.cursor, self.parameters.limit) {
            (Some(cursor), None) => cursor.limit,
            _ => self.parameters.page(),
        }
    }

    /// A chain of pages keeps the fields of its first request.
    fn fields(&self) -> Option<&Vec<String>> {
        match &self.cursor {
            Some(cursor) => cursor.fields.as_ref(),
            None => self.parameters.fields.as_ref(),
        }
    }

    fn list(&self, mut data: Data, next: Option<u32>, related: Option<String>) -> Document {
        let page = self.cursor.as_ref().map_or(1, |cursor| cursor.page);
        let limit = self.page_size();
        let position = self.cursor.as_ref().map_or(0, |cursor| cursor.position);
        let cursor = |position: u32| {
            Cursor {
                list: Cursor::list(self.fleet().org(), &self.asked.path),
                position,
                page: page + 1,
                issued: self.now.wall.timestamp_millis(),
                limit,
                fields: self.fields().cloned(),
            }
            .encode()
        };
        let mut paging = Paging { limit, ..Paging::default() };
        let resource = self.resource_name();
        let lead = |paging: &mut Paging, cursor: String| {
            let query = self.parameters.written(resource, Some(&cursor));
            paging.next = Some(format!("{}{}{query}", self.asked.base, self.asked.path));
            paging.cursor = Some(cursor);
        };
        if let Some(next) = next {
            lead(&mut paging, cursor(next));
        }
        for (action, _) in self.actions {
            match action {
                Action::Empty => {
                    clear(&mut data, 0);
                    (paging.next, paging.cursor) = (None, None);
                }
                Action::EmptyPage => {
                    clear(&mut data, 0);
                    lead(&mut paging, cursor(next.unwrap_or(position)));
                }
                Action::CutList(keep) => {
                    let kept = (data.len() as f64 * keep).ceil() as usize;
                    clear(&mut data, kept);
                    (paging.next, paging.cursor) = (None, None);
                }
                Action::Total(by) => paging.total = Some(i64::from(self.fleet().live()) + by),
                Action::NextTo(url) => {
                    lead(&mut paging, cursor(next.unwrap_or(position)));
                    paging.next = Some(url.clone());
                }
                Action::NextLoop => lead(&mut paging, cursor(position)),
                _ => {}
            }
        }
        if let Data::List(items) = &mut data {
            self.spoil_items(items);
        }
        Document { related, ..self.document(data, Some(paging)) }
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

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::List(items) => items.len(),
            Self::Linkage(ids) => ids.len(),
            Self::One(_) | Self::ToOne(_) => 1,
        }
    }
}

fn clear(data: &mut Data, keep: usize) {
    match data {
        Data::List(items) => items.truncate(keep),
        Data::Linkage(ids) => ids.truncate(keep),
        Data::One(_) | Data::ToOne(_) => {}
    }
}

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
