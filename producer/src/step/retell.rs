//! Publishes records again whose newest event in the topic cannot be read.

use std::sync::Arc;

use windfall_schemas::envelope::{Envelope, Kind, Op, Snapshot};

use super::Step;
use crate::checkpoint::{DEVICES, Header};
use crate::diff::Change;
use crate::event::{self, Origin, Recorded, Seen, Telling};
use crate::fleet::Known;
use crate::notice;

/// Publishes a record again, as `r`, when its newest event cannot be read: readers cannot know its state, and compaction will
/// remove the older events that can be read. `place` says where the unreadable event stands.
///
/// | the record, just observed | what is told |
/// | --- | --- |
/// | differs from its last readable state | that change, as any other |
/// | equals it | `r`, without a `before` |
/// | has no readable state | `r` instead of `c`: it was known, so it is not added |
///
/// Returns what it was planned as where that has changed: a kind, or nothing.
pub fn retell<V: Recorded>(
    origin: &Origin,
    seen: &Seen,
    (id, place): (&str, &str),
    known: Option<&Known<V>>,
    events: &mut Vec<Envelope<Arc<V>>>,
) -> Option<Option<Kind>> {
    let evidence = format!("the event at {place} cannot be read");
    let told =
        events.iter_mut().find(|event| event.after.as_deref().or(event.before.as_deref()).map(V::id) == Some(id));
    match (told, known) {
        (Some(event), _) if event.before.is_none() => {
            event.op = Op::Read;
            let planned = event.kind.replace(Kind::Updated);
            if event.source.snapshot == Snapshot::False {
                event.source.snapshot = Snapshot::True;
            }
            event.evidence.push(evidence);
            Some(planned)
        }
        (None, Some(known)) => {
            let change = Change {
                kind: Kind::Updated,
                changed: Vec::new(),
                before: None,
                after: Some(Arc::clone(&known.value)),
                number: known.number + 1,
                fingerprint: known.value.fingerprint(),
                last: Some(known.last()),
            };
            let telling = Telling { snapshot: Snapshot::True, evidence: vec![evidence], ..Telling::shown() };
            events.push(event::envelope(origin, seen, change, telling));
            Some(None)
        }
        _ => None,
    }
}

/// Counts what is told again, and no longer what it was planned as; the header stands last in its step.
pub fn count_again(origin: &Origin, header: &mut Header, step: &mut Step, planned: Option<&Kind>) {
    match planned.and_then(|kind| header.counts.get_mut(kind.as_str())) {
        Some(count) => *count -= 1,
        None => step.unchanged -= 1,
    }
    header.counts.retain(|_, count| *count > 0);
    header.count(Kind::Updated.as_str());
    if let Some(part) = step.parts.last_mut() {
        *part = header.part(&origin.org, DEVICES);
    }
    if let Some(told) = step.notifications.last_mut() {
        *told = notice::in_progress(origin, header, header.updated_at);
    }
}
