//! People on the laptop, each with a folder of their own, and their passwords.

use crate::{Cmd, Error, Result};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A person who uses the grid from the laptop.
#[derive(Clone, Debug)]
pub struct Person {
    /// Their name at their site.
    pub name: String,
    /// The site that signs them in.
    pub site: String,
    /// Their password.
    pub password: String,
    /// Whether they have an account on the laptop and act by it; else root acts for them.
    pub account: bool,
}

impl Person {
    /// `program` as this person starts it, in a home that is made when it is not there.
    pub fn command(&self, program: &str) -> Cmd {
        let (name, home) = (self.name.as_str(), format!("/home/{}", self.name));
        let make_home = ["-c", "mkdir -p \"$HOME\" && exec \"$0\" \"$@\"", program];
        let cmd = match self.account {
            true => Cmd::new("setpriv").args(as_user(name)).arg(program),
            false => Cmd::new("sh").args(make_home),
        };
        let user = if self.account { name } else { "root" };
        cmd.env("USER", user)
            .env("LOGNAME", user)
            .env("HOME", &home)
            .env("XOS_HOME", format!("{home}/.xos"))
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
    }

    /// `alice@rennes`.
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.site)
    }
}

/// What setpriv(1) is told so that a program runs as a user of the laptop.
pub fn as_user(name: &str) -> [String; 3] {
    [format!("--reuid={name}"), format!("--regid={name}"), "--init-groups".to_owned()]
}

/// In the folder of a grid: what people sign in with.
pub const PASSWORDS_DIR: &str = "passwords";

/// Passwords, kept in a file that only root reads.
#[derive(Debug)]
pub struct Purse {
    folder: PathBuf,
}

impl Purse {
    /// The purse in the folder of a testbed.
    pub(super) fn new(dir: &Path) -> Result<Purse> {
        let folder = dir.join(PASSWORDS_DIR);
        let fail =
            |source| Error::System { what: format!("passwords in {}", folder.display()), source };
        fs::create_dir_all(&folder).map_err(fail)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).map_err(fail)?;
        Ok(Purse { folder })
    }

    /// The person, with the password they have here or a new random one.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn person(&self, name: &str, site: &str) -> Result<Person> {
        let path = self.folder.join(format!("{name}@{site}"));
        let fail = |source| Error::System { what: format!("password {}", path.display()), source };
        let password = match fs::read_to_string(&path) {
            Ok(text) => text.trim().to_owned(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let password = random().map_err(fail)?;
                let mut options = fs::OpenOptions::new();
                options.write(true).create_new(true).mode(0o600);
                let mut file = options.open(&path).map_err(fail)?;
                std::io::Write::write_all(&mut file, password.as_bytes()).map_err(fail)?;
                password
            }
            Err(e) => return Err(fail(e)),
        };
        Ok(Person { name: name.to_owned(), site: site.to_owned(), password, account: false })
    }
}

/// Eighteen random letters and digits, without those that look alike.
fn random() -> std::io::Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; 18];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|b| LETTERS[usize::from(b % 32)] as char).collect())
}
