//! Faults by script: what goes wrong, on which answers, how often.
//!
//! A script has one rule a line (or between `;`); `#` begins a comment:
//!
//! ```text
//! TARGET [WHEN …] ACTION [NAME=VALUE …]
//!
//! devices @2          429 retry-after=30      # the second listing answer, then never again
//! *       5%          reset                   # one in twenty, chosen by the seed
//! devices page=3 x1   cut at=60%              # once, on a third page
//! token   @1..3       400
//! /v1/mdmServers/*/relationships/devices  403
//! devices             hang x2
//! ```
//!
//! **TARGET** is `*`, a route (`token`, `devices`, `device`, `assigned-server-id`, `assigned-server`, `servers`,
//! `server`, `linkage`), or a path in which `*` stands for one segment and a last `**` for any rest.
//!
//! **WHEN** narrows it: `@3` the third match, `@2..5`, `@4..` (matches are counted from 1 since the rule was made),
//! `every=7`, `5%` by the seed, `page=2` on that page of a chain, `org=acme`, `x2` at most twice. Only requests with
//! good credentials and inside the rate limit are matches, so that a script means the same at any speed; at the token
//! endpoint every request is.
//!
//! **ACTION**, with what it does and its settings:
//!
//! | action | effect |
//! | --- | --- |
//! | `400` … `599` | that status with an error document; `html` for a front server's page; `retry-after=30`, `retry-after=date:30`, `retry-after=garbage`, `retry-after=none` (429 says 1 otherwise) |
//! | `revoke` | ends the organization's tokens and answers 401 |
//! | `bad-cursor` | 400 for the cursor; `status=410` for another status. Requests without a cursor are no matches |
//! | `reset` | resets the connection before an answer; `at=50%` in its middle |
//! | `hang` | no answer until the client leaves |
//! | `delay` | waits `ms=500` first |
//! | `drip` | a byte a second; `bytes=100` so many |
//! | `cut` | JSON that ends early, in a whole HTTP answer; `at=50%` |
//! | `bad-utf8`, `deep`, `duplicate-keys`, `html` | a body that is no good: a wrong byte, 100,000 brackets, `data` twice, HTML with 200 |
//! | `huge` | `mib=64` of white space in front; `bomb` the same, packed with gzip to a thousandth |
//! | `skip`, `repeat` | the next page begins `n=1` devices late or early, as when devices leave or come between pages |
//! | `empty` | no items and no next page; `empty-page` no items but a next page |
//! | `cut-list` | the list ends here, keeping `keep=10%` of the page |
//! | `total` | `meta.paging.total` wrong `by=5` |
//! | `next-to` | `links.next` leads `to=https://evil.example/v1/orgDevices` |
//! | `next-loop` | the next page is this page again |
//! | `unknown-attribute`, `unknown-status`, `no-serial`, `no-id`, `nameless`, `no-attributes`, `malformed-item`, `wrong-type`, `variant-shapes`, `serial-variant`, `old-updated`, `duplicate` | odd items: `n=1` of them, or `device=SIM0000004` |
//! | `double-link` | `n=1` devices of other servers stand in this linkage list too |
//! | `lag` | this linkage list shows what was `seconds=60` ago |
//! | `date` | the header `Date` is wrong `by=86400` seconds |

mod item;
mod rule;
mod script;

pub(crate) use item::spoil;
pub use rule::{Action, ItemFault, RetryAfter, Rule, Target, When};
pub(crate) use rule::{Match, Plan};
pub use script::{FaultScript, ScriptError};
