//! Queues: made, and their settings changed.
//!
//! Called by `round` and `classes`.

use std::sync::Arc;

use onrush_protocol::name::QueueName;

use crate::base::place::QueueId;
use crate::shard::command::{Asked, Define};
use crate::shard::round::{Outcome, Round};
use crate::state::catalog::QueueDefinition;
use crate::state::effect::Effect;

impl Round<'_> {
    /// Makes a queue, or changes its settings; leaves one alone of which only its name is asked.
    pub(super) fn define(&mut self, define: &Define) -> Outcome {
        let found = self.find(define.name.as_str());
        if let (Some(found), None) = (&found, &define.asked) {
            return Outcome::Defined(Arc::clone(found));
        }
        let asked = define.asked.unwrap_or_default();
        let labels = (define.namespace.clone(), define.task.clone());
        Outcome::Defined(self.define_queue(&define.name, found, labels, asked))
    }

    /// Makes a queue, or changes one that was found.
    pub(super) fn define_queue(
        &mut self,
        name: &QueueName,
        found: Option<Arc<QueueDefinition>>,
        (namespace, task): (Box<str>, Box<str>),
        asked: Asked,
    ) -> Arc<QueueDefinition> {
        let Asked { options, ttl_asked, sql_rows, .. } = asked;
        let new = self.catalog.iter().filter(|it| matches!(it, Effect::DefineQueue(_))).count();
        let id = self.catalog_state().next_id().saturating_add(new as QueueId);
        let was_sealed = found.as_ref().is_some_and(|found| found.sealed);
        let definition = QueueDefinition {
            id: found.as_ref().map_or(id, |found| found.id),
            name: name.as_str().into(),
            namespace,
            task,
            created_ms: found.map_or(self.context.now_ms, |found| found.created_ms),
            ttl_asked,
            sealed: was_sealed || options.encryption_enabled,
            options,
        };
        self.sync();
        self.catalog.push(Effect::DefineQueue(Box::new(definition.clone())));
        let queue = definition.id;
        if self.is_projected(queue) != sql_rows {
            self.catalog.push(Effect::Project { queue, on: sql_rows });
        }
        Arc::new(definition)
    }
}
