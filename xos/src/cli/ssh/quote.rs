//! Paths and words in files that other programs read: ssh's configuration, systemd's units, cron's
//! tables, and what a shell is given.

use std::path::Path;
use xos_base::Error;

/// A path that can be written in all of these: absolute, text, and without what they would read as
/// something else and have no common way to escape.
///
/// # Errors
/// [`xos_base::Kind::Invalid`] when it cannot.
pub fn plain(path: &Path) -> Result<&str, Error> {
    let good = |c: char| !c.is_control() && !matches!(c, '"' | '\\' | '$');
    path.to_str().filter(|t| path.is_absolute() && t.chars().all(good)).ok_or_else(|| {
        Error::invalid(format!(
            "{} cannot stand in the configuration of ssh: its name has \", \\, $, a line end, or \
             is no text",
            path.display()
        ))
        .hint("keep your keys elsewhere: --home DIR, or XOS_HOME")
    })
}

/// A [`plain`] path as a value in ssh's configuration.
pub fn ssh_value(path: &str) -> String {
    format!("\"{}\"", path.replace('%', "%%"))
}

/// A word for the shell by which ssh starts its ProxyCommand.
pub fn proxy_word(text: &str) -> String {
    shell_word(text).replace('%', "%%")
}

/// A word for a shell.
pub fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A [`plain`] path in the command line of a systemd unit.
pub fn unit_word(path: &str) -> String {
    format!("\"{}\"", path.replace('%', "%%"))
}

/// A word in a line of cron's table.
pub fn cron_word(text: &str) -> String {
    shell_word(text).replace('%', r"\%")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a folder with an odd name would break each login, or run what its name says.
    #[test]
    fn odd_paths_are_quoted_and_impossible_ones_refused() {
        let odd = "/home/al ice's/50%d #1; `id` ~x*[a]";
        assert_eq!(plain(Path::new(odd)).unwrap(), odd);
        assert_eq!(ssh_value(odd), "\"/home/al ice's/50%%d #1; `id` ~x*[a]\"");
        assert_eq!(proxy_word(odd), r"'/home/al ice'\''s/50%%d #1; `id` ~x*[a]'");
        assert_eq!(unit_word(odd), "\"/home/al ice's/50%%d #1; `id` ~x*[a]\"");
        assert_eq!(cron_word(odd), r"'/home/al ice'\''s/50\%d #1; `id` ~x*[a]'");
        for bad in ["xos", "/a\nb", "/a\"b", "/a\\b", "/a${HOME}", "/a\u{7f}"] {
            let e = plain(Path::new(bad)).unwrap_err();
            assert!(e.hint.unwrap().contains("XOS_HOME"), "{bad:?}");
        }
        let raw = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"/a\xff");
        assert!(plain(Path::new(raw)).is_err());
    }
}
