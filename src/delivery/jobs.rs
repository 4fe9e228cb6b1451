//! The runner of jobs over dead letters: takes the next letters, reads what must be read, and has them
//! moved, step by step.
//!
//! In: jobs as the catalog has them. Out: steps, each of which is one append that moves letters and
//! says so in the job. So the runner keeps nothing: whoever ends it, in whatever moment, and whoever
//! goes on, every letter is moved once. Where several engines share a store, each takes up only its own
//! jobs and those that nobody has taken a step of for a while. Started by the server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use onrush_protocol::name::{GroupName, PartitionName};
use tokio::sync::watch;

use crate::delivery::carry;
use crate::sealing::Place;
use crate::shard::Engine;
use crate::shard::command::CommandError;
use crate::shard::look::letters::{LetterFilter, NextLetter, ShownLetter};
use crate::shard::tend::{Ask, JobStep, LetterBatch};
use crate::state::care::graves::DeadKey;
use crate::state::care::job::{Action, Job, JobId, LetterKey};
use crate::state::draft::care::LetterBody;

/// Letters of one step that need no body.
const LETTERS_PER_STEP: usize = 1_000;
/// Letters of one step whose bodies are read.
const BODIES_PER_STEP: usize = 200;
/// Bytes of bodies of one step, which is one append; a single letter may have more. Messages are handed out
/// meanwhile, and wait for no append that is much larger than their own.
const BODY_BYTES_PER_STEP: u64 = 8 << 20;
/// How often to look for work where there was none.
const PAUSE: Duration = Duration::from_millis(250);
/// After this long without a step a job is anybody's, milliseconds.
const STALE_MS: u64 = 5_000;

/// A job whose last step was not taken.
struct Failing {
    /// Why; said once.
    words: String,
    /// When it is tried again, unix milliseconds.
    again_ms: u64,
}

/// Jobs whose last step was not taken.
type FailingJobs = BTreeMap<JobId, Failing>;

