//! What is said of a class: its code, and how its processes behave.
//!
//! In: the JSON of a definition. Out: a [`Definition`] whose limits lie within the server's, and the
//! one form in which the catalog keeps it. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::process::call;
use crate::process::codec::Codec;
use crate::process::runtime::{Limits, Prelude};
use crate::state::states::{STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX};

/// Largest definition in bytes, its module included.
pub const DEFINITION_BYTES_MAX: usize = 6 << 20;
/// Most messages that may follow one after the other where a class allows that many.
pub const HOPS_MAX: u32 = 10_000;
/// Most messages of one cascade that a class may allow.
pub const MESSAGES_MAX: u64 = 100_000_000;
/// Most messages that may wait in a process where a class allows that many.
const BACKLOG_MAX: u64 = 1_000_000_000;
/// Most addresses that a class may allow its processes to ask at or below.
const EFFECTS_MAX: u64 = 64;
/// Longest time that a message for a class that does not exist waits for it, milliseconds.
const PARKED_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1000;

/// What evaluates a class's messages.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// A module of the server itself, by name.
    Native,
    /// Luau source.
    Luau,
    /// A WebAssembly module, in base64.
    Wasm,
}

/// When messages are evaluated.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// As they come.
    #[default]
    Auto,
    /// When somebody pushes or asks.
    Manual,
}

/// Where instances come from.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Create {
    /// From their first message.
    #[default]
    OnFirstPush,
    /// From their definition, and not without.
    Explicit,
}

/// What becomes of a message whose code failed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// Its slot says so, and the next one is evaluated.
    #[default]
    Record,
    /// The same, and the message is kept as a dead letter.
    Dlq,
    /// Its slot says so, and the instance stops until somebody resumes it.
    Halt,
}

/// What becomes of a message to a class or queue that does not exist.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownTarget {
    /// It is kept as a dead letter.
    #[default]
    Dlq,
    /// It waits for its class for so many milliseconds, and then is a dead letter.
    Park(u64),
    /// It is not kept: its entry says so.
    Fail,
}

/// What a class allows; each is at most the server's.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// Steps of one evaluation.
    #[serde(alias = "fuelPerSlot")]
    pub fuel: u64,
    /// Milliseconds of one evaluation.
    #[serde(alias = "timeMs")]
    pub time_ms: u64,
    /// Bytes of memory of one evaluation.
    #[serde(alias = "memoryBytes")]
    pub memory_bytes: u64,
    /// Messages that one slot sends.
    #[serde(alias = "outboxEntries")]
    pub outbox_entries: u64,
    /// Bytes of them.
    #[serde(alias = "outboxBytes")]
    pub outbox_bytes: u64,
    /// Bytes of a slot's output, and of what it prints.
    #[serde(alias = "outputBytes")]
    pub output_bytes: u64,
    /// Bytes of one state value.
    #[serde(alias = "stateValueBytes")]
    pub state_value_bytes: u64,
    /// Bytes of all state keys of an instance, with their values.
    #[serde(alias = "stateBytes")]
    pub state_bytes: u64,
    /// State keys that one slot touches.
    #[serde(alias = "stateKeys")]
    pub state_keys: u64,
    /// Messages that follow one after the other; 0 = any number.
    pub hops: u32,
    /// Messages of one cascade.
    pub messages: u64,
    /// Messages that wait in an instance before clients are told to come later.
    #[serde(alias = "backlog")]
    pub backlog_soft: u64,
    /// Messages that wait in an instance before those of other processes are refused too.
    #[serde(alias = "backlogHard")]
    pub backlog_hard: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        let Limits { fuel, wall_ms, memory_bytes, outbox_entries, .. } = Limits::default();
        let Limits { outbox_bytes, output_bytes, state_value_bytes, .. } = Limits::default();
        Self {
            fuel,
            time_ms: wall_ms,
            memory_bytes: memory_bytes as u64,
            outbox_entries: outbox_entries as u64,
            outbox_bytes: outbox_bytes as u64,
            output_bytes: output_bytes as u64,
            state_value_bytes: state_value_bytes as u64,
            state_bytes: 1 << 30,
            state_keys: Limits::default().state_keys_touched as u64,
            hops: 64,
            messages: 100_000,
            backlog_soft: 100_000,
            backlog_hard: 200_000,
        }
    }
}

