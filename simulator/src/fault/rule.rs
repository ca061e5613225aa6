//! One rule of a fault script as values.

use std::time::Duration;

use serde::Deserialize;

/// One rule: where, when, what.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Answers that it is about.
    pub target: Target,
    /// Which of them it plays in.
    pub when: When,
    /// What it does.
    pub action: Action,
    /// The rule as it was written.
    pub text: String,
}

/// Answers that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// All.
    All,
    /// Those of a route, by the name that the journal uses.
    Route(String),
    /// Those of paths that fit a pattern.
    Path(String),
}

/// Which matches a rule plays in: all conditions hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct When {
    /// First match, counted from 1.
    pub from: Option<u64>,
    /// Last match.
    pub to: Option<u64>,
    /// Every so manieth match.
    pub every: Option<u64>,
    /// By chance, from 0 to 1.
    pub chance: Option<f64>,
    /// On this page of a chain.
    pub page: Option<u32>,
    /// In this organization.
    pub org: Option<String>,
    /// At most so often.
    pub times: Option<u64>,
}

/// What `Retry-After` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// Whole seconds.
    Seconds(u32),
    /// An HTTP date so many seconds ahead.
    Date(u32),
    /// Nothing that can be understood.
    Garbage,
    /// The header is missing.
    Missing,
}

/// What is odd about an item, by the name that it has in a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ItemFault {
    /// An attribute that nobody knows.
    UnknownAttribute,
    /// A status that nobody knows.
    UnknownStatus,
    /// No `serialNumber`.
    NoSerial,
    /// No `id`.
    NoId,
    /// Neither `id` nor `serialNumber`.
    Nameless,
    /// No `attributes`.
    NoAttributes,
    /// Text that is JSON but no resource.
    #[serde(rename = "malformed-item")]
    Malformed,
    /// A number where a text belongs.
    WrongType,
    /// Strings for arrays, arrays for strings, `purchaseSourceUid`: as older answers had them.
    VariantShapes,
    /// The serial number in lower case with a space behind.
    SerialVariant,
    /// `updatedDateTime` a day earlier than it is.
    OldUpdated,
    /// The item twice in a page.
    Duplicate,
}

/// What a fault does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Another status instead of the answer.
    Status {
        /// The status.
        status: u16,
        /// The header `Retry-After`.
        retry_after: RetryAfter,
        /// HTML instead of an error document.
        html: bool,
    },
    /// Ends the organization's tokens and answers 401.
    Revoke,
    /// Refuses the cursor with this status.
    BadCursor(u16),
    /// Resets the connection; after a share of the body when one is given.
    Reset(Option<f64>),
    /// Never answers.
    Hang,
    /// Answers late.
    Delay(Duration),
    /// Sends so many bytes a second.
    Drip(usize),
    /// Cuts the JSON after a share of it.
    Cut(f64),
    /// Puts a byte into the body that is no UTF-8.
    BadUtf8,
    /// Puts a value of 100,000 brackets into the body.
    Deep,
    /// Puts the member `data` into the body twice, empty the second time.
    DuplicateKeys,
    /// Answers 200 with HTML.
    Html,
    /// Puts so many MiB of white space in front.
    Huge(u64),
    /// Packs so many MiB of white space and the body with gzip, whatever the client asked for.
    Bomb(u64),
    /// Moves the begin of the next page by so many devices: forward skips, backward repeats.
    Shift(i64),
    /// No items and no next page.
    Empty,
    /// No items but a next page.
    EmptyPage,
    /// Ends the list here and keeps a share of the page.
    CutList(f64),
    /// Gives `meta.paging.total`, wrong by so many.
    Total(i64),
    /// Leads `links.next` elsewhere.
    NextTo(String),
    /// Leads to the same page again.
    NextLoop,
    /// Odd items.
    Item {
        /// What is odd.
        fault: ItemFault,
        /// How many items.
        count: usize,
        /// This device instead.
        device: Option<String>,
    },
    /// So many devices of other servers stand in this linkage list too.
    DoubleLink(usize),
    /// The linkage list shows what was so long ago.
    Lag(Duration),
    /// The header `Date` is wrong by so many seconds.
    Date(i64),
}
