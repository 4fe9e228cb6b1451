//! JSON made readable, or put on one line, without being read: numbers, names and texts stay as they
//! were sent, byte by byte.
//!
//! In: the text of a JSON value. Out: the same value with other white space. What is no JSON comes out
//! with its white space changed, and nothing else. Pure. Called by `output`.

/// White space between tokens.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Layout {
    Lines,
    OneLine,
}

/// Over lines, two blanks a level.
pub(crate) fn over_lines(json: &[u8]) -> Vec<u8> {
    lay_out(json, Layout::Lines)
}

/// On one line, without blanks.
pub(crate) fn on_one_line(json: &[u8]) -> Vec<u8> {
    lay_out(json, Layout::OneLine)
}

fn lay_out(json: &[u8], layout: Layout) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + json.len() / 4);
    let (mut depth, mut is_text, mut is_escaped) = (0_usize, false, false);
    let mut bytes = json.iter().copied().peekable();
    let break_line = |out: &mut Vec<u8>, depth: usize| {
        if layout == Layout::Lines {
            out.push(b'\n');
            out.resize(out.len() + 2 * depth, b' ');
        }
    };
    while let Some(byte) = bytes.next() {
        if is_text {
            out.push(byte);
            is_text = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
            continue;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'{' | b'[' => {
                out.push(byte);
                while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
                match bytes.next_if(|next| matches!(next, b'}' | b']')) {
                    Some(close) => out.push(close),
                    None => {
                        depth += 1;
                        break_line(&mut out, depth);
                    }
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                break_line(&mut out, depth);
            }
            b':' if layout == Layout::Lines => out.extend_from_slice(b": "),
            b'"' => {
                out.push(byte);
                is_text = true;
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn values_stay_as_they_were_sent() {
        let json = "{ \"a\" : [ 1.10 , 18446744073709551616 ,\n {} , [ ] ],\"b\\\"{,:\":\"x : [y] \\\\\" }";
        let line = "{\"a\":[1.10,18446744073709551616,{},[]],\"b\\\"{,:\":\"x : [y] \\\\\"}";
        assert_eq!(text(on_one_line(json.as_bytes())), line);
        let lines = text(over_lines(json.as_bytes()));
        assert_eq!(
            lines,
            "{\n  \"a\": [\n    1.10,\n    18446744073709551616,\n    {},\n    []\n  ],\n  \"b\\\"{,:\": \"x : [y] \\\\\"\n}"
        );
        assert_eq!(text(on_one_line(lines.as_bytes())), line);
    }

    #[test]
    fn a_lone_value_is_itself() {
        for json in ["7", "\"a b\"", "null", "[]"] {
            assert_eq!(text(over_lines(json.as_bytes())), json);
            assert_eq!(text(on_one_line(json.as_bytes())), json);
        }
    }
}