impl Bounds {
    /// The most that classes may ask for where the server says nothing else.
    #[must_use]
    pub fn maxima() -> Self {
        Self {
            time_ms: 60_000,
            hops: HOPS_MAX,
            messages: MESSAGES_MAX,
            backlog_soft: BACKLOG_MAX,
            backlog_hard: BACKLOG_MAX,
            ..Self::default()
        }
    }

    /// Each value with its name, what it is where nothing is said, and the most that it may be.
    fn values<'a>(
        &'a mut self,
        unsaid: &Self,
        most: &Self,
    ) -> [(&'static str, &'a mut u64, u64, u64); 12] {
        [
            ("fuel", &mut self.fuel, unsaid.fuel, most.fuel),
            ("time_ms", &mut self.time_ms, unsaid.time_ms, most.time_ms),
            ("memory_bytes", &mut self.memory_bytes, unsaid.memory_bytes, most.memory_bytes),
            (
                "outbox_entries",
                &mut self.outbox_entries,
                unsaid.outbox_entries,
                most.outbox_entries,
            ),
            ("outbox_bytes", &mut self.outbox_bytes, unsaid.outbox_bytes, most.outbox_bytes),
            ("output_bytes", &mut self.output_bytes, unsaid.output_bytes, most.output_bytes),
            (
                "state_value_bytes",
                &mut self.state_value_bytes,
                unsaid.state_value_bytes,
                most.state_value_bytes,
            ),
            ("state_bytes", &mut self.state_bytes, unsaid.state_bytes, most.state_bytes),
            ("state_keys", &mut self.state_keys, unsaid.state_keys, most.state_keys),
            ("messages", &mut self.messages, unsaid.messages, most.messages),
            ("backlog_soft", &mut self.backlog_soft, unsaid.backlog_soft, most.backlog_soft),
            ("backlog_hard", &mut self.backlog_hard, unsaid.backlog_hard, most.backlog_hard),
        ]
    }

    /// Holds them against the server's. What is as where nothing is said is the server's where that is less.
    ///
    /// # Errors
    /// [`DefinitionError::Limit`] for the first that is over it.
    fn within(&mut self, most: &Self) -> Result<(), DefinitionError> {
        let (unsaid, hops_max) = (Self::default(), most.hops);
        let over = |field, value, limit| Err(DefinitionError::Limit { field, value, limit });
        match self.hops {
            hops if hops <= hops_max => {}
            hops if hops == unsaid.hops => self.hops = hops_max,
            hops => return over("hops", u64::from(hops), u64::from(hops_max)),
        }
        for (field, value, unsaid, limit) in self.values(&unsaid, most) {
            match *value {
                asked if asked <= limit => {}
                asked if asked == unsaid => *value = limit,
                asked => return over(field, asked, limit),
            }
        }
        Ok(())
    }

    /// The same for guests.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Limits {
            fuel: self.fuel,
            wall_ms: self.time_ms,
            memory_bytes: size(self.memory_bytes),
            outbox_entries: size(self.outbox_entries),
            outbox_bytes: size(self.outbox_bytes),
            output_bytes: size(self.output_bytes),
            state_value_bytes: size(self.state_value_bytes),
            state_keys_touched: size(self.state_keys),
            ..Limits::default()
        }
    }
}

/// How long what became of slots is kept. State is kept whatever it says, and so is the log: that is
/// the queue's `completedRetentionSeconds`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// The newest slots of each process; 0 = all.
    pub slots: u64,
    /// Seconds since they were evaluated; 0 = for ever.
    pub seconds: u64,
    /// Seconds that its letters are kept: messages that its processes sent, and those of clients that its
    /// code failed on; 0 = for ever.
    #[serde(alias = "lettersSeconds", skip_serializing_if = "is_zero")]
    pub letters_seconds: u64,
}

impl Retention {
    /// Whether what became of slots is ever let go of.
    #[must_use]
    pub fn lets_go(&self) -> bool {
        self.slots > 0 || self.seconds > 0
    }

    fn keeps_all(&self) -> bool {
        *self == Self::default()
    }
}

