//! One scan: servers, linkage lists, pages, and its end; each step committed before the next request.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::{Instrument, info, info_span, warn};
use windfall_runtime::diagnose::Diagnose;
use windfall_runtime::failpoint;
use windfall_runtime::telemetry::chain;
use windfall_schemas::envelope::Channel;
use windfall_schemas::identifiers::DeviceId;
use windfall_schemas::server::ServerValue;

use super::asking::TRIES;
use super::session::{Session, millis};
use super::telling;
use super::{Interruption, Source};
use crate::apple::{Cursor, DirectoryError, Page, PageOf, PagingError, Retry, Trail};
use crate::assignment::Assignments;
use crate::checkpoint::Header;
use crate::event::Seen;
use crate::ledger::LedgerError;
use crate::notice;
use crate::step::{self, Moment, ReadServers, Step};

/// After so many expired cursors in a row the list itself is at fault, and the scan is given up.
const MOST_RESTARTS: u32 = 3;
/// Look-ups get about half of the requests of a long scan while any are due: so many of them, then so many pages.
const LOOK_UPS_BETWEEN_PAGES: usize = 4;
const PAGES_BETWEEN_LOOK_UPS: u32 = 4;
/// Devices of one scan whose server is read singly at most: a broken linkage list must not use the budget up.
const MOST_SINGLE_READS: usize = 20;

/// The requests of a scan: those before it was resumed, and those since.
#[derive(Debug, Clone, Copy)]
struct Counted {
    earlier: u64,
    from: u64,
}

impl Counted {
    fn until(self, newest: u64) -> u64 {
        self.earlier + newest.saturating_sub(self.from)
    }
}

/// How one pass over the pages ended.
enum Pass {
    Ended(Header),
    /// The header, and what Apple said.
    CursorExpired(Header, String),
}

