//! A ledger of positions: half-open intervals `[from, to)` of offsets that are done, merged and fitted (pure).

use std::collections::BTreeMap;

use super::record::TopicPartition;

/// Offsets from `from` up to, not including, `to`: what `to` names is the next to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// The first offset.
    pub from: i64,
    /// One past the last offset.
    pub to: i64,
}

/// What a batch means to a partition that stands at `next`.
///
/// | batch `[from, to)` | fit |
/// | --- | --- |
/// | `to <= next` | `Stale`: done already |
/// | `from < next < to` | `Overlaps`: its records from `next` on are new |
/// | `from == next` | `Next` |
/// | `from > next` | `Skips`: offsets in between hold no record (markers, aborted or compacted ones) or were missed |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Everything in it is done already.
    Stale,
    /// Its records from this offset on are new.
    Overlaps {
        /// The first offset that is new.
        next: i64,
    },
    /// It begins exactly where the partition stands.
    Next,
    /// It begins later.
    Skips {
        /// The first offset that is skipped.
        next: i64,
    },
}

/// An interval that cannot stand in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("positions of {partition} go back: at {next}, told [{from}, {to})")]
pub struct Misfit {
    /// The partition.
    pub partition: TopicPartition,
    /// Where it stands.
    pub next: i64,
    /// The interval's beginning.
    pub from: i64,
    /// The interval's end.
    pub to: i64,
}

/// Where each partition stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    next: BTreeMap<TopicPartition, i64>,
}

impl Ledger {
    /// Makes a ledger from where partitions stand.
    #[must_use]
    pub fn new(next_offsets: impl IntoIterator<Item = (TopicPartition, i64)>) -> Self {
        Self { next: next_offsets.into_iter().collect() }
    }

    /// Returns the next offset of a partition, if it is known.
    #[must_use]
    pub fn next_offset(&self, partition: &TopicPartition) -> Option<i64> {
        self.next.get(partition).copied()
    }

    /// Goes through all partitions with their next offsets.
    pub fn iter(&self) -> impl Iterator<Item = (&TopicPartition, i64)> {
        self.next.iter().map(|(partition, next)| (partition, *next))
    }

    /// Says what an interval means to a partition; one that is not known takes anything.
    #[must_use]
    pub fn fit(&self, partition: &TopicPartition, interval: Interval) -> Fit {
        match self.next_offset(partition) {
            None => Fit::Next,
            Some(next) if interval.to <= next => Fit::Stale,
            Some(next) if interval.from < next => Fit::Overlaps { next },
            Some(next) if interval.from == next => Fit::Next,
            Some(next) => Fit::Skips { next },
        }
    }

    /// Notes an interval as done.
    ///
    /// # Errors
    /// [`Misfit`] when it is empty, turned round, or begins before what is done.
    pub fn advance(&mut self, partition: &TopicPartition, interval: Interval) -> Result<(), Misfit> {
        let Interval { from, to } = interval;
        let next = self.next_offset(partition).unwrap_or(from);
        if to <= from || from < next {
            return Err(Misfit { partition: partition.clone(), next, from, to });
        }
        self.next.insert(partition.clone(), to);
        Ok(())
    }

    /// Takes over whichever position is further for each partition of both.
    pub fn merge(&mut self, other: &Self) {
        for (partition, next) in other.iter() {
            let known = self.next.entry(partition.clone()).or_insert(next);
            *known = (*known).max(next);
        }
    }

    /// Forgets a partition.
    pub fn remove(&mut self, partition: &TopicPartition) -> Option<i64> {
        self.next.remove(partition)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    fn ledgers() -> impl Strategy<Value = Ledger> {
        proptest::collection::btree_map(0..6i32, 0..50i64, 0..6)
            .prop_map(|next| Ledger::new(next.into_iter().map(|(partition, next)| (at(partition), next))))
    }

    proptest! {
        #[test]
        fn merging_does_not_care_about_order_or_repetition(a in ledgers(), b in ledgers(), c in ledgers()) {
            let merged = |ledgers: [&Ledger; 3]| {
                ledgers.into_iter().fold(Ledger::default(), |mut all, one| { all.merge(one); all })
            };
            prop_assert_eq!(merged([&a, &b, &c]), merged([&c, &b, &a]));
            prop_assert_eq!(merged([&a, &b, &b]), merged([&b, &a, &a]));
        }

        #[test]
        fn a_position_never_goes_back(ledger in ledgers(), steps in proptest::collection::vec((0..6i32, 0..60i64, 0..60i64), 0..30)) {
            let mut ledger = ledger;
            for (partition, from, to) in steps {
                let before = ledger.next_offset(&at(partition));
                let moved = ledger.advance(&at(partition), Interval { from, to });
                let after = ledger.next_offset(&at(partition));
                match moved {
                    Ok(()) => prop_assert!(after == Some(to) && before.is_none_or(|before| before <= from && from < to)),
                    Err(_) => prop_assert_eq!(before, after),
                }
            }
        }

        #[test]
        fn an_interval_fits_as_its_table_says(next in 0..40i64, from in 0..40i64, length in 1..20i64) {
            let (ledger, to) = (Ledger::new([(at(0), next)]), from + length);
            let new: Vec<i64> = (from..to).filter(|offset| *offset >= next).collect();
            match ledger.fit(&at(0), Interval { from, to }) {
                Fit::Stale => prop_assert!(new.is_empty()),
                Fit::Overlaps { next } => prop_assert!(from < next && new.first() == Some(&next)),
                Fit::Next => prop_assert_eq!(from, next),
                Fit::Skips { next } => prop_assert!(next < from),
            }
        }
    }
}