/// One definition of a class.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// What evaluates its messages.
    pub runtime: Runtime,
    /// The code.
    pub module: Box<str>,
    /// What a script finds beside the guest API.
    #[serde(default)]
    pub prelude: Prelude,
    /// State keys of a new instance.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub init: BTreeMap<Box<str>, Box<RawValue>>,
    /// When its messages are evaluated.
    #[serde(default)]
    pub mode: Mode,
    /// Where its instances come from.
    #[serde(default)]
    pub create: Create,
    /// What becomes of messages whose code failed.
    #[serde(default, alias = "onError")]
    pub on_error: OnError,
    /// What becomes of messages to what does not exist.
    #[serde(default, alias = "unknownTarget")]
    pub unknown_target: UnknownTarget,
    /// Who may send to it: patterns over `client:…` and `process:class/key`, where `*` is any text.
    #[serde(default = "anybody", alias = "acceptFrom")]
    pub accept_from: Vec<Box<str>>,
    /// Targets by another name, without the `@`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<Box<str>, Box<str>>,
    /// Servers elsewhere that its processes may ask: addresses at or below these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<Box<str>>,
    /// In which forms its messages may be.
    #[serde(default = "any_form", skip_serializing_if = "is_any_form")]
    pub codecs: Vec<Codec>,
    /// What it allows.
    #[serde(default)]
    pub limits: Bounds,
    /// How long what became of its slots is kept.
    #[serde(default, skip_serializing_if = "Retention::keeps_all")]
    pub retention: Retention,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn any_form() -> Vec<Codec> {
    Codec::ALL.into()
}

fn is_any_form(codecs: &[Codec]) -> bool {
    Codec::ALL.iter().all(|codec| codecs.contains(codec))
}

fn anybody() -> Vec<Box<str>> {
    vec!["*".into()]
}

/// Why a definition was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DefinitionError {
    /// It is no definition.
    #[error("not a definition of a class: {0}")]
    Malformed(String),
    /// It is too long.
    #[error("the definition has {bytes} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// It asks for more than the server allows.
    #[error("{field} is {value}, over the limit of {limit}")]
    Limit {
        /// The field.
        field: &'static str,
        /// What it asks for.
        value: u64,
        /// How much there may be.
        limit: u64,
    },
    /// Its module is not code.
    #[error("{0}")]
    Module(String),
}

impl Definition {
    /// Reads a definition whose limits lie within `most`, those of the server.
    ///
    /// # Errors
    /// [`DefinitionError`], all but [`DefinitionError::Module`].
    pub fn read_within(text: &[u8], most: &Bounds) -> Result<Self, DefinitionError> {
        let mut definition = Self::read(text)?;
        definition.limits.within(most)?;
        Ok(definition)
    }

    /// Reads a definition that was found to be within limits when it was defined.
    ///
    /// # Errors
    /// [`DefinitionError`], but for [`DefinitionError::Module`] and limits of the server.
    pub fn read(text: &[u8]) -> Result<Self, DefinitionError> {
        let (bytes, limit) = (text.len(), DEFINITION_BYTES_MAX);
        if bytes > limit {
            return Err(DefinitionError::TooLarge { bytes, limit });
        }
        let read: Result<Self, _> = serde_json::from_slice(text);
        let definition = read.map_err(|error| DefinitionError::Malformed(error.to_string()))?;
        if definition.codecs.is_empty() {
            return Err(DefinitionError::Malformed("codecs names no form".into()));
        }
        if let UnknownTarget::Park(value) = definition.unknown_target
            && value > PARKED_MS_MAX
        {
            let (field, limit) = ("unknown_target.park", PARKED_MS_MAX);
            return Err(DefinitionError::Limit { field, value, limit });
        }
        let (count, limit) = (definition.effects.len() as u64, EFFECTS_MAX);
        if count > limit {
            return Err(DefinitionError::Limit {
                field: "addresses in effects",
                value: count,
                limit,
            });
        }
        if let Some(text) = definition.effects.iter().find(|it| call::parts(it).is_none()) {
            let why = format!("effects has '{text}', which is no http or https address");
            return Err(DefinitionError::Malformed(why));
        }
        for (key, value) in &definition.init {
            let (key, value) = (key.len(), value.get().len());
            for (field, value, limit) in [
                ("bytes of a key in init", key, STATE_KEY_BYTES_MAX),
                ("bytes of a value in init", value, STATE_VALUE_BYTES_MAX),
            ] {
                if value > limit {
                    let (value, limit) = (value as u64, limit as u64);
                    return Err(DefinitionError::Limit { field, value, limit });
                }
            }
        }
        Ok(definition)
    }

