//! Puts changes into the order in which Windfall saw them.

use serde_json::Value;

use crate::change::Change;

/// Changes that were read and not yet shown.
///
/// The partitions of a topic are read side by side, so a change can arrive before an earlier one of another partition.
/// Each change therefore waits from one turn to the next, and all changes up to the latest one that has waited leave together.
#[derive(Default)]
pub(super) struct Arrivals {
    waiting: Vec<(Change, Value)>,
    /// How many at the front of `waiting` were there at the last turn.
    waited: usize,
}

impl Arrivals {
    /// Takes a change and the record that carried it.
    pub(super) fn add(&mut self, change: Change, record: Value) {
        self.waiting.push((change, record));
    }

    /// Returns what has waited since the last turn, and whatever was seen before that, in the order of `seen_at`.
    pub(super) fn turn(&mut self) -> Vec<(Change, Value)> {
        let last = self.waiting[..self.waited].iter().map(|(change, _)| change.seen_at).max();
        self.waiting.sort_by_key(|(change, _)| change.seen_at);
        let ready = self.waiting.partition_point(|(change, _)| last.is_some_and(|last| change.seen_at <= last));
        let ready = self.waiting.drain(..ready).collect();
        self.waited = self.waiting.len();
        ready
    }

    /// Returns all that is left, in the order of `seen_at`.
    pub(super) fn rest(&mut self) -> Vec<(Change, Value)> {
        self.waited = self.waiting.len();
        self.turn()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(minutes: &[(Change, Value)]) -> Vec<i64> {
        minutes.iter().map(|(change, _)| change.seen_at.timestamp_millis()).collect()
    }

    #[test]
    fn a_change_that_arrives_after_a_later_one_of_another_partition_is_shown_before_it() {
        let mut arrivals = Arrivals::default();
        let add = |arrivals: &mut Arrivals, millis: i64| {
            let value = json!({ "op": "u", "ts_ms": millis, "source": {}, "after": { "device_id": "A" } });
            arrivals.add(Change::of(&value).unwrap(), value);
        };
        add(&mut arrivals, 5);
        assert!(arrivals.turn().is_empty(), "an earlier one may be on its way");
        add(&mut arrivals, 3);
        add(&mut arrivals, 9);
        assert_eq!(seen(&arrivals.turn()), [3, 5]);
        add(&mut arrivals, 7);
        assert_eq!(seen(&arrivals.rest()), [7, 9]);
        assert!(arrivals.rest().is_empty());
    }
}
