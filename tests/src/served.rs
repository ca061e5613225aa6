//! Law L1: nothing is invented. What an event says of a device stood in an answer, its server in the lists.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde_json::{Value as Json, json};
use windfall_simulator::journal::{Line, Response, Truth};

use crate::checker::{Breach, events, made, place, text, time};
use crate::image::{self, Image};
use crate::journal::{good, responses};
use crate::topics::Entry;
use crate::truth::{Walk, lives};

/// What the journal's answers showed, by what an event asks for.
struct Answers<'a> {
    by_request: HashMap<&'a str, &'a Response>,
    /// Device to the servers whose lists, or whose single read, showed it.
    places: HashMap<&'a str, Vec<(DateTime<Utc>, &'a str)>>,
    /// Server to the names it was shown by.
    names: HashMap<&'a str, Vec<(DateTime<Utc>, &'a str)>>,
    /// Every page of the list of servers and of linkage lists, served or refused.
    lists: Vec<&'a Response>,
}

impl<'a> Answers<'a> {
    fn of(journal: &'a [Line]) -> Self {
        let (mut places, mut names): (HashMap<_, Vec<_>>, HashMap<_, Vec<_>>) = (HashMap::new(), HashMap::new());
        for answer in responses(journal).filter(|answer| good(answer)) {
            let at = answer.at_wall;
            if let Some(linkage) = &answer.linkage {
                for id in &linkage.device_ids {
                    places.entry(id.as_str()).or_default().push((at, linkage.server_id.as_str()));
                }
            }
            if let Some(assigned) = &answer.assigned
                && let Some(server) = &assigned.server_id
            {
                places.entry(assigned.device_id.as_str()).or_default().push((at, server));
            }
            for server in &answer.servers {
                let name = server.attributes.as_ref().and_then(|attributes| attributes["serverName"].as_str());
                names.entry(server.id.as_deref().unwrap_or_default()).or_default().push((at, name.unwrap_or_default()));
            }
        }
        let list = |answer: &&Response| matches!(answer.route.as_str(), "servers" | "linkage");
        Self {
            by_request: responses(journal).map(|answer| (answer.request_id.as_str(), answer)).collect(),
            places,
            names,
            lists: responses(journal).filter(list).collect(),
        }
    }

    /// Whether the server of a device could not be read in a scan: its list, or the list of servers, or several claimed it.
    ///
    /// A page that was refused and then served is not missing.
    fn unknown(&self, id: &str, server: Option<&str>, from: DateTime<Utc>, by: DateTime<Utc>) -> bool {
        let inside = |at: DateTime<Utc>| from <= at && at <= by;
        let lists = || self.lists.iter().filter(|answer| inside(answer.at_wall));
        let concerns = |answer: &Response| match server {
            Some(server) => answer.route == "servers" || answer.target.contains(server),
            None => true,
        };
        let served_later = |refused: &Response| {
            lists().any(|it| good(it) && it.target == refused.target && it.at_wall > refused.at_wall)
        };
        self.claimed(id, from, by).len() > 1 || lists().any(|it| !good(it) && concerns(it) && !served_later(it))
    }
}

impl Answers<'_> {
    /// The servers whose lists, or whose single read, showed a device in a scan.
    fn claimed(&self, id: &str, from: DateTime<Utc>, by: DateTime<Utc>) -> HashSet<&str> {
        let places = self.places.get(id).into_iter().flatten();
        places.filter(|(at, _)| from <= *at && *at <= by).map(|(_, server)| *server).collect()
    }
}

fn shown_before(known: Option<&Vec<(DateTime<Utc>, &str)>>, wanted: &str, by: DateTime<Utc>) -> bool {
    known.into_iter().flatten().any(|(at, shown)| *shown == wanted && *at <= by)
}

/// L1: each after-image stood in the answer that its event names, its server in the lists before it; and a device is said to
/// change its server, or to leave it, only as it truly did, in that order and not before.
#[must_use]
pub fn nothing_invented(journal: &[Line], truth: &Truth, changes: &[Entry]) -> Vec<Breach> {
    let answers = Answers::of(journal);
    let lives = lives(journal, truth);
    let mut breaches = Vec::new();
    let mut last: HashMap<&str, Known<'_>> = HashMap::new();
    for (entry, event) in events(changes) {
        let id = text(&entry.key, "device_id");
        if !lives.contains_key(id) {
            breaches.push(format!("L1: {} never existed", place(entry)));
            continue;
        }
        let Known { before, walk, answered } =
            last.entry(id).or_insert_with(|| Known { before: &Json::Null, walk: Walk::of(&lives, id), answered: None });
        let after = &event["after"];
        if !after.is_null() {
            let facts = Facts { id, entry, event, before, after, answers: &answers };
            let found = [facts.identity(), facts.attributes(), facts.order(answered), facts.server(walk)];
            breaches.extend(found.into_iter().flatten().map(|why| format!("L1: {} {why}", place(entry))));
        }
        *before = after;
    }
    breaches
}

/// L1 for `abm.servers`: each name was served before.
#[must_use]
pub fn no_server_invented(journal: &[Line], servers: &[Entry]) -> Vec<Breach> {
    let answers = Answers::of(journal);
    let mut breaches = Vec::new();
    for (entry, event) in events(servers).filter(|(_, event)| !event["after"].is_null()) {
        let (id, name) = (text(&entry.key, "server_id"), text(&event["after"], "server_name"));
        if !shown_before(answers.names.get(id), name, made(event)) {
            breaches.push(format!("L1: {} is called `{name}`, which was never served", place(entry)));
        }
    }
    breaches
}

