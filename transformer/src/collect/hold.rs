//! What is missing is not deleted (pure).

/// That many assets may lose their contributions unseen.
const FEW: usize = 10;

/// Assets that stand, and those whose contributions are gone although nobody withdrew them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) live: usize,
    pub(super) missing: usize,
}

impl Missing {
    /// Says whether so many are missing, more than ten and more than 5 %, that the topic must have lost them.
    pub(super) fn is_too_much(self) -> bool {
        self.missing > FEW.max(self.live / 20)
    }

    /// Says why nothing is published, and what to do.
    pub(super) fn reason(self, topic: &str, collection: &str) -> String {
        let Self { live, missing } = self;
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
        let too_much = |live, missing| Missing { live, missing }.is_too_much();
        assert!(!too_much(10, 10) && !too_much(400, 20) && !too_much(0, 0));
        assert!(too_much(11, 11) && too_much(100, 11) && too_much(400, 21));
    }
}
