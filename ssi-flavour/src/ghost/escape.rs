//! What a person types on a terminal to leave a tree that goes on: a tilde and a point at the
//! beginning of a line, as with ssh(1). Two tildes there are one for the tree.

/// Sees what is typed.
#[derive(Debug, Default)]
pub(super) struct Escape {
    inside: bool,
    tilde: bool,
}

impl Escape {
    /// What of it goes to the tree, at most one byte more than was typed, and whether the person
    /// leaves.
    pub(super) fn take(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut keys = Vec::with_capacity(typed.len() + 1);
        for key in typed {
            match (std::mem::take(&mut self.tilde), key) {
                (true, b'.') => return (keys, true),
                (true, b'~') => keys.push(b'~'),
                (true, other) => keys.extend([b'~', *other]),
                (false, b'~') if !self.inside => {
                    self.tilde = true;
                    continue;
                }
                (false, other) => keys.push(*other),
            }
            self.inside = !matches!(key, b'\r' | b'\n');
        }
        (keys, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tilde_and_a_point_at_a_lines_beginning_leave() {
        // wrong: a person could not leave a program on a terminal, or would by typing a name
        let typed = |all: &[&str]| {
            let mut escape = Escape::default();
            let mut keys = Vec::new();
            for part in all {
                let (some, leaves) = escape.take(part.as_bytes());
                keys.extend(some);
                if leaves {
                    return (String::from_utf8(keys).unwrap(), true);
                }
            }
            (String::from_utf8(keys).unwrap(), false)
        };
        assert_eq!(typed(&["~."]), (String::new(), true));
        assert_eq!(typed(&["ls\r", "~", ".x"]), ("ls\r".into(), true));
        assert_eq!(typed(&["ls ~.\r"]), ("ls ~.\r".into(), false));
        assert_eq!(typed(&["~~.\r~", "/x\r"]), ("~.\r~/x\r".into(), false));
    }
}
