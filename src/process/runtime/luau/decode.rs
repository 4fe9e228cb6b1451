//! JSON text into values of a guest.
//!
//! In: a text, which may be hostile. Out: a value, or where the text is no JSON. Memory is counted by the
//! VM, so a text that unfolds beyond the guest's limit ends with the error of the allocator.
//!
//! `null` in an object leaves the field out, since a guest asks `if msg.x`; in an array it is
//! `json.null`, since an array with a hole would change its length. An integer beyond 2^53 is a string
//! with its digits: a guest's numbers are doubles, and rounding an amount would be worse than a refusal.

use mlua::{Lua, Table, Value};

/// Arrays and objects within each other.
pub(super) const DEPTH_MAX: usize = 100;
/// Up to here every integer is a double of its own.
const EXACT_MAX: u64 = 1 << 53;

/// Why a text is no value.
#[derive(Debug)]
pub(super) enum DecodeError {
    /// It is no JSON, or nests too deep.
    Text {
        /// Byte at which it is wrong.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// The VM refused, for want of memory.
    Vm(mlua::Error),
}

impl From<mlua::Error> for DecodeError {
    fn from(error: mlua::Error) -> Self {
        Self::Vm(error)
    }
}

/// Reads a whole text. `array_mark` becomes the metatable of arrays, by which an empty one is told from
/// an empty object.
pub(super) fn decode(lua: &Lua, array_mark: &Table, text: &[u8]) -> Result<Value, DecodeError> {
    let mut reader = Reader { lua, array_mark, text, at: 0, scratch: Vec::new() };
    let value = reader.value(0)?;
    reader.blanks();
    if reader.at < text.len() {
        return Err(reader.wrong("more than one value"));
    }
    Ok(if value.is_null() { Value::Nil } else { value })
}

struct Reader<'a> {
    lua: &'a Lua,
    array_mark: &'a Table,
    text: &'a [u8],
    at: usize,
    /// A string with escapes, while it is put together.
    scratch: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn wrong(&self, what: &'static str) -> DecodeError {
        DecodeError::Text { at: self.at, what }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), DecodeError> {
        if self.peek() != Some(byte) {
            return Err(self.wrong(what));
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &'static [u8], value: Value) -> Result<Value, DecodeError> {
        if !self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            return Err(self.wrong("no value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn value(&mut self, depth: usize) -> Result<Value, DecodeError> {
        self.blanks();
        match self.peek() {
            Some(b'{' | b'[') if depth >= DEPTH_MAX => Err(self.wrong("nests too deep")),
            Some(b'{') => self.object(depth + 1).map(Value::Table),
            Some(b'[') => self.array(depth + 1).map(Value::Table),
            Some(b'"') => {
                let lua = self.lua;
                Ok(Value::String(lua.create_string(self.string()?)?))
            }
            Some(b't') => self.word(b"true", Value::Boolean(true)),
            Some(b'f') => self.word(b"false", Value::Boolean(false)),
            Some(b'n') => self.word(b"null", Value::NULL),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.wrong("no value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Table, DecodeError> {
        self.at += 1;
        let table = self.lua.create_table()?;
        self.blanks();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(table);
        }
        loop {
            self.blanks();
            let lua = self.lua;
            let key = lua.create_string(self.string()?)?;
            self.blanks();
            self.expect(b':', "no colon after a key")?;
            let value = self.value(depth)?;
            // A field that comes twice has the value of its last.
            table.raw_set(key, if value.is_null() { Value::Nil } else { value })?;
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                _ => return self.expect(b'}', "no end of an object").map(|()| table),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Table, DecodeError> {
        self.at += 1;
        let table = self.lua.create_table()?;
        self.blanks();
        if self.peek() == Some(b']') {
            self.at += 1;
        } else {
            for index in 1_i64.. {
                table.raw_set(index, self.value(depth)?)?;
                self.blanks();
                if self.peek() != Some(b',') {
                    break;
                }
                self.at += 1;
            }
            self.expect(b']', "no end of an array")?;
        }
        table.set_metatable(Some(self.array_mark.clone()))?;
        Ok(table)
    }

    /// The bytes of a string: from the text itself where nothing is escaped.
    fn string(&mut self) -> Result<&[u8], DecodeError> {
        self.expect(b'"', "no string")?;
        let from = self.at;
        let end = self.plain();
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(self.text.get(from..end).unwrap_or_default());
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(self.text.get(from..end).unwrap_or_default());
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(&self.scratch);
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape()?;
                }
                Some(0..=0x1f) => return Err(self.wrong("a control character in a string")),
                Some(_) => {
                    let from = self.at;
                    let end = self.plain();
                    let part = self.text.get(from..end).unwrap_or_default();
                    self.scratch.extend_from_slice(part);
                }
                None => return Err(self.wrong("no end of a string")),
            }
        }
    }

    /// Passes over what is in a string as it is; returns where that ends.
    fn plain(&mut self) -> usize {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
        self.at += rest.iter().position(special).unwrap_or(rest.len());
        self.at
    }

    fn escape(&mut self) -> Result<(), DecodeError> {
        let byte = self.peek().ok_or_else(|| self.wrong("no end of a string"))?;
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.wrong("an unknown escape")),
        };
        self.at += 1;
        self.scratch.push(plain);
        Ok(())
    }

    fn unicode(&mut self) -> Result<(), DecodeError> {
        let mut code = self.hex()?;
        let follows = self.text.get(self.at..).is_some_and(|rest| rest.starts_with(b"\\u"));
        if (0xd800..0xdc00).contains(&code) && follows {
            let first_end = self.at;
            self.at += 2;
            let low = self.hex()?;
            if (0xdc00..0xe000).contains(&low) {
                code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            } else {
                self.at = first_end;
            }
        }
        // Half of a pair is no character; the text may come from anywhere, so it is no reason to fail.
        let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        self.scratch.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn hex(&mut self) -> Result<u32, DecodeError> {
        let digits = self.text.get(self.at..self.at + 4).unwrap_or_default();
        if digits.len() < 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(self.wrong("an escape without its four digits"));
        }
        self.at += 4;
        let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or(0);
        Ok(digits.iter().fold(0, |code, byte| code << 4 | digit(byte)))
    }

    fn number(&mut self) -> Result<Value, DecodeError> {
        let from = self.at;
        let negative = self.peek() == Some(b'-');
        if negative {
            self.at += 1;
        }
        let leading_zero = self.peek() == Some(b'0');
        let digits = self.digits()?;
        if leading_zero && digits > 1 {
            return Err(self.wrong("a number that begins with 0"));
        }
        let mut integer = true;
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            integer = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.text.get(from..self.at).unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|_| self.wrong("no number"))?;
        let magnitude = text.trim_start_matches('-').parse::<u64>();
        if integer && !magnitude.is_ok_and(|magnitude| magnitude <= EXACT_MAX) {
            return Ok(Value::String(self.lua.create_string(text)?));
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Value::Number(number)),
            _ => Err(self.wrong("a number out of range")),
        }
    }

    fn digits(&mut self) -> Result<usize, DecodeError> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == from {
            return Err(self.wrong("a number without digits"));
        }
        Ok(self.at - from)
    }
}
