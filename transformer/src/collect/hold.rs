//! Assets that have lost their contributions are not deleted (pure).

use windfall_schemas::topic::CHANGE_PARTITIONS;

/// So many assets of a whole collection may lose their contributions before publishing is held.
const FEW: usize = 10;

/// How many assets are live, and how many of them have lost their contributions although nobody withdrew them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) live: usize,
    pub(super) missing: usize,
    /// How many partitions were counted: a member of a group sees only its share of the collection.
    pub(super) partitions: usize,
}

impl Missing {
    /// Returns whether more are missing than 5 % and than ten of a whole collection: the topic must have lost them.
    pub(super) fn is_too_much(self) -> bool {
        let few = FEW * self.partitions / usize::try_from(CHANGE_PARTITIONS).unwrap_or(1);
        self.missing > few.max(self.live / 20)
    }

    /// Returns why nothing is published, and what to do.
    pub(super) fn reason(self, topic: &str, collection: &str) -> String {
        let Self { live, missing, partitions: _ } = self;
        format!(
            "`{topic}` has no contribution to {missing} of {live} assets, and nothing has withdrawn them: nothing is published until \
             they are back; `windfall remap {collection}` writes them again"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_ten_and_more_than_one_in_twenty_are_too_much() {
        let too_much = |live, missing| Missing { live, missing, partitions: 12 }.is_too_much();
        assert!(!too_much(10, 10) && !too_much(400, 20) && !too_much(0, 0));
        assert!(too_much(11, 11) && too_much(100, 11) && too_much(400, 21));
    }

    #[test]
    fn members_that_share_a_collection_let_no_more_go_than_one_that_has_it_alone() {
        let too_much = |missing, partitions| Missing { live: missing, missing, partitions }.is_too_much();
        assert!(too_much(10, 4) && too_much(4, 4) && !too_much(3, 4), "three members with a third each");
        assert!(too_much(1, 1), "twelve members with a partition each");
    }
}
