//! Whose turn it is: by priority, with a floor for each, so that nobody waits for ever.

/// Why a request is made; the order is that of worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A single read that settles a question, such as whether a device was released.
    LookUp,
    /// The listing.
    Scan,
    /// The lists of management services.
    Linkage,
}

impl Priority {
    /// All of them, in order.
    pub const ALL: [Priority; 3] = [Priority::LookUp, Priority::Scan, Priority::Linkage];

    /// After how many requests of others a waiting one is let before all: its floor is 1 in this many plus one.
    const fn patience(self) -> u32 {
        match self {
            Priority::LookUp => 0,
            Priority::Scan => 4,
            Priority::Linkage => 4,
        }
    }

    /// Returns the word for labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::LookUp => "lookup",
            Priority::Scan => "scan",
            Priority::Linkage => "linkage",
        }
    }
}

/// Somebody who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    priority: Priority,
    passed_over: u32,
}

/// Everybody who waits, in the order of coming.
#[derive(Debug, Default)]
pub(super) struct Turns {
    waiters: Vec<Waiter>,
    issued: u64,
}

impl Turns {
    pub(super) fn enter(&mut self, priority: Priority) -> Ticket {
        self.issued += 1;
        let ticket = Ticket(self.issued);
        self.waiters.push(Waiter { ticket, priority, passed_over: 0 });
        ticket
    }

    pub(super) fn leave(&mut self, ticket: Ticket) {
        self.waiters.retain(|waiter| waiter.ticket != ticket);
    }

    /// The first of those who have run out of patience, else of the worthiest.
    pub(super) fn first(&self) -> Option<Ticket> {
        let impatient = self
            .waiters
            .iter()
            .find(|waiter| waiter.priority != Priority::LookUp && waiter.passed_over >= waiter.priority.patience());
        impatient.or_else(|| self.waiters.iter().min_by_key(|waiter| waiter.priority)).map(|waiter| waiter.ticket)
    }

    /// Takes the one whose turn it is; all others were passed over.
    pub(super) fn take(&mut self, ticket: Ticket) {
        self.leave(ticket);
        for waiter in &mut self.waiters {
            waiter.passed_over += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_up_goes_before_the_scan() {
        let mut turns = Turns::default();
        turns.enter(Priority::Scan);
        let look_up = turns.enter(Priority::LookUp);
        assert_eq!(turns.first(), Some(look_up));
    }

    #[test]
    fn equals_go_in_the_order_of_coming() {
        let mut turns = Turns::default();
        let first = turns.enter(Priority::Scan);
        turns.enter(Priority::Scan);
        assert_eq!(turns.first(), Some(first));
    }

    #[test]
    fn ten_thousand_look_ups_do_not_starve_the_linkage() {
        let mut turns = Turns::default();
        let linkage = turns.enter(Priority::Linkage);
        let mut before = 0;
        loop {
            let look_up = turns.enter(Priority::LookUp);
            match turns.first() {
                Some(first) if first == linkage => break,
                Some(first) => turns.take(first),
                None => unreachable!("somebody waits"),
            }
            turns.leave(look_up);
            before += 1;
        }
        assert_eq!(before, 4);
    }

    #[test]
    fn whoever_leaves_the_queue_blocks_nobody() {
        let mut turns = Turns::default();
        let look_up = turns.enter(Priority::LookUp);
        let scan = turns.enter(Priority::Scan);
        turns.leave(look_up);
        assert_eq!(turns.first(), Some(scan));
    }
}
