//! What operators ask, in a round: every move and the job that it belongs to are one append, whatever
//! shards they touch, and nothing of them is where any part cannot be decided. Called by `round`.

use crate::base::place::{PartitionNumber, QueueId};
use crate::shard::round::{Outcome, Round};
use crate::shard::tend::{Ask, JobStep, LetterBatch, Tended};
use crate::state::care::Care;
use crate::state::care::job::{Action, Job, JobId, JobState, RUNNING_MAX};
use crate::state::draft::DecideError;
use crate::state::draft::care::{Deletion, LetterMove};
use crate::state::effect::{Effect, GroupIndex, Sequence};

type Decided<T> = Result<T, DecideError>;

impl Round<'_> {
    pub(super) fn tend(&mut self, ask: &Ask) -> Outcome {
        // Drafts cannot take back that messages are deleted, and nothing of that is refused half way.
        let may_be_undone = !matches!(ask, Ask::Erase { .. } | Ask::Clear(_));
        match self.whole(may_be_undone, |round| round.tend_one(ask)) {
            Ok(tended) => Outcome::Tended(tended),
            Err(error) => Outcome::Failed(error),
        }
    }

    fn tend_one(&mut self, ask: &Ask) -> Decided<Tended> {
        self.sync();
        Ok(match ask {
            Ask::Begin(job) => Tended::Job(self.begin_job(job)),
            Ask::Cancel(id) => Tended::Job(self.cancel_job(*id)),
            Ask::Step(step) => Tended::Job(self.step_job(step)?),
            Ask::Retry { partition, seq, group, body } => {
                let groups = self.groups_of(*partition, group.as_ref().map(|it| it.as_str()));
                let mut moves = Vec::new();
                for group in groups {
                    let letters = [(*seq, body.clone())];
                    let shard = self.replica.count().of_partition(*partition);
                    if let Some(draft) = self.draft(shard) {
                        moves.extend(draft.redrive(*partition, group, &letters)?);
                    }
                }
                Tended::Moves(moves)
            }
            Ask::Erase { partition, seq } => {
                let shard = self.replica.count().of_partition(*partition);
                let deleted = self.draft(shard).map(|draft| draft.erase(*partition, *seq));
                let is_done = matches!(deleted.transpose()?, Some(Deletion::Done));
                Tended::Count(is_done.then_some(1))
            }
            Ask::Bury { partition, seq, group, error } => {
                let group = group.as_ref().map(|it| it.as_str());
                Tended::Count(self.bury_one(*partition, *seq, group, error)?)
            }
            Ask::Clear(partitions) => {
                let mut gone = 0;
                for partition in partitions {
                    let shard = self.replica.count().of_partition(*partition);
                    gone += self.draft(shard).map_or(0, |draft| draft.clear(*partition));
                }
                Tended::Count(Some(gone))
            }
            Ask::Trace(event) => {
                self.catalog.push(Effect::Care(Care::Trace(event.clone())));
                Tended::Count(Some(1))
            }
        })
    }

    fn bury_one(
        &mut self,
        partition: PartitionNumber,
        seq: Sequence,
        group: Option<&str>,
        error: &str,
    ) -> Decided<Option<u64>> {
        let shard = self.replica.count().of_partition(partition);
        let Some(draft) = self.draft(shard) else { return Ok(None) };
        Ok(draft.bury(partition, seq, group, error)?.map(u64::from))
    }

    /// Groups of a partition, and those that were deleted and left dead letters in it.
    fn groups_of(&self, partition: PartitionNumber, name: Option<&str>) -> Vec<GroupIndex> {
        let shard = usize::from(self.replica.count().of_partition(partition));
        let Some(state) = self.replica.shards.get(shard) else { return Vec::new() };
        let Some(held) = state.partition(partition) else { return Vec::new() };
        let is_asked = |group: &GroupIndex| {
            name.is_none_or(|name| state.group_at(*group).is_some_and(|it| *it.name == *name))
        };
        let ended = state.dead_of_ended(partition).map(|(group, _)| group);
        held.cursors.iter().map(|cursor| cursor.group).chain(ended).filter(is_asked).collect()
    }

    /// A job with what this round did to it.
    fn job(&self, id: JobId) -> Option<Job> {
        let decided = self.catalog.iter().rev().find_map(|effect| match effect {
            Effect::Care(Care::SetJob(job)) if job.id == id => Some((**job).clone()),
            _ => None,
        });
        decided.or_else(|| self.catalog_state().jobs().get(id).map(|job| (**job).clone()))
    }

    fn set_job(&mut self, job: &Job) {
        self.catalog.push(Effect::Care(Care::SetJob(Box::new(job.clone()))));
    }

    fn begin_job(&mut self, asked: &Job) -> Option<Job> {
        let new = self.catalog.iter().filter_map(|effect| match effect {
            Effect::Care(Care::SetJob(job)) => Some(job.id.saturating_add(1)),
            _ => None,
        });
        let jobs = self.catalog_state().jobs();
        let id = new.max().unwrap_or(0).max(jobs.next_id());
        if jobs.running().count() >= RUNNING_MAX {
            return None;
        }
        let now_ms = self.context.now_ms;
        let (created_ms, stepped_ms, engine) = (now_ms, now_ms, self.engine);
        let job = Job { id, created_ms, stepped_ms, engine, ..asked.clone() };
        self.set_job(&job);
        Some(job)
    }

    fn cancel_job(&mut self, id: JobId) -> Option<Job> {
        let job = self.job(id)?;
        if job.state != JobState::Running {
            return Some(job);
        }
        let job = Job { state: JobState::Cancelled, stepped_ms: self.context.now_ms, ..job };
        self.set_job(&job);
        Some(job)
    }

    fn step_job(&mut self, step: &JobStep) -> Decided<Option<Job>> {
        let Some(mut job) = self.job(step.job) else { return Ok(None) };
        if job.state != JobState::Running || job.cursor != step.from {
            // Cancelled, or somebody else took this step.
            return Ok(Some(job));
        }
        for batch in &step.batches {
            let left = if job.limit == 0 { u64::MAX } else { job.limit - job.moved.min(job.limit) };
            let moves = self.move_letters(&job, batch, left)?;
            let count =
                |wanted: LetterMove| moves.iter().filter(|it| **it == wanted).count() as u64;
            job.moved += count(LetterMove::Moved);
            job.skipped += count(LetterMove::Missing) + count(LetterMove::NoGroup);
            job.deferred += count(LetterMove::Later) + count(LetterMove::NeedsBody);
        }
        job.skipped += step.skipped;
        job.cursor = step.cursor;
        job.engine = self.engine;
        job.stepped_ms = self.context.now_ms;
        if let Some(problem) = &step.problem {
            (job.state, job.problem) = (JobState::Failed, problem.clone());
        } else if job.limit > 0 && job.moved >= job.limit {
            job.state = JobState::Done;
        } else if step.is_end {
            // What could not be moved yet is looked at again from the beginning.
            match job.deferred {
                0 => job.state = JobState::Done,
                _ => (job.cursor, job.deferred, job.skipped) = (None, 0, 0),
            }
        }
        self.set_job(&job);
        Ok(Some(job))
    }

    fn move_letters(
        &mut self,
        job: &Job,
        batch: &LetterBatch,
        most: u64,
    ) -> Decided<Vec<LetterMove>> {
        let LetterBatch { partition, group, letters } = batch;
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(letters.len());
        let letters = letters.get(..most).unwrap_or_default();
        if job.dry_run {
            return Ok(vec![LetterMove::Moved; letters.len()]);
        }
        let shard = self.replica.count().of_partition(*partition);
        match &job.action {
            Action::Redrive => self.with_draft(shard, |it| it.redrive(*partition, *group, letters)),
            Action::Delete => self.with_draft(shard, |it| it.exhume(*partition, *group, letters)),
            Action::Requeue { queue, partition: target } => {
                let own = self.replica.shards.get(usize::from(shard));
                let own = own.and_then(|it| it.partition(*partition)).map(|it| it.name.clone());
                let target = target.clone().or(own).unwrap_or_default();
                self.requeue(*queue, &target, batch, most)
            }
        }
    }

    fn with_draft<T>(
        &mut self,
        shard: u16,
        decide: impl FnOnce(&mut crate::state::draft::Draft<'_>) -> Decided<Vec<T>>,
    ) -> Decided<Vec<T>> {
        self.draft(shard).map_or_else(|| Ok(Vec::new()), decide)
    }

    /// Each letter goes only when its message is pushed, in the same append.
    fn requeue(
        &mut self,
        queue: QueueId,
        target: &str,
        batch: &LetterBatch,
        most: usize,
    ) -> Decided<Vec<LetterMove>> {
        let hash = self.replica.key().place(queue, target);
        let to = self.replica.count().of_hash(hash);
        let from = self.replica.count().of_partition(batch.partition);
        self.register_new_groups(to, queue)?;
        let mut moves = Vec::new();
        for (seq, body) in batch.letters.iter().take(most) {
            let Some(body) = body else {
                moves.push(LetterMove::NeedsBody);
                continue;
            };
            let asked = [(*seq, None)];
            let gone =
                self.with_draft(from, |it| it.exhume(batch.partition, batch.group, &asked))?;
            if gone.first() == Some(&LetterMove::Moved) {
                let Some(draft) = self.draft(to) else { continue };
                let partition = draft.place(queue, target, hash)?;
                draft.push_again(partition, body)?;
            }
            moves.extend(gone);
        }
        Ok(moves)
    }
}
