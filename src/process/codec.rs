//! In which form a message is: JSON, or bytes as they are.
//!
//! Guests write JSON; an entry that is nothing but `{"encoding": "base64", "body": "…"}` is sent as the bytes
//! that it stands for. A class says which forms it takes; where it does not take one, an entry with
//! `"recode": true` is sent in the other. In: an entry as its guest wrote it. Out: what is sent, or why
//! nothing is. Pure. Called by `step`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::process::record::Fault;

/// A form.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// A JSON text.
    Json,
    /// Any bytes.
    Bytes,
}

impl Codec {
    /// All forms.
    pub const ALL: [Self; 2] = [Self::Json, Self::Bytes];

    /// The form of a message.
    pub(super) fn of(is_json: bool) -> Self {
        if is_json { Self::Json } else { Self::Bytes }
    }
}

/// What an entry says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Said {
    pub(super) payload: Bytes,
    pub(super) is_json: bool,
    /// Whether it may be said in the other form.
    recode: bool,
}

impl Said {
    /// What an entry says, by what its guest wrote; and the fault of one that stands for bytes and does not.
    pub(super) fn read(written: &Bytes) -> (Self, Option<Fault>) {
        let plain = || Self { payload: written.clone(), is_json: true, recode: false };
        let is_marked = std::str::from_utf8(written)
            .is_ok_and(|text| text.contains("\"encoding\"") || text.contains("\"recode\""));
        let fields: Result<BTreeMap<String, Box<RawValue>>, _> = match is_marked {
            true => serde_json::from_slice(written),
            false => return (plain(), None),
        };
        let Ok(mut fields) = fields else { return (plain(), None) };
        let recode = match fields.get("recode").map(|value| value.get()) {
            Some("true") => true,
            Some("false") | None => false,
            // A field of the message's own.
            Some(_) => return (plain(), None),
        };
        fields.remove("recode");
        let text = |name: &str| {
            let value = fields.get(name).filter(|_| fields.len() == 2)?;
            serde_json::from_str::<String>(value.get()).ok()
        };
        let body = text("body").filter(|_| text("encoding").as_deref() == Some("base64"));
        let Some(body) = body else {
            let payload = serde_json::to_vec(&fields).unwrap_or_default().into();
            return (Self { payload, is_json: true, recode }, None);
        };
        match STANDARD.decode(body) {
            Ok(bytes) => (Self { payload: bytes.into(), is_json: false, recode }, None),
            Err(error) => (plain(), Some(rejected(format!("the body is not base64: {error}")))),
        }
    }

    /// As a JSON text, whatever it is.
    pub(super) fn as_json(&self) -> Bytes {
        match self.is_json {
            true => self.payload.clone(),
            false => {
                let body = STANDARD.encode(&self.payload);
                json!({ "encoding": "base64", "body": body }).to_string().into()
            }
        }
    }

    /// As a letter keeps it: a JSON text, and whether that is a text that stands for bytes.
    pub(super) fn as_kept(&self) -> (Bytes, bool) {
        match self.is_json {
            true => (self.payload.clone(), false),
            false => (json!(STANDARD.encode(&self.payload)).to_string().into(), true),
        }
    }

    /// The same in a form that its target takes.
    ///
    /// # Errors
    /// The fault of one that may not be said in another form.
    pub(super) fn in_one_of(self, codecs: &[Codec]) -> Result<Self, Fault> {
        if codecs.contains(&Codec::of(self.is_json)) {
            return Ok(self);
        }
        if !self.recode {
            let form = if self.is_json { "JSON" } else { "bytes" };
            return Err(rejected(format!("the target takes no messages in {form}")));
        }
        let payload = self.as_json();
        Ok(Self { payload, is_json: !self.is_json, recode: true })
    }
}

fn rejected(why: String) -> Fault {
    Fault::new("codec_rejected", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(String, bool, bool), Box<str>> {
        let (said, fault) = Said::read(&Bytes::copy_from_slice(text.as_bytes()));
        fault.map_or(Ok(()), |fault| Err(fault.code))?;
        Ok((String::from_utf8_lossy(&said.payload).into(), said.is_json, said.recode))
    }

    #[test]
    fn only_what_is_nothing_but_bytes_is_sent_as_such() {
        let bytes = r#"{"encoding":"base64","body":"aGk="}"#;
        assert_eq!(read(bytes), Ok(("hi".into(), false, false)));
        let recode = r#"{"encoding":"base64","body":"aGk=","recode":true}"#;
        assert_eq!(read(recode), Ok(("hi".into(), false, true)));
        for text in [
            r#"{"n":1}"#,
            r#"{"body":"aGk=","encoding":"utf-8"}"#,
            r#"{"body":"aGk=","encoding":"base64","name":"x"}"#,
            r#"{"body":7,"encoding":"base64"}"#,
            r#"{"recode":"perhaps"}"#,
        ] {
            assert_eq!(read(text), Ok((text.into(), true, false)), "{text}");
        }
        assert_eq!(read(r#"{"n":1,"recode":true}"#), Ok((r#"{"n":1}"#.into(), true, true)));
        let broken = r#"{"encoding":"base64","body":"-"}"#;
        assert_eq!(read(broken), Err("codec_rejected".into()));
    }

    #[test]
    fn what_may_be_said_in_another_form_is() {
        let said = |is_json, recode| Said { payload: Bytes::from_static(b"hi"), is_json, recode };
        for codec in Codec::ALL {
            let same = said(codec == Codec::Json, false);
            assert_eq!(same.clone().in_one_of(&[codec]), Ok(same));
        }
        let refused = said(false, false).in_one_of(&[Codec::Json]).unwrap_err();
        assert_eq!(&*refused.code, "codec_rejected");
        assert!(said(true, false).in_one_of(&[Codec::Bytes]).is_err());
        let text = said(false, true).in_one_of(&[Codec::Json]).unwrap();
        assert_eq!(&*text.payload, br#"{"body":"aGk=","encoding":"base64"}"#);
        assert!(text.is_json);
        let bytes = said(true, true).in_one_of(&[Codec::Bytes]).unwrap();
        assert_eq!((&*bytes.payload, bytes.is_json), (&b"hi"[..], false));
        assert_eq!(said(false, false).as_kept(), (Bytes::from_static(b"\"aGk=\""), true));
        assert_eq!(said(true, false).as_kept(), (Bytes::from_static(b"hi"), false));
    }
}
