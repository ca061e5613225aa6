//! What the edge says while it works and while everything goes wrong: no token, no assertion, no key, no serial number.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use windfall_schemas::identifiers::DeviceId;

use super::server::{Reply, Server};
use super::{KEY, directory};

/// Writes down whatever anybody in this thread logs, at every level.
#[derive(Clone, Default)]
struct Scribe(Arc<Mutex<Vec<(Level, String)>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl Subscriber for Scribe {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line(span.metadata().name().to_owned());
        span.record(&mut line);
        self.0.lock().unwrap().push((*span.metadata().level(), line.0));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line(String::new());
        values.record(&mut line);
        self.0.lock().unwrap().push((Level::TRACE, line.0));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().target().to_owned());
        event.record(&mut line);
        self.0.lock().unwrap().push((*event.metadata().level(), line.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn whatever_happens_no_secret_is_logged_at_any_level() {
    let scribe = Scribe::default();
    let _guard = tracing::subscriber::set_default(scribe.clone());
    let page = r#"{"data": [{"type": "orgDevices", "id": "SERIAL1", "attributes": {"color": "RED"}}], "links": {}}"#;
    for reply in [
        Reply::json(200, page),
        Reply::error(401, "NOT_AUTHORIZED"),
        Reply::error(403, "FORBIDDEN_ERROR"),
        Reply::error(404, "NOT_FOUND"),
        Reply::error(429, "RATE_LIMIT_EXCEEDED").with("retry-after", "1"),
        Reply::html(500),
        Reply::Torn(200, page.as_bytes().to_vec()),
        Reply::json(307, "").with("location", "https://evil.example/?x=canary-token-1"),
    ] {
        for token in
            [None, Some(Reply::json(400, r#"{"error": "invalid_client", "error_description": "canary-token-1"}"#))]
        {
            let server = Server::start().await;
            server.answer(reply.clone());
            if let Some(token) = token {
                server.token(token);
            }
            let (directory, _clock) = directory(&server);
            let _ = directory.page(None).await;
            let _ = directory.device(&DeviceId::parse("SERIAL1").unwrap()).await;
        }
    }
    let lines = scribe.0.lock().unwrap();
    assert!(lines.iter().any(|(_, line)| line.contains("token received")), "nothing was heard: {lines:?}");
    assert!(lines.iter().any(|(_, line)| line.contains("token refused")), "nothing was heard: {lines:?}");
    let key = KEY.lines().nth(1).unwrap();
    for (level, line) in lines.iter() {
        assert!(!line.contains("canary-token") && !line.contains("eyJ") && !line.contains(&key[..20]), "{line}");
        assert!(*level >= Level::DEBUG || !line.contains("SERIAL1"), "{line}");
    }
}
