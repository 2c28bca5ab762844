//! People who come into a grid, and sites that learn of one another.

use super::{Grid, PORT, Person, Site, install};
use crate::{Error, Result};

impl Grid {
    /// The site's administrator makes a person known, who signs in on the laptop.
    ///
    /// # Errors
    /// The first step that failed, with its output.
    pub fn enrol(&self, site: &Site, name: &str) -> Result<Person> {
        self.known(site, self.purse().person(name, &site.name)?)
    }

    /// The same of somebody with an account on the laptop, by which they act there.
    ///
    /// # Errors
    /// As [`Grid::enrol`].
    pub fn enrol_user(&self, site: &Site, name: &str) -> Result<Person> {
        install::account(&self.laptop()?, &self.programs, name)?;
        let person = self.purse().person(name, &site.name)?;
        self.known(site, Person { account: true, ..person })
    }

    fn known(&self, site: &Site, person: Person) -> Result<Person> {
        let name = person.name.as_str();
        let add = site.admin.command("xos").args(["person", "add", name, "--password-file", "-"]);
        site.core.run(&add.stdin(person.password.as_bytes()))?.ok()?;
        let core = format!("{}-core:{PORT}", site.name);
        self.xos(&person, &["site", "add", &core, "--fingerprint", &site.fingerprint])?;
        self.sign_in(&person)?;
        Ok(person)
    }

    /// Signs a person in on the laptop (again).
    ///
    /// # Errors
    /// [`Error::Failed`] with what `xos login` printed.
    pub fn sign_in(&self, person: &Person) -> Result<()> {
        let login = person.command("xos").args(["login", &person.id(), "--password-file", "-"]);
        self.laptop()?.run(&login.stdin(person.password.as_bytes()))?.ok().map(drop)
    }
}

impl Site {
    /// The administrators of both sites make them trust one another.
    ///
    /// # Errors
    /// The first step that failed, with its output.
    pub fn exchange_trust(&self, other: &Site) -> Result<()> {
        let offer = ["site", "offer", &other.name, "--fingerprint", &other.fingerprint, "--json"];
        let said = self.admin(&offer)?;
        let unread = |reason: String| Error::Start { what: "xos site offer".into(), reason };
        let said: serde_json::Value =
            serde_json::from_str(&said).map_err(|e| unread(e.to_string()))?;
        let offer = said["offer"].as_str().ok_or_else(|| unread(format!("no offer: {said}")))?;
        other.core.write_file("/root/offer", offer.as_bytes(), 0o600)?;
        let print = self.fingerprint.as_str();
        let accept = ["site", "accept", "/root/offer", "--fingerprint", print, "--yes"];
        other.admin(&accept).map(drop)
    }
}
