//! What Apple's API answers: a pure function of the world, the request and the time.

use std::collections::HashMap;

use crate::answer::{Answer, Asked, Delivery, http_date};
use crate::apple_time;
use crate::credentials;
use crate::cursor::Cursor;
use crate::fault::{Action, Match, RetryAfter};
use crate::journal::{Keep, Response};
use crate::page;
use crate::problem::Problem;
use crate::query::{Parameters, Route, pairs};
use crate::spoil::spoil;
use crate::world::{Now, Org, World};

impl World {
    /// Answers a request at one moment of the two times.
    pub(crate) fn answer(&mut self, asked: &Asked, now: Now, keep: Keep) -> Answer {
        self.answers += 1;
        let route = Route::of(&asked.method, &asked.path);
        let record = self.record(asked, &route, now);
        let request_id = record.request_id.clone();
        let mut answer = match route {
            Route::Token => self.token(asked, now, record),
            _ => self.resource(asked, &route, now, record, keep),
        };
        self.head(&mut answer, &request_id, now);
        answer
    }

    fn record(&mut self, asked: &Asked, route: &Route, now: Now) -> Response {
        let query = if route == &Route::Token || asked.query.is_empty() {
            // A token request may carry its assertion here.
            String::new()
        } else {
            format!("?{}", asked.query)
        };
        Response {
            at_wall: now.wall,
            at: now.life,
            request_id: credentials::uuid(&mut self.ids),
            method: asked.method.clone(),
            target: format!("{}{query}", asked.path),
            route: route.name().to_owned(),
            ..Response::default()
        }
    }

    fn head(&mut self, answer: &mut Answer, request_id: &str, now: Now) {
        let date = apple_time::later(now.wall, answer.date_error);
        let correlation: String =
            (0..26).map(|_| char::from(*self.ids.pick(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))).collect();
        answer.headers.extend([
            ("date", http_date(date)),
            ("server", "Apple".to_owned()),
            ("strict-transport-security", "max-age=31536000; includeSubDomains".to_owned()),
            ("x-apple-request-uuid", request_id.to_owned()),
            ("x-apple-jingle-correlation-key", correlation),
            ("x-responding-instance", "windfall-simulator:1".to_owned()),
        ]);
    }

    fn token(&mut self, asked: &Asked, now: Now, mut record: Response) -> Answer {
        let parameters: HashMap<String, String> = pairs(&asked.query).chain(pairs(&asked.form)).collect();
        let org = parameters.get("client_id").and_then(|id| self.tokens.org_of(id));
        record.org = org.map(|number| self.orgs[number].fleet.org().to_owned());
        let request =
            Match { route: "token", path: &asked.path, org: record.org.as_deref(), page: None, cursor: false };
        let actions = self.faults.take(request);
        record.faults = actions.iter().map(|(_, text)| text.clone()).collect();
        record.admitted = true;
        if let Some(instead) = self.instead(&actions, org, now, &record) {
            return instead;
        }
        let grant = self.tokens.grant(&parameters, now.wall);
        record.reason = grant.reason;
        record.admitted = grant.status != 429;
        let mut answer = Answer::json(grant.status, grant.body.to_string(), record);
        if let Some(seconds) = grant.retry_after {
            answer = answer.retry_after(&RetryAfter::Seconds(seconds), now.wall);
        }
        finish(&mut answer, &actions);
        answer
    }

    fn resource(&mut self, asked: &Asked, route: &Route, now: Now, mut record: Response, keep: Keep) -> Answer {
        let org = match self.admit(asked, route, now, &mut record) {
            Ok(org) => org,
            Err(problem) => return refused(&problem, record, now),
        };
        let asked_for = Parameters::read(route, &asked.query).and_then(|parameters| {
            let cursor = self.cursor(org, &asked.path, &parameters, now)?;
            Ok((parameters, cursor))
        });
        let list = matches!(route, Route::Devices | Route::Servers | Route::Linkage(_));
        if list {
            let cursor = asked_for.as_ref().ok().and_then(|(_, cursor)| cursor.as_ref());
            record.page = Some(cursor.map_or(1, |cursor| cursor.page));
        }
        let request = Match {
            route: route.name(),
            path: &asked.path,
            org: record.org.as_deref(),
            page: record.page,
            cursor: asked.query.contains("cursor="),
        };
        let actions = self.faults.take(request);
        record.faults = actions.iter().map(|(_, text)| text.clone()).collect();
        if let Some(instead) = self.instead(&actions, Some(org), now, &record) {
            return instead;
        }
        let page = asked_for.and_then(|(parameters, cursor)| {
            page::View { world: self, org, asked, route, parameters, cursor, now, actions: &actions }.page()
        });
        match page {
            Ok(document) => {
                page::note(&document, route, &mut record, keep);
                let body = serde_json::to_vec(&document).unwrap_or_default();
                let mut answer = Answer::json(200, body, record);
                spoil(&mut answer, &actions);
                finish(&mut answer, &actions);
                answer
            }
            Err(problem) => refused(&problem, record, now),
        }
    }

