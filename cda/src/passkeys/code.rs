//! Codes that people read and type: 100 random bits in Crockford's base 32, which has no letters
//! that are taken for others.

use xos_api::cda::OneTimeCode;
use xos_base::Error;
use xos_net::identity::{hex, sha256};

const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Letters of a code.
const LENGTH: usize = 20;
/// Letters between hyphens.
const GROUP: usize = 5;
/// Longest text that is read as one, in bytes.
const TEXT_MAX: usize = 64;

/// A new code.
pub(crate) fn new() -> Result<OneTimeCode, Error> {
    let bytes = crate::issue::random::<LENGTH>()?;
    let mut code = String::with_capacity(LENGTH + LENGTH / GROUP);
    for (i, byte) in bytes.iter().enumerate() {
        if i > 0 && i % GROUP == 0 {
            code.push('-');
        }
        code.push(char::from(LETTERS[usize::from(byte & 31)]));
    }
    Ok(OneTimeCode(code))
}

/// A digest of a code as somebody typed it: a memory dump or the registry gives nobody a usable
/// one. A text that is none has a digest that no code has.
pub(crate) fn hash(code: &OneTimeCode) -> String {
    let plain = |c: char| match c.to_ascii_lowercase() {
        'o' => Some('0'),
        'i' | 'l' => Some('1'),
        '-' => None,
        c if c.is_whitespace() => None,
        c => Some(c),
    };
    let text = if code.0.len() <= TEXT_MAX { code.0.as_str() } else { "" };
    hex(&sha256(text.chars().filter_map(plain).collect::<String>().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a code could be guessed, or a person who types it would be refused.
    #[test]
    fn a_code_is_long_enough_and_read_as_people_type() {
        let code = new().unwrap();
        assert_eq!(code.0.split('-').map(str::len).collect::<Vec<_>>(), [5; 4], "{}", code.0);
        assert_ne!(code, new().unwrap());
        let typed = OneTimeCode(format!(" {} ", code.0.to_uppercase().replace('-', "  ")));
        assert_eq!(hash(&typed), hash(&code));
        let sloppy = code.0.replace('0', "O").replace('1', "l");
        assert_eq!(hash(&OneTimeCode(sloppy)), hash(&code));
        assert_ne!(hash(&OneTimeCode(code.0[1..].to_owned())), hash(&code));
        assert_eq!(hash(&OneTimeCode("é".repeat(60))), hash(&OneTimeCode(String::new())));
    }
}