impl Session<'_> {
    /// Reads everything once, from where an interrupted scan stopped or from the beginning, and ends the scan.
    pub(super) async fn scan(&mut self) -> Result<Header, Interruption> {
        let mut header = self.resume_or_begin();
        loop {
            let span = info_span!("scan", org = self.source.org(), scan_id = header.scan_id);
            match self.pass(header).instrument(span).await? {
                Pass::Ended(header) => return Ok(header),
                Pass::CursorExpired(expired, why) if expired.restarts < MOST_RESTARTS => {
                    warn!(
                        source = self.source.org(),
                        restarts = expired.restarts,
                        why,
                        "cursor expired, beginning anew"
                    );
                    header = self.begin_anew(Some(&expired));
                    header.restarts = expired.restarts + 1;
                }
                Pass::CursorExpired(expired, why) => {
                    let why = format!("the cursor expired in {} scans in a row: {why}", expired.restarts + 1);
                    return self.give_up(&expired, &why).await;
                }
            }
        }
    }

    fn resume_or_begin(&self) -> Header {
        let last = self.memory.scans.devices.as_ref();
        let within = millis(self.source.config.scan.resume_within.get());
        match last {
            Some(header) if header.resumable(self.now(), within) => {
                info!(source = self.source.org(), scan_id = header.scan_id, page = header.page, "scan resumed");
                Header { instance: self.source.instance.clone(), ..header.clone() }
            }
            last => self.begin_anew(last),
        }
    }

    fn begin_anew(&self, last: Option<&Header>) -> Header {
        let header = Header::begin(self.source.org(), last, &self.source.instance, self.now());
        info!(source = self.source.org(), scan_id = header.scan_id, "scan begins");
        header
    }

    async fn pass(&mut self, mut header: Header) -> Result<Pass, Interruption> {
        let began = self.now();
        if !header.pages_done() {
            let counted = Counted { earlier: header.requests, from: self.newest_request };
            let (read, mut assignments) = self.read_servers().await?;
            failpoint!("producer.servers.before");
            header.requests = counted.until(self.newest_request);
            let begun = self.commit_servers(&header, read).await?;
            failpoint!("producer.servers.after");
            header = match self.pages(begun, &mut assignments, counted, began).await? {
                Pass::Ended(header) => header,
                expired @ Pass::CursorExpired(..) => return Ok(expired),
            };
        }
        self.end(&header, began).await.map(Pass::Ended)
    }

    async fn pages(
        &mut self,
        mut header: Header,
        assignments: &mut Assignments,
        mut counted: Counted,
        began: i64,
    ) -> Result<Pass, Interruption> {
        let mut cursor = header.cursor.clone().and_then(Cursor::new);
        let mut trail = Trail::new(cursor.as_ref());
        let directory = self.directory;
        let mut single_reads = MOST_SINGLE_READS;
        loop {
            failpoint!("producer.page_fetch.before");
            let page = match self.ask(TRIES, || directory.page(cursor.as_ref())).await {
                Ok(page) => page,
                Err(Interruption::Directory(error @ DirectoryError::CursorRefused { .. })) => {
                    return Ok(Pass::CursorExpired(header, chain(&error).to_string()));
                }
                Err(Interruption::Directory(error)) => return Err(self.put_off(&header, error).await?),
                Err(other) => return Err(other),
            };
            failpoint!("producer.page_fetch.after");
            self.newest_request = page.answer.number;
            self.page_answered();
            if let Err(error) = walk(&mut trail, &page, |device| &device.device_id) {
                let why = chain(&error).to_string();
                return self.give_up(&header, &why).await.map(Pass::Ended);
            }
            single_reads -= self.settle_doubts(&header, assignments, &page, single_reads).await?;
            header.requests = counted.until(self.newest_request);
            cursor.clone_from(&page.next);
            failpoint!("producer.page_commit.before");
            let (step, moved) = self.commit_page(&header, assignments, page).await?;
            failpoint!("producer.page_commit.after");
            header = moved;
            telling::page(self.source, &header, &step, &self.memory, &self.directory.pace(), began);
            if cursor.is_none() {
                return Ok(Pass::Ended(header));
            }
            if header.page.is_multiple_of(PAGES_BETWEEN_LOOK_UPS) {
                let before = self.newest_request;
                self.look_up_due(LOOK_UPS_BETWEEN_PAGES, |_| false).await?;
                // They are not requests of the scan.
                counted.from += self.newest_request - before;
            }
        }
    }

    /// Commits the beginning of a scan; a server whose record cannot be written stays as known.
    async fn commit_servers(&mut self, header: &Header, mut read: ReadServers) -> Result<Header, Interruption> {
        loop {
            let (mut step, begun) = step::begin(&self.source.origin, &self.memory, header, &read, self.now());
            let told = self.retell_servers(header, &read, &mut step);
            step.parts.splice(0..0, self.signals_part());
            let Err(unwritable) = self.commit_writable(&step).await? else {
                self.unreadable.servers.retain(|id, _| !told.contains(id));
                telling::unreadable(&self.source.part, &self.unreadable);
                return Ok(begun);
            };
            if step::reject_of_servers(&mut read, &unwritable) == 0 {
                return Err(LedgerError::Unwritable(unwritable).into());
            }
        }
    }

    /// Commits a page; a device whose record cannot be written becomes a reject, and the rest of the page stands.
    async fn commit_page(
        &mut self,
        header: &Header,
        assignments: &Assignments,
        mut page: Page,
    ) -> Result<(Step, Header), Interruption> {
        loop {
            let Source { origin, breaker, .. } = self.source;
            let (mut step, mut moved) =
                step::page(origin, breaker, &self.memory, header, assignments, page.clone(), self.now());
            let told = self.retell_devices(&mut moved, &page, &mut step);
            let Err(unwritable) = self.commit_writable(&step).await? else {
                self.unreadable.devices.retain(|id, _| !told.contains(id));
                telling::unreadable(&self.source.part, &self.unreadable);
                return Ok((step, moved));
            };
            if step::reject_of_page(&mut page, &unwritable) == 0 {
                return Err(LedgerError::Unwritable(unwritable).into());
            }
        }
    }

    /// Publishes devices of a page again whose newest record cannot be read; returns the ids of the page.
    fn retell_devices(&self, header: &mut Header, page: &Page, step: &mut Step) -> BTreeSet<String> {
        let origin = &self.source.origin;
        let seen = self.seen(header, page.answer.received_at.timestamp_millis(), Some(header.page));
        let met: BTreeSet<String> = step.observed.iter().map(|(id, _)| id.clone()).collect();
        let (fleet, unreadable) = (&self.memory.fleet, &self.unreadable.devices);
        for (id, place) in unreadable.iter().filter(|(id, _)| met.contains(*id)) {
            let told = step::retell(origin, &seen, (id, &place.to_string()), fleet.get(id).as_ref(), &mut step.devices);
            if let Some(planned) = told {
                step::count_again(origin, header, step, planned.as_ref());
            }
        }
        met
    }

    fn retell_servers(&self, header: &Header, read: &ReadServers, step: &mut Step) -> BTreeSet<String> {
        let origin = &self.source.origin;
        let seen = self.seen(header, read.read_at, None);
        let met: BTreeSet<String> = read.servers.iter().map(|server| server.server_id.clone()).collect();
        let (servers, unreadable) = (&self.memory.servers, &self.unreadable.servers);
        for (id, place) in unreadable.iter().filter(|(id, _)| met.contains(*id)) {
            let _ = step::retell(origin, &seen, (id, &place.to_string()), servers.get(id), &mut step.servers);
        }
        met
    }

    fn seen(&self, header: &Header, read_at: i64, page: Option<u32>) -> Seen {
        let (channel, scan, made_at) = (Channel::Scan, Some(header.at(page)), self.now());
        Seen { channel, scan, read_at, made_at, request_id: None, url: None }
    }

    /// Asks for the management service of those devices that lists and status cannot tell; returns how many it asked for.
    async fn settle_doubts(
        &mut self,
        header: &Header,
        assignments: &mut Assignments,
        page: &Page,
        most: usize,
    ) -> Result<usize, Interruption> {
        if most == 0 {
            return Ok(0);
        }
        let mut doubtful = step::in_doubt(header, assignments, page);
        doubtful.truncate(most);
        let directory = self.directory;
        for device_id in &doubtful {
            let Ok(id) = DeviceId::parse(device_id) else { continue };
            match self.ask(TRIES, || directory.assigned_server(&id)).await {
                Ok(read) => {
                    self.newest_request = read.answer.number;
                    assignments.settle(device_id, read.server_id, read.answer.number);
                }
                Err(Interruption::Directory(error)) => {
                    warn!(source = self.source.org(), error = %chain(&error), "server not read singly, as last known");
                }
                Err(other) => return Err(other),
            }
        }
        Ok(doubtful.len())
    }

    /// Reads the servers and their linkage lists; what cannot be read is noted, and nothing is unassigned by it.
    async fn read_servers(&mut self) -> Result<(ReadServers, Assignments), Interruption> {
        let directory = self.directory;
        let fetch = |cursor: Option<Cursor>| async move { directory.servers(cursor.as_ref()).await };
        let listed = self.list(fetch, |server| &server.server_id).await;
        let (pages, cut) = partial(listed)?;
        let mut read = ReadServers::listed(&self.memory, pages, cut, self.now());
        let names: BTreeMap<String, String> = read
            .servers
            .iter()
            .map(|server| (server.server_id.clone(), server.server_name.clone().unwrap_or_default()))
            .collect();
        let mut assignments = Assignments::new(names, read.complete, self.newest_request);
        for server in read.servers.clone() {
            self.read_linkage(&server, &mut assignments, &mut read.faults).await?;
        }
        assignments.read_by(self.newest_request);
        Ok((read, assignments))
    }

    async fn read_linkage(
        &mut self,
        server: &ServerValue,
        assignments: &mut Assignments,
        faults: &mut Vec<String>,
    ) -> Result<(), Interruption> {
        let directory = self.directory;
        let fetch = |cursor: Option<Cursor>| async move { directory.linkage(&server.server_id, cursor.as_ref()).await };
        let (pages, cut) = match self.list(fetch, DeviceId::as_str).await {
            Err((pages, Cut::Interrupted(Interruption::Directory(DirectoryError::NotFound(_)))))
                if step::has_nobody(server) =>
            {
                (pages, None)
            }
            listed => partial(listed)?,
        };
        faults.extend(step::link(assignments, &server.server_id, &pages, cut));
        Ok(())
    }

    /// Reads a list to its end; on an error what was read so far comes with it.
    async fn list<T, F>(&mut self, fetch: impl Fn(Option<Cursor>) -> F, name: impl Fn(&T) -> &str) -> Listed<T>
    where
        F: Future<Output = Result<PageOf<T>, DirectoryError>>,
    {
        let mut pages: Vec<PageOf<T>> = Vec::new();
        let mut cursor = None;
        let mut trail = Trail::new(None);
        loop {
            let page = match self.ask(TRIES, || fetch(cursor.clone())).await {
                Ok(page) => page,
                Err(interruption) => return Err((pages, Cut::Interrupted(interruption))),
            };
            self.newest_request = page.answer.number;
            let step = walk(&mut trail, &page, &name);
            cursor.clone_from(&page.next);
            pages.push(page);
            if let Err(error) = step {
                return Err((pages, Cut::Astray(error)));
            }
            if cursor.is_none() {
                return Ok(pages);
            }
        }
    }

    /// Ends a scan whose last page is done.
    async fn end(&mut self, header: &Header, began: i64) -> Result<Header, Interruption> {
        let at = self.now();
        let origin = self.source.origin.clone();
        let moment = Moment { wall: at, steady: self.steady_now() };
        let (mut step, ended) = step::close(&origin, &self.source.breaker, &self.memory, header, moment);
        step.notifications.push(notice::completed(&origin, &ended, self.ledger.ends(), at));
        failpoint!("producer.scan_close.before");
        match self.commit(&step).await {
            // Nothing was written: the scan is given up with a short record, and the next one begins.
            Err(Interruption::Ledger(LedgerError::Encode(error))) => {
                return self.give_up(header, &format!("its end could not be written: {error}")).await;
            }
            committed => committed?,
        }
        failpoint!("producer.scan_close.after");
        self.commit(&step::forget_seen(&origin, &self.memory)).await?;
        failpoint!("producer.seen_forgotten.after");
        let elapsed = Duration::from_millis(u64::try_from(at - began).unwrap_or(0));
        telling::ended(self.source, &ended, &self.memory, elapsed);
        Ok(ended)
    }

    /// Leaves a scan to be resumed after passing trouble, or gives it up where another try cannot help.
    async fn put_off(&mut self, header: &Header, error: DirectoryError) -> Result<Interruption, Interruption> {
        if error.retry() == Retry::Never {
            let why = chain(&error).to_string();
            self.give_up(header, &why).await?;
        }
        Ok(Interruption::Directory(error))
    }

    async fn give_up(&mut self, header: &Header, why: &str) -> Result<Header, Interruption> {
        let origin = self.source.origin.clone();
        let (step, ended) = step::give_up(&origin, header, why, self.now());
        self.commit(&step).await?;
        self.commit(&step::forget_seen(&origin, &self.memory)).await?;
        warn!(source = self.source.org(), scan_id = ended.scan_id, why, "scan given up");
        Ok(ended)
    }
}