    /// Lets a request in: its form, its token, the rate limit. Returns the number of the organization.
    fn admit(&mut self, asked: &Asked, route: &Route, now: Now, record: &mut Response) -> Result<usize, Problem> {
        if *route == Route::Nowhere {
            return Err(Problem::nowhere(&asked.path));
        }
        if !asked.accept.as_deref().is_some_and(|accept| accept.contains("application/json") || accept.contains("*/*"))
        {
            return Err(Problem::not_acceptable());
        }
        let token = asked.authorization.as_deref().and_then(|text| text.strip_prefix("Bearer "));
        let token = token.ok_or_else(|| Problem::unauthorized("The access token is missing"))?;
        let org = self.tokens.holder(token, now.wall).map_err(Problem::unauthorized)?;
        record.org = Some(self.orgs[org].fleet.org().to_owned());
        if let Some(limiter) = &mut self.orgs[org].limiter {
            limiter.admit(now.wall).map_err(|seconds| Problem::limited(Some(seconds)))?;
        }
        record.admitted = true;
        if *route == Route::Forbidden {
            let detail = format!("The resource '{}' does not allow '{}'", asked.path, asked.method);
            return Err(Problem::forbidden(detail));
        }
        if self.config.school && matches!(route, Route::Server(_)) {
            return Err(Problem::forbidden("The resource 'mdmServers' does not allow 'GET_INSTANCE'"));
        }
        Ok(org)
    }

    fn cursor(&self, org: usize, path: &str, asked: &Parameters, now: Now) -> Result<Option<Cursor>, Problem> {
        let Some(text) = &asked.cursor else { return Ok(None) };
        let Org { fleet, cursors_from, .. } = &self.orgs[org];
        Cursor::decode(text)
            .filter(|cursor| cursor.list == Cursor::list(fleet.org(), path))
            .filter(|cursor| cursor.lives(now.wall, self.config.cursor_ttl, *cursors_from))
            .map(Some)
            .ok_or_else(|| bad_cursor(400))
    }

    /// Returns what a fault answers instead.
    fn instead(
        &mut self,
        actions: &[(Action, String)],
        org: Option<usize>,
        now: Now,
        record: &Response,
    ) -> Option<Answer> {
        let record = record.clone();
        let mut answer = actions.iter().find_map(|(action, _)| match action {
            Action::Status { status, retry_after, html } => {
                let answer = if *html {
                    Answer::html(*status, record.clone())
                } else {
                    refused(&Problem::of_status(*status), record.clone(), now)
                };
                Some(answer.retry_after(retry_after, now.wall))
            }
            Action::Revoke => {
                if let Some(org) = org {
                    self.tokens.revoke(org);
                }
                Some(refused(&Problem::of_status(401), record.clone(), now))
            }
            Action::BadCursor(status) => Some(refused(&bad_cursor(*status), record.clone(), now)),
            Action::Html => Some(Answer::html(200, record.clone())),
            Action::Reset(None) => Some(broken(Delivery::Reset(None), record.clone())),
            Action::Hang => Some(broken(Delivery::Hang, record.clone())),
            _ => None,
        })?;
        if record.route == "token" && answer.headers[0].1 == "application/json" {
            answer.body = br#"{"error":"invalid_client"}"#.to_vec();
        }
        finish(&mut answer, actions);
        Some(answer)
    }
}

fn bad_cursor(status: u16) -> Problem {
    Problem { status, ..Problem::parameter("cursor", "The cursor is not valid or has expired") }
}

fn refused(problem: &Problem, record: Response, now: Now) -> Answer {
    let document = problem.document(&record.request_id).to_string();
    let record = Response { reason: Some(problem.detail.clone()), ..record };
    let answer = Answer::json(problem.status, document, record);
    match problem.retry_after {
        Some(seconds) => answer.retry_after(&RetryAfter::Seconds(seconds), now.wall),
        None => answer,
    }
}

fn broken(delivery: Delivery, record: Response) -> Answer {
    let mut answer = Answer::json(200, Vec::new(), record);
    answer.record.status = None;
    answer.record.readable = false;
    answer.delivery = delivery;
    answer
}