    /// As the catalog keeps it.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Whether somebody may send to its processes.
    #[must_use]
    pub fn accepts(&self, from: &str) -> bool {
        self.accept_from.iter().any(|pattern| fits(pattern, from))
    }
}

/// Whether a text fits a pattern in which `*` stands for any text.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_has_defaults_and_keeps_what_it_says() {
        let text = br#"{"runtime":"native","module":"echo","unknownTarget":{"park":5},
            "limits":{"hops":0},"init":{"a":[1, 2]}}"#;
        let definition = Definition::read(text).unwrap();
        assert_eq!(definition.mode, Mode::Auto);
        assert_eq!(definition.unknown_target, UnknownTarget::Park(5));
        assert_eq!((definition.limits.hops, definition.limits.messages), (0, 100_000));
        let again = Definition::read(&definition.text()).unwrap();
        assert_eq!(again.text(), definition.text());
        assert_eq!(again.init.get("a").map(|it| it.get()), Some("[1, 2]"));
    }

    #[test]
    fn what_is_no_definition_or_asks_for_too_much_is_refused() {
        let most = Bounds::maxima();
        let read = |text: &str| Definition::read_within(text.as_bytes(), &most).map(|_| ());
        for text in [
            "{}",
            "[]",
            r#"{"runtime":"java","module":""}"#,
            r#"{"runtime":"native","module":"","codecs":[]}"#,
            r#"{"runtime":"native","module":"","codecs":["xml"]}"#,
            r#"{"runtime":"native","module":"","effects":["a.example/x"]}"#,
        ] {
            assert!(matches!(read(text), Err(DefinitionError::Malformed(_))), "{text}");
        }
        let more = r#"{"runtime":"native","module":"","limits":{"hops":10001}}"#;
        let error = DefinitionError::Limit { field: "hops", value: 10_001, limit: 10_000 };
        assert_eq!(read(more), Err(error));
        // A server that allows less lowers what is not said, and refuses what is.
        let most = Bounds { fuel: 1_000, hops: 9, ..Bounds::maxima() };
        let of = |limits: &str| {
            let text = format!(r#"{{"runtime":"native","module":"","limits":{limits}}}"#);
            Definition::read_within(text.as_bytes(), &most).map(|it| it.limits)
        };
        let lowered = of("{}").unwrap();
        assert_eq!((lowered.fuel, lowered.hops, lowered.messages), (1_000, 9, 100_000));
        let error = DefinitionError::Limit { field: "fuel", value: 1_001, limit: 1_000 };
        assert_eq!(of(r#"{"fuel":1001}"#).err(), Some(error));
        assert_eq!(of(r#"{"fuel":7,"hops":9}"#).map(|it| (it.fuel, it.hops)), Ok((7, 9)));
        let init =
            format!(r#"{{"runtime":"native","module":"","init":{{"{}":1}}}}"#, "k".repeat(1025));
        assert!(matches!(read(&init), Err(DefinitionError::Limit { value: 1_025, .. })));
        let long = vec![b' '; DEFINITION_BYTES_MAX + 1];
        assert!(matches!(Definition::read(&long), Err(DefinitionError::TooLarge { .. })));
    }

    #[test]
    fn senders_are_let_in_by_patterns() {
        for (pattern, text, is_in) in [
            ("*", "client:", true),
            ("client:*", "client:ann", true),
            ("client:*", "process:a/b", false),
            ("process:bank/*", "process:bank/root", true),
            ("process:bank/root", "process:bank/root", true),
            ("process:bank/root", "process:bank/root2", false),
            ("p*s:*/x", "process:a/x", true),
            ("p*s:*/x", "process:a/xy", false),
            ("", "client:", false),
        ] {
            assert_eq!(fits(pattern, text), is_in, "{pattern} {text}");
        }
    }
}