/// Adds a page to the trail; an error means that the list must be given up.
fn walk<T>(trail: &mut Trail, page: &PageOf<T>, name: impl Fn(&T) -> &str) -> Result<(), PagingError> {
    if page.next.is_some() {
        trail.page(page.items.iter().map(|item| name(&item.value)))?;
    }
    trail.step(page.next.as_ref())
}

type Listed<T> = Result<Vec<PageOf<T>>, (Vec<PageOf<T>>, Cut)>;

/// Why a list was not read to its end.
enum Cut {
    Interrupted(Interruption),
    /// Its next links lead in a circle, or on without end.
    Astray(PagingError),
}

/// Splits a list into what was read and why it ended early; errors that touch every request are passed on.
fn partial<T>(listed: Listed<T>) -> Result<(Vec<PageOf<T>>, Option<String>), Interruption> {
    let (pages, cut) = match listed {
        Ok(pages) => return Ok((pages, None)),
        Err(cut) => cut,
    };
    match cut {
        Cut::Interrupted(Interruption::Directory(
            error @ (DirectoryError::Token(_) | DirectoryError::Unauthorized(_)),
        )) => Err(Interruption::Directory(error)),
        Cut::Interrupted(Interruption::Directory(error)) => Ok((pages, Some(chain(&error).to_string()))),
        Cut::Interrupted(other) => Err(other),
        Cut::Astray(error) => Ok((pages, Some(chain(&error).to_string()))),
    }
}
