//! Records that stand unreadable in their topic, told again as they are now.

use std::sync::Arc;

use windfall_schemas::envelope::{Envelope, Kind, Op, Snapshot};

use crate::diff::Change;
use crate::event::{self, Origin, Recorded, Seen, Telling};
use crate::fleet::Known;

/// Tells a record again as `r` whose newest event cannot be read: readers wait to hear of it, and compaction will take away
/// what can be read. `place` says where the unreadable one stands.
///
/// | the record, just observed | what is told |
/// | --- | --- |
/// | differs from its last readable state | that change, as any other |
/// | equals it | `r`, without a `before` |
/// | has no readable state | `r` instead of `c`: it was known, so it is not added |
pub fn retell<V: Recorded>(
    origin: &Origin,
    seen: &Seen,
    (id, place): (&str, &str),
    known: Option<&Known<V>>,
    events: &mut Vec<Envelope<Arc<V>>>,
) {
    let evidence = format!("the event at {place} cannot be read");
    let told =
        events.iter_mut().find(|event| event.after.as_deref().or(event.before.as_deref()).map(V::id) == Some(id));
    match (told, known) {
        (Some(event), _) if event.before.is_none() => {
            event.op = Op::Read;
            event.kind = Some(Kind::Updated);
            if event.source.snapshot == Snapshot::False {
                event.source.snapshot = Snapshot::True;
            }
            event.evidence.push(evidence);
        }
        (None, Some(known)) => {
            let change = Change {
                kind: Kind::Updated,
                changed: Vec::new(),
                before: None,
                after: Some(Arc::clone(&known.value)),
                number: known.number + 1,
                fingerprint: known.fingerprint.clone(),
            };
            let telling = Telling { snapshot: Snapshot::True, evidence: vec![evidence], ..Telling::shown() };
            events.push(event::envelope(origin, seen, change, telling));
        }
        _ => {}
    }
}
