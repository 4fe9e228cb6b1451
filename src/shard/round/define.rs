//! A queue made, or its settings changed: all of them, or those that are named.
//!
//! What is not named is as the round finds it, so that two who change different settings at the same moment
//! both get what they asked for. Called by `round`.

use std::sync::Arc;

use onrush_protocol::name::QueueName;

use crate::base::place::QueueId;
use crate::shard::command::{Asked, Define, Named};
use crate::shard::round::{Outcome, Round};
use crate::state::catalog::QueueDefinition;
use crate::state::effect::Effect;

impl Round<'_> {
    pub(super) fn define(&mut self, define: &Define) -> Outcome {
        let found = self.find(define.name.as_str());
        if let (Some(found), None) = (&found, &define.asked) {
            return Outcome::Defined(Arc::clone(found));
        }
        let labels = (&*define.namespace, &*define.task);
        let asked = define.asked.unwrap_or_default();
        Outcome::Defined(self.make(&define.name, found, labels, asked))
    }

    /// Makes a queue, or changes one that was found.
    pub(super) fn make(
        &mut self,
        name: &QueueName,
        found: Option<Arc<QueueDefinition>>,
        (namespace, task): (&str, &str),
        asked: Asked,
    ) -> Arc<QueueDefinition> {
        let new = self.catalog.iter().filter(|it| matches!(it, Effect::DefineQueue(_))).count();
        let id = self.catalog_state().next_id().saturating_add(new as QueueId);
        let before = found.as_deref();
        let all = before.map_or(asked, |it| asked.over(it, self.is_projected(it.id)));
        let options = all.options;
        let label = |number, new: &str, old: fn(&QueueDefinition) -> &str| {
            let kept = before.filter(|_| !asked.names(number));
            Box::from(kept.map_or(new, old))
        };
        let definition = QueueDefinition {
            id: before.map_or(id, |found| found.id),
            name: name.as_str().into(),
            namespace: label(Named::NAMESPACE, namespace, |it| &it.namespace),
            task: label(Named::TASK, task, |it| &it.task),
            created_ms: before.map_or(self.context.now_ms, |found| found.created_ms),
            ttl_asked: all.ttl_asked,
            sealed: before.is_some_and(|found| found.sealed) || options.encryption_enabled,
            options,
        };
        self.sync();
        self.catalog.push(Effect::DefineQueue(Box::new(definition.clone())));
        // Of two changes at the same moment one may ask for rows and the other for what has none.
        let (queue, on) = (definition.id, all.sql_rows && !options.encryption_enabled);
        if self.is_projected(queue) != on {
            self.catalog.push(Effect::Project { queue, on });
        }
        Arc::new(definition)
    }
}
