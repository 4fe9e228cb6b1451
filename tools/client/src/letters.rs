//! Dead letters: pages of them, and jobs that give them back, push them again or delete them.
//!
//! In: filters, how many, how fast. Out: letters with their messages; jobs, which go on by themselves,
//! also when the client is gone or the server is restarted. Called by users through
//! [`Queue::dead_letters`](crate::Queue::dead_letters), [`Queue::redrive`](crate::Queue::redrive) and
//! their siblings.

use std::future::IntoFuture;

use onrush_protocol::limits::{
    JOB_ERROR_BYTES_MAX, JOB_RATE_MAX, LETTERS_SKIP_MAX, PAGE_ITEMS_MAX,
};
use onrush_protocol::request::{BeginJob, CancelJob, JobAction, ListJobs, ListLetters};
use onrush_protocol::response::{Job, Letter};
use onrush_protocol::{GroupName, LongText, NameError, Request, Response};

use crate::client::{Client, Repeat};
use crate::connection::mismatch;
use crate::desk::{Content, Scope, within};
use crate::error::Error;
use crate::queue::{BoxFuture, Target};

/// A page of dead letters.
#[derive(Clone, Debug)]
pub struct DeadLetterPage {
    /// Newest failure first. Fewer than asked for where they would have been more than a frame takes.
    pub letters: Vec<DeadLetter>,
    /// How many there are in all, where that is known.
    pub total: Option<u64>,
    /// Whether there are more behind these.
    pub has_more: bool,
}

/// A message that a group could not settle.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Where it was, and why it is one.
    pub letter: Letter,
    /// What the message carries, or why the server cannot show that.
    pub content: Result<Content, String>,
}

/// A page of dead letters that was not asked for yet. Await it. It is repeated safely.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct ListOfLetters {
    client: Client,
    scope: Result<Scope, NameError>,
    group: Result<Option<GroupName>, NameError>,
    from_ms: u64,
    to_ms: u64,
    skip: u32,
    limit: u32,
}

impl ListOfLetters {
    pub(crate) fn new(client: Client, scope: Result<Scope, NameError>) -> Self {
        Self { client, scope, group: Ok(None), from_ms: 0, to_ms: 0, skip: 0, limit: 100 }
    }

    /// Only letters of this group.
    pub fn group(mut self, name: &str) -> Self {
        self.group = name.parse().map(Some);
        self
    }

    /// Only letters that failed then or later, in milliseconds since 1970; 0 for no such limit.
    pub fn from_ms(mut self, unix_ms: u64) -> Self {
        self.from_ms = unix_ms;
        self
    }

    /// Only letters that failed then or before, in milliseconds since 1970; 0 for no such limit.
    pub fn to_ms(mut self, unix_ms: u64) -> Self {
        self.to_ms = unix_ms;
        self
    }

    /// Leaves out so many, at most 1 000 000: how to ask for the next page.
    pub fn skip(mut self, letters: u32) -> Self {
        self.skip = letters;
        self
    }

    /// So many, at most: 1 to 1 000. Default: 100.
    pub fn limit(mut self, letters: u32) -> Self {
        self.limit = letters;
        self
    }

    /// Asks for the page; it has no letters where there is no such queue.
    ///
    /// # Errors
    /// [`Error::Value`] and [`Error::Name`] before anything is sent, else any [`Error`] after the last
    /// retry.
    pub async fn send(&self) -> Result<DeadLetterPage, Error> {
        let Scope { queue, partition } = self.scope.clone()?;
        let request = Request::ListLetters(ListLetters {
            skip: within("skip", self.skip, (0, LETTERS_SKIP_MAX))?,
            limit: within("limit", self.limit, (1, PAGE_ITEMS_MAX))?,
            from_ms: self.from_ms,
            to_ms: self.to_ms,
            partition,
            group: self.group.clone()?,
            queue,
        });
        let page = match self.client.request(Repeat::Safe, &request).await? {
            Response::LetterPage(page) => page,
            other => return Err(mismatch("list letters", &other)),
        };
        let letters = page.letters.into_iter().map(|letter| {
            let problem = || letter.problem.as_str().to_owned();
            let content = Content::read(&letter.batch)?.ok_or_else(problem);
            Ok(DeadLetter { letter, content })
        });
        let letters = letters.collect::<Result<_, Error>>()?;
        Ok(DeadLetterPage { letters, total: page.total, has_more: page.has_more })
    }
}