/// Takes steps of jobs until the server stops.
pub async fn run(engine: Arc<Engine>, is_alone: bool, mut stop: watch::Receiver<bool>) {
    let mut failing = FailingJobs::new();
    loop {
        let goes_on = round(&engine, is_alone, &mut failing).await;
        let pause = if goes_on { Duration::ZERO } else { PAUSE };
        if *stop.borrow() {
            return;
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One step of each job; whether there is more to do at once. One whose step is not taken holds up no
/// other: nothing of it is lost, and it is tried again.
async fn round(engine: &Arc<Engine>, is_alone: bool, failing: &mut FailingJobs) -> bool {
    let jobs: Vec<Arc<Job>> = engine.catalog_now().jobs().running().cloned().collect();
    let (mut goes_on, now_ms) = (false, engine.clock().now_ms());
    failing.retain(|id, _| jobs.iter().any(|job| job.id == *id));
    for job in jobs {
        let is_mine = is_alone || job.engine == engine.number();
        let is_stale = job.stepped_ms.saturating_add(STALE_MS) < now_ms;
        let rests = failing.get(&job.id).is_some_and(|it| now_ms < it.again_ms);
        if rests || !(is_mine || is_stale) || !is_due(&job, now_ms) {
            continue;
        }
        match step(engine, &job).await {
            Ok(more) => {
                failing.remove(&job.id);
                goes_on |= more;
            }
            Err(error) => {
                let words = error.to_string();
                if failing.get(&job.id).is_none_or(|it| it.words != words) {
                    tracing::error!(job = job.id, error = words, "a job's step was not taken");
                }
                let again_ms = now_ms.saturating_add(PAUSE.as_millis() as u64);
                failing.insert(job.id, Failing { words, again_ms });
            }
        }
    }
    goes_on
}

/// Whether a job that may move only so many a second may take its next step.
fn is_due(job: &Job, now_ms: u64) -> bool {
    let since_ms = now_ms.saturating_sub(job.created_ms);
    let allowed = u128::from(job.rate) * u128::from(since_ms) / 1000;
    // The first second's share goes at once.
    job.rate == 0 || u128::from(job.moved) < allowed + u128::from(job.rate)
}

/// Takes one step; whether another may follow at once.
async fn step(engine: &Arc<Engine>, job: &Job) -> Result<bool, CommandError> {
    let Some(filter) = filter(engine, job) else {
        let problem = Some("the queue was deleted".into());
        engine.tend(Ask::Step(Box::new(JobStep { problem, ..blank(job) }))).await?;
        return Ok(false);
    };
    let needs_bodies = job.error.is_some() || matches!(job.action, Action::Requeue { .. });
    let most = if needs_bodies { BODIES_PER_STEP } else { LETTERS_PER_STEP };
    let most = if job.rate > 0 { most.min(job.rate as usize) } else { most };
    let found = engine.next_letters(filter, job.cursor, job.created_ms, most).await?;
    let (mut places, mut cursor) = found;
    let is_gone = places.iter().any(|letter| letter.is_gone);
    let (batches, skipped) = match needs_bodies || is_gone || goes_by_age(engine, job) {
        true => {
            cursor = cut(&mut places, BODY_BYTES_PER_STEP).or(cursor);
            with_bodies(engine, job, places).await?
        }
        false => (batches(places.into_iter().map(|letter| (letter.key, None))), 0),
    };
    let is_end = cursor.is_none();
    let step = JobStep { batches, skipped, cursor, is_end, ..blank(job) };
    engine.tend(Ask::Step(Box::new(step))).await?;
    // A job that begins again at its end waits for consumers that hold messages.
    Ok(!is_end && job.rate == 0)
}

/// Leaves as many letters as have `bytes` together, one at least; returns where the next step begins if
/// some were taken away.
fn cut(places: &mut Vec<NextLetter>, bytes: u64) -> Option<LetterKey> {
    let mut sum = 0;
    let fits = |letter: &&NextLetter| {
        sum += u64::from(letter.place.len);
        sum <= bytes
    };
    let keep = places.iter().take_while(fits).count().max(1);
    if keep >= places.len() {
        return None;
    }
    places.truncate(keep);
    places.last().map(|NextLetter { key: (partition, group, seq), .. }| {
        (*partition, *group, seq.saturating_add(1))
    })
}

fn blank(job: &Job) -> JobStep {
    JobStep {
        job: job.id,
        batches: Vec::new(),
        skipped: 0,
        from: job.cursor,
        cursor: job.cursor,
        is_end: false,
        problem: None,
    }
}

/// Which letters a job is about; `None` when its queue is gone.
fn filter(engine: &Engine, job: &Job) -> Option<LetterFilter> {
    let catalog = engine.catalog_now();
    catalog.get(job.queue)?;
    if let Action::Requeue { queue, .. } = job.action {
        catalog.get(queue)?;
    }
    // Both were names when the job was made.
    let group = job.group.as_ref().and_then(|name| name.parse::<GroupName>().ok());
    let partition = job.partition.as_ref().and_then(|name| name.parse::<PartitionName>().ok());
    Some(LetterFilter { queue: Some(job.queue), group, partition, from_ms: None, to_ms: None })
}

/// Whether messages of the queue go by age: then those of letters may have to be pushed again.
fn goes_by_age(engine: &Engine, job: &Job) -> bool {
    let catalog = engine.catalog_now();
    let by_age = catalog.get(job.queue).is_some_and(|queue| {
        queue.options.retention_enabled || queue.has_ttl() || queue.options.max_wait_time_s > 0
    });
    by_age && matches!(job.action, Action::Redrive) && !job.dry_run
}

async fn with_bodies(
    engine: &Arc<Engine>,
    job: &Job,
    places: Vec<NextLetter>,
) -> Result<(Vec<LetterBatch>, u64), CommandError> {
    let (mut wanted, mut skipped) = (Vec::new(), 0);
    for some in places.chunks(BODIES_PER_STEP) {
        let some = some.iter().map(|it| (it.key, it.place)).collect();
        for shown in engine.read_letters(some).await? {
            let letter = &shown.letter;
            let says = |text: &str| letter.error.contains(text);
            if !job.error.as_deref().is_none_or(says) {
                skipped += 1;
                continue;
            }
            let key = (letter.partition, letter.group, letter.seq);
            match carry(engine, &shown, destination(job, &shown)) {
                Ok(batch) => {
                    wanted.push((key, Some(LetterBody { batch, sub: letter.sub.clone() })));
                }
                Err(error) => {
                    let (partition, seq) = (&shown.partition_name, letter.seq);
                    tracing::error!(%partition, seq, error, "a dead letter stays where it is");
                    skipped += 1;
                }
            }
        }
    }
    Ok((batches(wanted.into_iter()), skipped))
}

/// Where a letter's message comes to stand.
fn destination<'a>(job: &'a Job, shown: &'a ShownLetter) -> Place<'a> {
    match &job.action {
        Action::Requeue { queue, partition } => {
            let partition = partition.as_deref().unwrap_or(&shown.partition_name);
            Place { queue: *queue, partition }
        }
        _ => Place { queue: shown.queue, partition: &shown.partition_name },
    }
}

/// Letters by partition and group, as a draft wants them.
fn batches(letters: impl Iterator<Item = (DeadKey, Option<LetterBody>)>) -> Vec<LetterBatch> {
    let mut batches: Vec<LetterBatch> = Vec::new();
    for ((partition, group, seq), body) in letters {
        match batches.last_mut().filter(|it| (it.partition, it.group) == (partition, group)) {
            Some(batch) => batch.letters.push((seq, body)),
            None => batches.push(LetterBatch { partition, group, letters: vec![(seq, body)] }),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::care::graves::DeadPlace;

    fn letters(lens: &[u32]) -> Vec<NextLetter> {
        let letter = |(seq, len): (u64, &u32)| {
            let place = DeadPlace { position: 0, len: *len, failed_ms: 0 };
            NextLetter { key: (7, 1, seq), place, is_gone: false }
        };
        (0..).zip(lens).map(letter).collect()
    }

    #[test]
    fn a_step_takes_letters_up_to_its_bytes_and_one_at_least() {
        let left = |lens: &[u32]| {
            let mut letters = letters(lens);
            let next = cut(&mut letters, 10);
            (letters.len(), next)
        };
        assert_eq!(left(&[4, 4, 4, 4]), (2, Some((7, 1, 2))));
        assert_eq!(left(&[5, 5]), (2, None), "all of them");
        assert_eq!(left(&[11, 1]), (1, Some((7, 1, 1))), "a large one goes alone");
        assert_eq!(left(&[11]), (1, None));
        assert_eq!(left(&[]), (0, None));
    }
}
