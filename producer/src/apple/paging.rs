//! The walk over the pages of one list: it must end.

use std::collections::HashSet;

use xxhash_rust::xxh3::xxh3_128;

use super::Cursor;

/// Most pages of one list: a fleet of 20 million at 1,000 a page.
const MAX_PAGES: usize = 20_000;

/// A list whose next links lead nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PagingError {
    /// A cursor came a second time.
    #[error("the list leads back to a page already read, after {pages} pages")]
    Loop {
        /// Pages read so far.
        pages: usize,
    },
    /// The list goes on and on.
    #[error("the list has not ended after {pages} pages")]
    Endless {
        /// Pages read so far.
        pages: usize,
    },
}

/// The cursors that a walk has met.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    /// Hashes, since a list may have many pages and a cursor many bytes.
    met: HashSet<u128>,
    pages: HashSet<u128>,
}

impl Trail {
    /// Begins a walk, at the first page or, when a scan is resumed, at `from`.
    pub fn new(from: Option<&Cursor>) -> Self {
        Self { met: from.map(hash).into_iter().collect(), pages: HashSet::new() }
    }

    /// Takes the cursor of the next page; an error means that the walk must be given up.
    pub fn step(&mut self, next: Option<&Cursor>) -> Result<(), PagingError> {
        let Some(next) = next else { return Ok(()) };
        let pages = self.met.len() + 1;
        if self.met.contains(&hash(next)) {
            return Err(PagingError::Loop { pages });
        }
        if pages >= MAX_PAGES {
            return Err(PagingError::Endless { pages });
        }
        self.met.insert(hash(next));
        Ok(())
    }

    /// Takes the ids of a page that leads on; a page that came before is a loop, whatever its cursor is called.
    pub fn page<'a>(&mut self, ids: impl Iterator<Item = &'a str>) -> Result<(), PagingError> {
        let ids: Vec<&str> = ids.collect();
        if ids.is_empty() || self.pages.insert(xxh3_128(ids.join("\n").as_bytes())) {
            return Ok(());
        }
        Err(PagingError::Loop { pages: self.pages.len() })
    }
}

fn hash(cursor: &Cursor) -> u128 {
    xxh3_128(cursor.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(text: &str) -> Cursor {
        Cursor::new(text).unwrap()
    }

    #[test]
    fn a_list_that_leads_back_is_given_up() {
        let mut trail = Trail::new(None);
        assert_eq!(trail.step(Some(&cursor("a"))), Ok(()));
        assert_eq!(trail.step(Some(&cursor("b"))), Ok(()));
        assert_eq!(trail.step(Some(&cursor("a"))), Err(PagingError::Loop { pages: 3 }));
    }

    #[test]
    fn a_page_that_comes_again_under_another_cursor_is_a_loop() {
        let mut trail = Trail::new(None);
        assert_eq!(trail.page(["A", "B"].into_iter()), Ok(()));
        assert_eq!(trail.page(["B", "C"].into_iter()), Ok(()), "shifted by one");
        assert_eq!(trail.page(["A", "B"].into_iter()), Err(PagingError::Loop { pages: 2 }));
    }

    #[test]
    fn a_resumed_walk_knows_where_it_began() {
        let mut trail = Trail::new(Some(&cursor("a")));
        assert_eq!(trail.step(Some(&cursor("a"))), Err(PagingError::Loop { pages: 2 }));
    }

    #[test]
    fn a_list_without_end_is_given_up() {
        let mut trail = Trail::new(None);
        let last = (0..MAX_PAGES).map(|page| trail.step(Some(&cursor(&page.to_string())))).last();
        assert_eq!(last, Some(Err(PagingError::Endless { pages: MAX_PAGES })));
    }
}