impl IntoFuture for ListOfLetters {
    type Output = Result<DeadLetterPage, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.send().await })
    }
}

/// A job over dead letters that was not begun yet. Await it.
///
/// It is not repeated when its outcome is unknown: a second job would find what the first has left. It
/// goes on by itself; [`Client::jobs`] tells how far it is.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct LetterJob {
    client: Client,
    target: Result<Target, NameError>,
    action: Result<JobAction, NameError>,
    group: Result<Option<GroupName>, NameError>,
    error: String,
    limit: u64,
    rate: u32,
    dry_run: bool,
}

impl LetterJob {
    pub(crate) fn new(
        client: Client,
        target: Result<Target, NameError>,
        action: Result<JobAction, NameError>,
    ) -> Self {
        let (group, error) = (Ok(None), String::new());
        Self { client, target, action, group, error, limit: 0, rate: 0, dry_run: false }
    }

    /// Only letters of this group.
    pub fn group(mut self, name: &str) -> Self {
        self.group = name.parse().map(Some);
        self
    }

    /// Only letters whose error has this in it, at most 1 024 bytes.
    pub fn error_contains(mut self, text: &str) -> Self {
        text.clone_into(&mut self.error);
        self
    }

    /// So many letters, at most; 0 for all. Default: all.
    pub fn limit(mut self, letters: u64) -> Self {
        self.limit = letters;
        self
    }

    /// So many letters a second, at most 1 000 000; 0 for as fast as it goes. Default: that.
    pub fn rate(mut self, letters_per_second: u32) -> Self {
        self.rate = letters_per_second;
        self
    }

    /// Whether letters are only counted. Default: no.
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Begins the job; returns it as it was then.
    ///
    /// # Errors
    /// [`Error::Value`] and [`Error::Name`] before anything is sent; [`Error::Refused`] when there is no
    /// such queue, or as many jobs as may run do so.
    pub async fn send(self) -> Result<Job, Error> {
        let target = self.target?;
        let bytes = u32::try_from(self.error.len()).unwrap_or(u32::MAX);
        within("error", bytes, (0, JOB_ERROR_BYTES_MAX as u32))?;
        let request = Request::BeginJob(BeginJob {
            action: self.action?,
            queue: target.queue,
            group: self.group?,
            partition: target.partition,
            error: LongText::lossy(&self.error),
            limit: self.limit,
            rate: within("rate", self.rate, (0, JOB_RATE_MAX))?,
            dry_run: self.dry_run,
        });
        match self.client.request(Repeat::Unsafe, &request).await? {
            Response::JobBegun(job) => Ok(job),
            other => Err(mismatch("begin job", &other)),
        }
    }
}

impl IntoFuture for LetterJob {
    type Output = Result<Job, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// Jobs that the server remembers, newest first.
pub(crate) async fn jobs(client: &Client) -> Result<Vec<Job>, Error> {
    match client.request(Repeat::Safe, &Request::ListJobs(ListJobs {})).await? {
        Response::Jobs(jobs) => Ok(jobs.jobs),
        other => Err(mismatch("list jobs", &other)),
    }
}

pub(crate) async fn cancel(client: &Client, id: u32) -> Result<Job, Error> {
    match client.request(Repeat::Safe, &Request::CancelJob(CancelJob { id })).await? {
        Response::JobCancelled(job) => Ok(job),
        other => Err(mismatch("cancel job", &other)),
    }
}
