//! Letters of a whole cascade: sent after all, thrown away, or let go of when they are old.
//!
//! A cascade that came to its limit may leave hundreds of thousands of them. They are sent one after the
//! other, in the order of their keys, and thrown away a page at a time. In: a cascade, or the time. Out:
//! how many went. Called by `wire` and `sweep`.

use std::collections::HashMap;

use bytes::Bytes;

use crate::process::control::changes;
use crate::process::envelope::Envelope;
use crate::process::keys::{Address, DEAD, dead_prefix};
use crate::process::letters::{id_of, key_of};
use crate::process::record::Letter;
use crate::process::step::Step;
use crate::process::{Inner, ProcessError, Processes};
use crate::shard::command::CommandError;
use crate::state::draft::transaction::StateOp;

/// Letters that are read at a time, and thrown away in one transaction.
const PAGE: usize = 256;
/// After so many letters a request that sends them ends: each is a commit.
const REDRIVEN_MAX: usize = 1_000;
/// After so many a request that throws them away does.
const DISCARDED_MAX: usize = 100_000;

/// What became of the letters of a cascade.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Handled {
    /// How many were sent, or thrown away.
    pub done: usize,
    /// How many stay, because they cannot be sent now.
    pub kept: usize,
    /// The letter to go on behind; `None` when that was all.
    pub after: Option<String>,
}

impl Processes {
    /// Sends letters of a cascade after all, as [`Self::redrive`] does with one: all behind `after`, or as
    /// many as one request may. Those that have no target still, or no room there, stay. Answers when
    /// that is durable.
    ///
    /// # Errors
    /// [`ProcessError::NoPush`], [`ProcessError::NoPath`] where `after` is no letter,
    /// [`ProcessError::Command`]; what was sent before stays sent.
    pub async fn redrive_all(
        &self,
        push: &str,
        after: Option<&str>,
    ) -> Result<Handled, ProcessError> {
        let prefix = prefix_of(push)?;
        let no_letter = |id: &str| key_of(id).ok_or_else(|| ProcessError::NoPath(id.into()));
        let mut after = after.map(no_letter).transpose()?;
        let mut handled = Handled::default();
        loop {
            let page = self.inner.at_desk(DEAD, prefix.clone(), after, PAGE).await?;
            for row in page.rows {
                match self.redrive(&id_of(&row.key)).await {
                    Ok(()) => handled.done += 1,
                    Err(error) if is_of_store(&error) => return Err(error),
                    Err(_) => handled.kept += 1,
                }
            }
            after = page.more_after;
            if after.is_none() || handled.done + handled.kept >= REDRIVEN_MAX {
                handled.after = after.as_deref().map(id_of);
                return Ok(handled);
            }
        }
    }

    /// Throws letters of a cascade away, all or as many as one request may. Answers when that is durable.
    ///
    /// # Errors
    /// As [`Self::redrive_all`].
    pub async fn discard_all(&self, push: &str) -> Result<Handled, ProcessError> {
        let prefix = prefix_of(push)?;
        let mut handled = Handled::default();
        loop {
            let page = self.inner.at_desk(DEAD, prefix.clone(), None, PAGE).await?;
            let keys: Vec<Bytes> = page.rows.into_iter().map(|row| row.key).collect();
            handled.done += self.inner.let_go_of_letters(keys).await?;
            let after = page.more_after.as_deref().map(id_of);
            if after.is_none() || handled.done >= DISCARDED_MAX {
                return Ok(Handled { after, ..handled });
            }
        }
    }
}

impl Inner {
    /// Takes letters away for good.
    async fn let_go_of_letters(&self, keys: Vec<Bytes>) -> Result<usize, ProcessError> {
        let (desk, count) = (self.ensure_desk().await?, keys.len());
        if count == 0 {
            return Ok(0);
        }
        let ops = keys.into_iter().map(|key| StateOp::Remove { key }).collect();
        let step = Step { states: vec![changes(DEAD, desk, ops)], ..Step::default() };
        self.carry_out(&step).await.map(|_| count)
    }

    /// Lets go of letters whose class keeps them no longer, a page at a time; returns where the next page
    /// begins.
    pub(super) async fn sweep_letters(
        &self,
        after: Option<Bytes>,
    ) -> Result<Option<Bytes>, ProcessError> {
        if !self.lets_letters_go() {
            return Ok(None);
        }
        let page = self.at_desk(DEAD, Bytes::new(), after, PAGE).await?;
        let now_ms = self.clock.now_ms();
        let mut kept_ms: HashMap<String, u64> = HashMap::new();
        let mut old = Vec::new();
        for row in page.rows {
            let Ok(letter) = serde_json::from_slice::<Letter>(&row.value) else { continue };
            let class = letter.class();
            let kept_ms = *kept_ms.entry(class).or_insert_with_key(|class| self.letters_ms(class));
            if kept_ms > 0 && letter.since_ms.saturating_add(kept_ms) < now_ms {
                old.push(row.key);
            }
        }
        self.let_go_of_letters(old).await?;
        Ok(page.more_after)
    }

    fn lets_letters_go(&self) -> bool {
        let catalog = self.engine.catalog_now();
        let mut classes = catalog.classes().filter_map(|(queue, class)| {
            let (queue, newest) = (catalog.get(queue)?, class.newest()?);
            self.modules.get(queue.id, &queue.name, newest).ok()
        });
        classes.any(|code| code.definition.retention.letters_seconds > 0)
    }

    /// How long letters of a class are kept, milliseconds; 0 = for ever.
    fn letters_ms(&self, class: &str) -> u64 {
        let code = class.parse().ok().and_then(|class| self.newest(&class).ok());
        code.map_or(0, |(_, code)| code.definition.retention.letters_seconds.saturating_mul(1_000))
    }
}

impl Letter {
    /// The class of the process that sent it; of a first message that failed, its own.
    fn class(&self) -> String {
        let envelope = Envelope::read(self.envelope.get().as_bytes());
        let from = envelope.and_then(|envelope| envelope.origin).map(|origin| origin.from);
        let name = from.as_deref().unwrap_or(&self.target);
        name.split_once('/').map_or(name, |(class, _)| class).to_owned()
    }
}

/// Whether an error is of the store, and not of one letter.
fn is_of_store(error: &ProcessError) -> bool {
    let ProcessError::Command(error) = error else { return false };
    !matches!(error, CommandError::Decide(_))
}

fn prefix_of(push: &str) -> Result<Bytes, ProcessError> {
    let root = Address::parse(push).ok_or_else(|| ProcessError::NoPush(push.into()))?;
    Ok(dead_prefix(root))
}
