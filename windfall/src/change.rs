//! A change event in a few words, as `tap` and `demo` show it.

use chrono::{DateTime, Utc};
use serde_json::Value;

/// Fields that are left out of the description when a more telling field changed in the same event.
const FOLLOWING: [&str; 5] =
    ["updated_date_time", "mdm_server_id", "releaser_id", "releaser_entity_type", "released_from_org_date_time"];
/// Longest value that is shown.
const VALUE_CHARS: usize = 28;

/// One change event, as the columns that are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// When the producer saw it and made the event: the event's `ts_ms`.
    pub(crate) seen_at: DateTime<Utc>,
    pub(crate) kind: String,
    pub(crate) op: String,
    /// Serial number of a device, name of a server, else the id.
    pub(crate) subject: String,
    /// What changed: `mdm_server Jamf Cloud → Intune`, or the evidence of a release.
    pub(crate) what: String,
    /// The channel that saw the change: `scan 3`, `look-up`.
    pub(crate) seen_by: String,
}

impl Change {
    /// Reads an event of a change topic; returns `None` for any other value.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        let op = value.get("op")?.as_str()?.to_owned();
        let source = value.get("source")?;
        let row = value.get("after").filter(|after| !after.is_null()).or_else(|| value.get("before"))?;
        let subject = ["serial_number", "server_name", "name", "device_id", "server_id"]
            .into_iter()
            .find_map(|field| text(row, field))?;
        let seen_at = value.get("ts_ms").and_then(Value::as_i64).and_then(DateTime::from_timestamp_millis);
        let kind = text(value, "kind").unwrap_or_else(|| op.clone());
        Some(Self {
            seen_at: seen_at.unwrap_or_default(),
            what: what(value, &kind, row),
            kind,
            op,
            subject,
            seen_by: seen_by(source),
        })
    }
}

fn text(value: &Value, field: &str) -> Option<String> {
    value.get(field)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn seen_by(source: &Value) -> String {
    match text(source, "channel").as_deref() {
        Some("scan") | None => {
            text(source, "scan_id").map_or_else(|| "scan".to_owned(), |id| format!("scan {}", short(&id)))
        }
        Some("lookup") => "look-up".to_owned(),
        Some(other) => other.to_owned(),
    }
}

/// Returns the number at the end of a scan id, or the whole id if it does not end in a short number.
fn short(id: &str) -> &str {
    let digits = id.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    if id[digits..].is_empty() || id.len() - digits > 9 { id } else { &id[digits..] }
}

fn what(value: &Value, kind: &str, row: &Value) -> String {
    let evidence: Vec<_> =
        value.get("evidence").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if kind == "released" && !evidence.is_empty() {
        return format!("evidence: {}", evidence.into_iter().map(evidence_in_words).collect::<Vec<_>>().join(", "));
    }
    if matches!(kind, "added" | "removed") || matches!(text(value, "op").as_deref(), Some("c" | "r")) {
        return introduction(row);
    }
    let changed: Vec<_> =
        value.get("changed").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let moved = changed.contains(&"mdm_server_name");
    let follows = |field: &str| FOLLOWING.contains(&field) || (moved && field == "status");
    let telling: Vec<_> = changed.iter().filter(|field| !follows(field)).collect();
    let fields = if telling.is_empty() { changed.iter().collect() } else { telling };
    fields.into_iter().map(|field| difference(value, field)).collect::<Vec<_>>().join(", ")
}

/// Turns `scan 2: absent` into `absent from scan 2`, and `lookup 2026-11-21T09:14:03Z: 404` into `look-up 404`.
fn evidence_in_words(evidence: &str) -> String {
    if let Some(scan) = evidence.strip_prefix("scan ").and_then(|rest| rest.strip_suffix(": absent")) {
        return format!("absent from scan {scan}");
    }
    if let Some((_, answer)) = evidence.strip_prefix("lookup ").and_then(|rest| rest.split_once("Z: ")) {
        let answer = if answer.starts_with("200") { "200 with a release date" } else { answer };
        return format!("look-up {answer}");
    }
    evidence.to_owned()
}

/// Describes a record that has no earlier image.
fn introduction(row: &Value) -> String {
    let fields = ["device_model", "device_capacity", "color", "mdm_server_name", "server_type", "status"];
    let known: Vec<_> = fields.into_iter().filter_map(|field| text(row, field)).take(4).collect();
    known.join(", ")
}

fn difference(value: &Value, field: &str) -> String {
    let side =
        |side: &str| value.get(side).and_then(|row| row.get(field)).map_or_else(|| "–".to_owned(), |v| shown(field, v));
    let name = field.strip_suffix("_name").unwrap_or(field);
    format!("{name} {} → {}", side("before"), side("after"))
}

fn shown(field: &str, value: &Value) -> String {
    let text = match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(millis) if field.ends_with("_date_time") => millis
            .as_i64()
            .and_then(DateTime::from_timestamp_millis)
            .map_or_else(|| millis.to_string(), |at| at.format("%Y-%m-%d %H:%MZ").to_string()),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(" "),
        other => other.to_string(),
    };
    if text.chars().count() <= VALUE_CHARS {
        return text;
    }
    text.chars().take(VALUE_CHARS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(kind: &str, changed: &[&str]) -> Value {
        json!({
            "op": "u", "kind": kind, "changed": changed, "evidence": [],
            "before": { "serial_number": "SIM0004821", "mdm_server_name": "Jamf Cloud", "mdm_server_id": "1", "color": null },
            "after": { "serial_number": "SIM0004821", "mdm_server_name": "Intune", "mdm_server_id": "2", "color": "BLACK" },
            "source": { "ts_ms": 1_795_252_440_000_i64, "scan_id": "acme-2", "channel": "scan" },
        })
    }

    #[test]
    fn a_move_is_told_by_the_names_of_the_servers() {
        let change =
            Change::of(&event("reassigned", &["mdm_server_id", "mdm_server_name", "updated_date_time"])).unwrap();
        assert_eq!(change.what, "mdm_server Jamf Cloud → Intune");
        assert_eq!((change.subject.as_str(), change.seen_by.as_str()), ("SIM0004821", "scan 2"));
    }

    #[test]
    fn a_value_that_was_empty_is_a_dash() {
        assert_eq!(Change::of(&event("updated", &["color"])).unwrap().what, "color – → BLACK");
    }

    #[test]
    fn a_release_is_told_by_its_evidence() {
        let mut released = event("released", &["released_from_org_date_time"]);
        released["evidence"] = json!(["scan 2: absent", "lookup 2026-11-21T09:14:03Z: 404"]);
        released["source"]["channel"] = json!("lookup");
        let change = Change::of(&released).unwrap();
        assert_eq!(change.what, "evidence: absent from scan 2, look-up 404");
        assert_eq!(change.seen_by, "look-up");
    }

    #[test]
    fn a_change_of_nothing_but_following_fields_still_says_which() {
        assert_eq!(Change::of(&event("updated", &["mdm_server_id"])).unwrap().what, "mdm_server_id 1 → 2");
    }

    #[test]
    fn a_record_that_is_no_event_is_none() {
        assert_eq!(Change::of(&json!({ "asset_id": "x" })), None);
    }
}
