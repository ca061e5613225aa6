//! Which part of a list a page holds, and how it leads to the next.

use super::View;
use crate::config::PagingStyle;
use crate::cursor::Cursor;
use crate::document::{Data, Document, Paging};
use crate::fault::Action;

/// Places of a list on one page, and the position behind them when more follow.
pub(super) struct Window {
    pub(super) places: Vec<u32>,
    next: Option<u32>,
}

impl View<'_> {
    /// Takes the page that the request asks for out of `count` places, of which those count that `fits` names.
    pub(super) fn window(&self, count: u32, fits: impl Fn(u32) -> bool) -> Window {
        let limit = self.page_size() as usize;
        let from = self.cursor.as_ref().map_or(0, |cursor| cursor.position);
        let style = self.world.config.paging;
        let (first, skip) = match style {
            PagingStyle::Keyset => (from, 0),
            PagingStyle::Offset => (0, from as usize),
        };
        let mut items: Vec<u32> = (first..count).filter(|place| fits(*place)).skip(skip).take(limit + 1).collect();
        let beyond = (items.len() > limit).then(|| items.pop()).flatten();
        let next = beyond.map(|beyond| match style {
            PagingStyle::Keyset => self.shifted(&items, beyond, count, &fits),
            PagingStyle::Offset => {
                i64::from(from).saturating_add(limit as i64).saturating_add(self.shift()).clamp(0, i64::from(u32::MAX))
                    as u32
            }
        });
        Window { places: items, next }
    }

    /// Moves the begin of the next page by as many items as faults say.
    fn shifted(&self, items: &[u32], beyond: u32, count: u32, fits: &impl Fn(u32) -> bool) -> u32 {
        let shift = self.shift();
        if shift < 0 {
            let back = items.len().saturating_sub(shift.unsigned_abs() as usize);
            return items.get(back).copied().unwrap_or(beyond);
        }
        (beyond..count).filter(|place| fits(*place)).nth(shift as usize).unwrap_or(count)
    }

    fn shift(&self) -> i64 {
        let shifts = self.actions.iter().map(|(action, _)| if let Action::Shift(by) = action { *by } else { 0 });
        shifts.sum()
    }

    /// A chain of pages keeps the page size of its first request unless another one is asked for.
    fn page_size(&self) -> u32 {
        match (&self.cursor, self.parameters.limit) {
            (Some(cursor), None) => cursor.limit,
            _ => self.parameters.page(),
        }
    }

    /// A chain of pages keeps the fields of its first request.
    pub(super) fn fields(&self) -> Option<&Vec<String>> {
        match &self.cursor {
            Some(cursor) => cursor.fields.as_ref(),
            None => self.parameters.fields.as_ref(),
        }
    }

    /// Makes a list of one page, whose link leads to the next, and lets faults play that shorten it or lead astray.
    pub(super) fn list(&self, mut data: Data, window: &Window, related: Option<String>) -> Document {
        let mut paging = Paging { limit: self.page_size(), ..Paging::default() };
        let position = self.cursor.as_ref().map_or(0, |cursor| cursor.position);
        if let Some(next) = window.next {
            self.lead(&mut paging, next);
        }
        for (action, _) in self.actions {
            match action {
                Action::Empty => end(&mut data, &mut paging, 0),
                Action::CutList(keep) => {
                    let kept = (data.len() as f64 * keep).ceil() as usize;
                    end(&mut data, &mut paging, kept);
                }
                Action::EmptyPage => {
                    data.truncate(0);
                    self.lead(&mut paging, window.next.unwrap_or(position));
                }
                Action::Total(by) => paging.total = Some(i64::from(self.fleet().live()) + by),
                Action::NextTo(url) => {
                    self.lead(&mut paging, window.next.unwrap_or(position));
                    paging.next = Some(url.clone());
                }
                Action::NextLoop => self.lead(&mut paging, position),
                _ => {}
            }
        }
        if let Data::List(items) = &mut data {
            self.spoil_items(items);
        }
        self.document(data, Some(paging), related)
    }

    /// Leads to the page that begins at `position`.
    fn lead(&self, paging: &mut Paging, position: u32) {
        let cursor = Cursor {
            list: Cursor::list(self.fleet().org(), &self.asked.path),
            position,
            page: self.cursor.as_ref().map_or(1, |cursor| cursor.page) + 1,
            issued: self.now.wall.timestamp_millis(),
            limit: paging.limit,
            fields: self.fields().cloned(),
        }
        .encode();
        let query = self.parameters.written(self.resource_name(), Some(&cursor));
        paging.next = Some(format!("{}{}{query}", self.asked.base, self.asked.path));
        paging.cursor = Some(cursor);
    }
}

/// Ends the list here.
fn end(data: &mut Data, paging: &mut Paging, kept: usize) {
    data.truncate(kept);
    (paging.next, paging.cursor) = (None, None);
}