/// What the events of a device have said so far.
struct Known<'a> {
    before: &'a Json,
    walk: Walk<'a>,
    /// When the newest answer came that an event of it named.
    answered: Option<DateTime<Utc>>,
}

/// One event and what it is compared with.
struct Facts<'a> {
    id: &'a str,
    entry: &'a Entry,
    event: &'a Json,
    before: &'a Json,
    after: &'a Json,
    answers: &'a Answers<'a>,
}

impl Facts<'_> {
    fn at(&self) -> DateTime<Utc> {
        made(self.event)
    }

    fn scan_began(&self) -> DateTime<Utc> {
        time(&self.event["source"], "scan_started_ms")
    }

    fn identity(&self) -> Option<String> {
        let same = self.after["device_id"] == self.id && self.after["org"] == self.entry.key["org"];
        (!same).then(|| format!("is about {} of {}", self.after["device_id"], self.after["org"]))
    }

    fn attributes(&self) -> Option<String> {
        let request = text(&self.event["source"], "request_id");
        let Some(answer) = self.answers.by_request.get(request) else {
            return Some(format!("names the request `{request}`, which was never made"));
        };
        if answer.at_wall > self.at() {
            return Some("is older than the answer that it names".to_owned());
        }
        let image = image::shown(self.after);
        if answer.status == Some(404) {
            // A release that nothing shows: the last image without its status and its server, with a date.
            let (mut old, new) = (undated(image::shown(self.before)), undated(image.clone()));
            old.remove("status");
            let dated = image.contains_key("released_from_org_date_time");
            let fits = old == new && dated && !self.before.is_null();
            return (!fits).then(|| format!("is not the last image with a release date: {}", image::line(&image)));
        }
        let shown: Vec<Image> = answer
            .devices
            .iter()
            .filter(|device| device.id.as_deref() == Some(self.id))
            .filter_map(|device| device.attributes.as_ref())
            .map(|attributes| image::served(self.id, attributes))
            .collect();
        let fits = good(answer) && shown.iter().any(|shown| *shown == image || self.keeps_status(shown, &image));
        (!fits).then(|| format!("shows what its answer did not: {}, served {:?}", image::line(&image), shown.first()))
    }

    /// What was shown earlier may not come back once something later was told.
    fn order(&self, answered: &mut Option<DateTime<Utc>>) -> Option<String> {
        let answer = self.answers.by_request.get(text(&self.event["source"], "request_id"))?;
        let before = *answered;
        *answered = before.max(Some(answer.at_wall));
        (before > Some(answer.at_wall))
            .then(|| format!("goes back to an answer of {}, after one of {before:?}", answer.at_wall))
    }

    /// Whether an image differs from what was served in that the device stays assigned: where the lists were half read, or still
    /// showed it, its status and its time of update stay as they were, since no answer tells them with its server.
    fn keeps_status(&self, shown: &Image, image: &Image) -> bool {
        let mut kept = shown.clone();
        for name in ["status", "updated_date_time"] {
            match self.before.get(name).filter(|value| !value.is_null()) {
                Some(value) => kept.insert(name.to_owned(), value.clone()),
                None => kept.remove(name),
            };
        }
        let (from, by) = (self.scan_began(), self.at());
        shown.get("status") == Some(&json!("UNASSIGNED"))
            && kept == *image
            && (!self.answers.claimed(self.id, from, by).is_empty() || self.answers.unknown(self.id, None, from, by))
    }

    fn server(&self, walk: &mut Walk<'_>) -> Option<String> {
        let (old, new) = (self.before["mdm_server_id"].as_str(), self.after["mdm_server_id"].as_str());
        let at = self.at();
        if let Some(why) = self.server_name(new) {
            return Some(why);
        }
        match new {
            Some(_) if old == new => None,
            Some(id) if !shown_before(self.answers.places.get(self.id), id, at) => {
                Some(format!("is on the server {id}, which no list showed"))
            }
            Some(id) => (!walk.reach(at, |state| state.server.as_deref() == new))
                .then(|| format!("goes from the server {old:?} to {id}, which never happened")),
            None if walk.reach(at, |state| state.server.is_none()) => None,
            None if old.is_some() => Some(format!("loses its server {old:?}, which never happened")),
            // Not known yet is no change.
            None => {
                let began = self.scan_began();
                let by = |time| walk.by(time).and_then(|state| state.server.as_deref());
                let true_server = by(at);
                // The new list was read before the device came, the old one after it had gone: none of them shows it.
                let missed = by(began) != true_server && self.answers.claimed(self.id, began, at).is_empty();
                (!missed && !self.answers.unknown(self.id, true_server, began, at))
                    .then(|| format!("has no server, while the lists show it on {true_server:?}"))
            }
        }
    }

    fn server_name(&self, id: Option<&str>) -> Option<String> {
        let name = self.after["mdm_server_name"].as_str();
        let fits = match (id, name) {
            (None, None) => true,
            (Some(id), Some(name)) => shown_before(self.answers.names.get(id), name, self.at()),
            _ => false,
        };
        (!fits).then(|| format!("calls its server {id:?} {name:?}, which was never served"))
    }
}

fn undated(mut image: Image) -> Image {
    image.remove("released_from_org_date_time");
    image
}