/// Lets faults play that change how an answer leaves.
fn finish(answer: &mut Answer, actions: &[(Action, String)]) {
    for (action, _) in actions {
        match action {
            Action::Delay(delay) => answer.delay = Some(*delay),
            Action::Drip(bytes) => answer.delivery = Delivery::Drip((*bytes).max(1)),
            Action::Reset(Some(share)) => {
                answer.delivery = Delivery::Reset(Some((answer.body.len() as f64 * share) as usize));
                answer.record.readable = false;
            }
            Action::Huge(mib) => answer.delivery = Delivery::Padded(mib.saturating_mul(1 << 20)),
            Action::Date(by) => answer.date_error = *by,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use proptest::prelude::*;

    use super::*;
    use crate::config::Simulator;
    use crate::life::Round;

    fn now() -> Now {
        let at: DateTime<Utc> = "2026-11-21T09:00:00Z".parse().unwrap();
        Now { life: at, wall: at }
    }

    fn world(config: Simulator) -> (World, String) {
        let config = config.rate_limit(None).still();
        let accounts = config.credentials();
        let mut world = World::new(config, &accounts, now());
        let grant = world.tokens.give(0, now().wall);
        let token = grant.body["access_token"].as_str().unwrap().to_owned();
        (world, token)
    }

    fn asked(path: &str, query: &str, token: &str) -> Asked {
        Asked {
            method: "GET".to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            accept: Some("*/*".to_owned()),
            authorization: Some(format!("Bearer {token}")),
            base: "http://sim".to_owned(),
            form: String::new(),
        }
    }

    /// Reads a list to its end, with `between` called after each page, and returns the ids seen.
    fn read(world: &mut World, token: &str, limit: u32, mut between: impl FnMut(&mut World)) -> Vec<String> {
        let mut seen = Vec::new();
        let mut query = format!("limit={limit}");
        loop {
            let answer = world.answer(&asked("/v1/orgDevices", &query, token), now(), Keep::Digests);
            assert_eq!(answer.status, 200);
            seen.extend(answer.record.devices.iter().filter_map(|device| device.id.clone()));
            let page: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            let Some(cursor) = page["meta"]["paging"]["nextCursor"].as_str() else { return seen };
            query = format!("limit={limit}&cursor={cursor}");
            between(world);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn whatever_lives_between_pages_nothing_that_stays_is_skipped_or_repeated(
            seed in 0_u64..500,
            limit in 1_u32..30,
            n in 0_u32..4,
        ) {
            let (mut world, token) = world(Simulator::builder().seed(seed).devices(60));
            let listed = |world: &World| {
                let fleet = &world.orgs[0].fleet;
                (0..fleet.ever()).filter(|index| fleet.unit(*index).listed()).map(|index| fleet.serial(index)).collect()
            };
            let before: Vec<String> = listed(&world);
            let mut gone = std::collections::BTreeSet::new();
            let mut pages = 0;
            let seen = read(&mut world, &token, limit, |world| {
                // A fleet that grows faster than it is read has no last page.
                pages += 1;
                if pages > 20 {
                    return;
                }
                let Org { fleet, life, .. } = &mut world.orgs[0];
                for change in life.round(Round::of_each(n), fleet, now().millis()) {
                    if change.kind == crate::journal::ChangeKind::Released {
                        gone.extend(change.device_id);
                    }
                }
            });
            let unique: std::collections::BTreeSet<_> = seen.iter().collect();
            prop_assert_eq!(unique.len(), seen.len());
            prop_assert!(before.iter().all(|id| unique.contains(id) || gone.contains(id)));
        }

        #[test]
        fn no_request_and_no_fault_makes_it_stumble(
            resource in prop::sample::select(vec![
                "orgDevices", "orgDevices/SIM0000003", "orgDevices/%00", "mdmServers", "mdmServers/X",
                "orgDevices/SIM0000003/relationships/assignedServer", "orgDevices/SIM0000003/assignedServer", "x",
            ]),
            query in "(limit=[0-9]{0,4}|cursor=[A-Za-z0-9%_-]{0,30}|fields%5BorgDevices%5D=[a-z,]{0,9})?(&[a-z%=&]{0,9})?",
            action in prop::sample::select(vec![
                "cut at=0%", "cut-list keep=0%", "skip n=9223372036854775807", "repeat n=-9223372036854775808", "empty",
                "empty-page", "total by=-9", "next-loop", "duplicate n=999", "nameless n=999", "malformed-item n=3",
                "reset at=100%", "huge mib=18446744073709551615", "date by=9223372036854775807", "lag seconds=9999999999",
                "429 retry-after=date:4294967295", "deep", "bad-utf8", "variant-shapes n=50", "old-updated n=50",
            ]),
        ) {
            let faults = format!("* {action}").parse().unwrap();
            let (mut world, token) = world(Simulator::builder().devices(20).faults(faults));
            let answer = world.answer(&asked(&format!("/v1/{resource}"), &query, &token), now(), Keep::Attributes);
            prop_assert!((200..=599).contains(&answer.status));
            prop_assert!(answer.headers.iter().any(|(name, _)| *name == "x-apple-request-uuid"));
        }
    }
}
