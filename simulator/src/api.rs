//! What Apple's API answers: a pure function of the world, the request and the time.

use std::collections::HashMap;

use crate::answer::{Answer, Asked, Delivery, http_date};
use crate::credentials;
use crate::cursor::Cursor;
use crate::fault::{Action, Match, RetryAfter};
use crate::journal::Response;
use crate::page::{self, Page};
use crate::problem::Problem;
use crate::query::{Parameters, Route, pairs};
use crate::spoil::spoil;
use crate::world::{Now, Org, World};

impl World {
    /// Answers a request at one moment of the two times.
    pub(crate) fn answer(&mut self, asked: &Asked, now: Now, journal: Keep) -> Answer {
        self.answers += 1;
        let route = Route::of(&asked.method, &asked.path);
        let record = self.record(asked, &route, now);
        let request_id = record.request_id.clone();
        let mut answer = match route {
            Route::Token => self.token(asked, now, record),
            _ => self.resource(asked, &route, now, record, journal),
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
        let date = now.wall + chrono::Duration::seconds(answer.date_error);
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

    fn resource(&mut self, asked: &Asked, route: &Route, now: Now, mut record: Response, journal: Keep) -> Answer {
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
            let view = page::View { world: self, org, asked, route, parameters, cursor, now, actions: &actions };
            view.page()
        });
        match page {
            Ok(page) => served(page, &actions, record, journal),
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
        if self.manner.school && matches!(route, Route::Server(_)) {
            return Err(Problem::forbidden("The resource 'mdmServers' does not allow 'GET_INSTANCE'"));
        }
        Ok(org)
    }

    fn cursor(&self, org: usize, path: &str, asked: &Parameters, now: Now) -> Result<Option<Cursor>, Problem> {
        let Some(text) = &asked.cursor else { return Ok(None) };
        let Org { fleet, cursors_from, .. } = &self.orgs[org];
        Cursor::decode(text)
            .filter(|cursor| cursor.list == Cursor::list(fleet.org(), path))
            .filter(|cursor| cursor.lives(now.wall, self.manner.cursor_ttl, *cursors_from))
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

/// What the journal keeps of a served resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    Digests,
    Attributes,
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

fn served(page: Page, actions: &[(Action, String)], record: Response, journal: Keep) -> Answer {
    let record = page.note(record, journal);
    let mut answer = Answer::json(200, page.document.written(), record);
    spoil(&mut answer, actions);
    finish(&mut answer, actions);
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
            Action::Huge(mib) => answer.delivery = Delivery::Padded(mib << 20),
            Action::Date(by) => answer.date_error = *by,
            _ => {}
        }
    }
}
