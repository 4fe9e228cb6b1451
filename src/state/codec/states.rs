//! Bytes of what concerns the catalog, groups and state keys: those effects of [`super`] that stand apart.
//!
//! ```text
//! body of PutState     u32 owner | u32 partition | u16 key_len | key | value
//! body of RemoveState  u32 owner | u32 partition | u16 key_len | key
//! body of DefineClass  u32 queue | u32 version | text
//! ```

use bytes::{Buf, BufMut, Bytes};

use crate::state::codec::{
    CUT_OFF, EntryError, Rope, TAG_DEFINE_CLASS, TAG_DEFINE_GROUP, TAG_DEFINE_QUERY,
    TAG_DEFINE_QUEUE, TAG_DROP_GROUP, TAG_FORGET_GROUP, TAG_MAINTAIN, TAG_PROJECT, TAG_PUT_STATE,
    TAG_REGISTER_GROUP, TAG_REMOVE_STATE, TAG_SUBSCRIBE,
};
use crate::state::effect::{Effect, Maintenance};
use crate::state::rows;

impl Rope {
    pub(super) fn of_catalog(&mut self, effect: &Effect) {
        match effect {
            Effect::Maintain(Maintenance { push, pop }) => {
                let flags = u32::from(*push) | u32::from(*pop) << 1;
                self.number(TAG_MAINTAIN, flags, effect);
            }
            Effect::Project { queue, on } => {
                self.number(TAG_PROJECT, *queue, effect);
                self.head.put_u8(u8::from(*on));
            }
            Effect::DefineQueue(definition) => {
                self.header(TAG_DEFINE_QUEUE, 0, effect);
                rows::put_queue(&mut self.head, definition);
            }
            Effect::DefineQuery(query) => {
                self.header(TAG_DEFINE_QUERY, 0, effect);
                query.put(&mut self.head);
            }
            Effect::DefineClass { queue, version, text } => {
                self.number(TAG_DEFINE_CLASS, *queue, effect);
                self.head.put_u32_le(*version);
                self.bytes(text);
            }
            _ => {}
        }
    }

    pub(super) fn group(&mut self, effect: &Effect) {
        match effect {
            Effect::RegisterGroup { group, queue, name, start } => {
                self.header(TAG_REGISTER_GROUP, 0, effect);
                self.head.put_u32_le(*group);
                self.head.put_u32_le(*queue);
                rows::put_start(&mut self.head, *start);
                self.head.put_slice(name.as_bytes());
            }
            Effect::DefineGroup { queue, name, start } => {
                self.subscription(TAG_DEFINE_GROUP, *queue, name, *start, effect);
            }
            Effect::Subscribe { queue, name, start } => {
                self.subscription(TAG_SUBSCRIBE, *queue, name, *start, effect);
            }
            Effect::ForgetGroup { queue, name, keep_start } => {
                self.number(TAG_FORGET_GROUP, *queue, effect);
                self.head.put_u8(u8::from(*keep_start));
                self.head.put_slice(name.as_bytes());
            }
            Effect::DropGroup { group } => self.number(TAG_DROP_GROUP, *group, effect),
            _ => {}
        }
    }

    pub(super) fn state(&mut self, effect: &Effect) {
        match effect {
            Effect::PutState { owner, partition, key, value } => {
                self.header(TAG_PUT_STATE, 0, effect);
                self.state_head(*owner, *partition, key);
                self.bytes(value);
            }
            Effect::RemoveState { owner, partition, key } => {
                self.header(TAG_REMOVE_STATE, 0, effect);
                self.state_head(*owner, *partition, key);
            }
            _ => {}
        }
    }

    fn state_head(&mut self, owner: u32, partition: u32, key: &Bytes) {
        self.head.put_u32_le(owner);
        self.head.put_u32_le(partition);
        self.head.put_u16_le(key.len() as u16);
        self.head.put_slice(key);
    }
}

pub(super) fn read_class(body: &mut Bytes) -> Result<Effect, EntryError> {
    let queue = body.try_get_u32_le().map_err(|_| CUT_OFF)?;
    let version = body.try_get_u32_le().map_err(|_| CUT_OFF)?;
    Ok(Effect::DefineClass { queue, version, text: std::mem::take(body) })
}

pub(super) fn read_state(tag: u8, body: &mut Bytes) -> Result<Effect, EntryError> {
    let owner = body.try_get_u32_le().map_err(|_| CUT_OFF)?;
    let partition = body.try_get_u32_le().map_err(|_| CUT_OFF)?;
    let key_len = usize::from(body.try_get_u16_le().map_err(|_| CUT_OFF)?);
    if key_len > body.len() {
        return Err(CUT_OFF);
    }
    let key = body.split_to(key_len);
    Ok(match tag {
        TAG_PUT_STATE => Effect::PutState { owner, partition, key, value: std::mem::take(body) },
        _ => Effect::RemoveState { owner, partition, key },
    })
}
