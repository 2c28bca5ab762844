//! The folder of keys is made once, whole.

use super::authority::{self, Authority, Role};
use super::list::KeyList;
use super::place::{Place, label};
use super::purpose::Purpose;
use super::{CORE_FILE, FOLDER, FOLDER_NEW, files, own};
use std::path::Path;
use std::sync::Arc;
use xos_base::{Error, Millis, SiteId};
use xos_net::key::Vault;

/// Makes the folder below `state`, under another name until it is whole.
pub(super) fn create(
    state: &Path,
    site: &SiteId,
    names: &[String],
    vault: Option<Arc<dyn Vault>>,
    now: Millis,
) -> Result<(), Error> {
    files::make_dir(state)?;
    let dir = state.join(FOLDER_NEW);
    // Nothing was ever issued from a folder that was not renamed yet.
    files::remove_leftover(&dir)?;
    files::make_dir(&dir)?;
    let place = Place { dir: dir.clone(), vault };
    let root_text = authority::make_root(site, &place, now)?;
    let root = Authority::read(Role::Root.file(), &root_text, &place)?;
    files::replace(&dir, Role::Root.file(), root_text.as_bytes())?;
    let below = (&root, &place);
    let people = authority::make(Role::People, site, below, now)?;
    files::replace(&dir, Role::People.file(), people.as_bytes())?;
    let machines_text = authority::make(Role::Machines, site, below, now)?;
    files::replace(&dir, Role::Machines.file(), machines_text.as_bytes())?;
    let machines = Authority::read(Role::Machines.file(), &machines_text, &place)?;
    let core = own::core_file(&machines, site, names, now)?;
    files::replace(&dir, CORE_FILE, core.as_bytes())?;
    for purpose in [Purpose::Signing, Purpose::SshPeople, Purpose::SshMachines, Purpose::Jwt] {
        let kept = place.make(purpose.kind(), &label(site, purpose.name()))?;
        let text = KeyList::of(purpose.kind(), kept, now).text()?;
        files::replace(&dir, purpose.file(), text.as_bytes())?;
    }
    files::publish(&dir, &state.join(FOLDER))
}
