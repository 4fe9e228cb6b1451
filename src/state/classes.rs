//! Classes: the code that evaluates the messages of a queue, version by version.
//!
//! In: definitions, already decided. Out: which text holds for a message. A message is evaluated by
//! the newest version that was there when it was pushed: so a new version takes effect at a definite
//! place of every partition, because the time of a shard's entries never goes back. What a text says
//! is the `process` room's business. Pure; kept by the catalog's shard beside the queue.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::state::codec::EntryError;

/// The consumer group by which processes take their messages, and the queue beside which lies what
/// waits for them. Nobody else may use either.
pub const OWN_NAME: &str = "$process";
/// The header in which processes say where a message comes from. Nobody else may write it.
pub const OWN_HEADER: &str = "$onrush";
/// Versions of one class that are remembered: a message that waits for longer is evaluated by the
/// oldest of them.
pub const VERSIONS_MAX: usize = 16;
/// Bytes of them, but for the newest.
pub const VERSION_BYTES_MAX: usize = 16 << 20;

/// One version of a class.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClassVersion {
    /// Its number, from 1.
    pub version: u32,
    /// Messages pushed from this time on are its, unix milliseconds.
    pub since_ms: u64,
    /// Its definition.
    pub text: Bytes,
}

/// All versions of a class that are remembered, oldest first; never empty once it is known.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Class {
    versions: Vec<Arc<ClassVersion>>,
}

const CUT_OFF: EntryError = EntryError { field: "class", problem: "cut off" };

impl Class {
    /// The newest version.
    #[must_use]
    pub fn newest(&self) -> Option<&Arc<ClassVersion>> {
        self.versions.last()
    }

    /// The version for a message that was pushed at a time.
    #[must_use]
    pub fn at(&self, pushed_ms: u64) -> Option<&Arc<ClassVersion>> {
        let earlier = self.versions.iter().rev().find(|it| it.since_ms <= pushed_ms);
        earlier.or_else(|| self.versions.first())
    }

    /// A version with its number, if it is remembered.
    #[must_use]
    pub fn numbered(&self, version: u32) -> Option<&Arc<ClassVersion>> {
        self.versions.iter().find(|it| it.version == version)
    }

    /// All versions that are remembered, oldest first.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<ClassVersion>> {
        self.versions.iter()
    }

    /// Adds a version.
    pub fn define(&mut self, version: ClassVersion) {
        self.versions.push(Arc::new(version));
        let mut bytes = 0;
        let fits = |version: &&Arc<ClassVersion>| {
            bytes += version.text.len();
            bytes <= VERSION_BYTES_MAX
        };
        let kept = self.versions.iter().rev().take(VERSIONS_MAX).take_while(fits).count();
        self.versions.drain(..self.versions.len() - kept.max(1));
    }

    pub(super) fn put(&self, out: &mut BytesMut) {
        out.put_u16_le(self.versions.len() as u16);
        for version in &self.versions {
            out.put_u32_le(version.version);
            out.put_u64_le(version.since_ms);
            out.put_u32_le(version.text.len() as u32);
            out.put_slice(&version.text);
        }
    }

    pub(super) fn read(bytes: &mut Bytes) -> Result<Self, EntryError> {
        let count = bytes.try_get_u16_le().map_err(|_| CUT_OFF)?;
        let mut class = Self::default();
        for _ in 0..count {
            let version = bytes.try_get_u32_le().map_err(|_| CUT_OFF)?;
            let since_ms = bytes.try_get_u64_le().map_err(|_| CUT_OFF)?;
            let len = bytes.try_get_u32_le().map_err(|_| CUT_OFF)? as usize;
            if len > bytes.len() {
                return Err(CUT_OFF);
            }
            let text = bytes.split_to(len);
            class.define(ClassVersion { version, since_ms, text });
        }
        Ok(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: u32, since_ms: u64) -> ClassVersion {
        ClassVersion { version, since_ms, text: Bytes::from(format!("v{version}")) }
    }

    #[test]
    fn a_message_is_evaluated_by_the_version_that_held_when_it_was_pushed() {
        let mut class = Class::default();
        assert!(class.at(5).is_none());
        (1..=3).for_each(|number| class.define(version(number, u64::from(number) * 10)));
        let at = |ms| class.at(ms).map(|it| it.version);
        assert_eq!([5, 10, 19, 20, 99].map(at), [1, 1, 1, 2, 3].map(Some));
        let mut out = BytesMut::new();
        class.put(&mut out);
        let mut bytes = out.freeze();
        assert_eq!(Class::read(&mut bytes), Ok(class));
        assert!(bytes.is_empty());
    }

    #[test]
    fn only_so_many_versions_are_remembered() {
        let mut class = Class::default();
        (1..=40).for_each(|number| class.define(version(number, u64::from(number))));
        assert_eq!(class.newest().map(|it| it.version), Some(40));
        assert_eq!(class.at(0).map(|it| it.version), Some(25));
        assert_eq!(class.numbered(24), None);
    }
}
