//! `xosd setup`: this machine becomes the core of a new site.

use super::args::Setup;
use super::core::{open_audit, open_registry, state_folder};
use super::durable::{check_place, write_new};
use super::{say, vault};
use std::path::Path;
use std::sync::Arc;
use xos_base::when::{Clock, SystemClock};
use xos_base::{Error, Kind};
use xos_cda::{Pkcs11, SiteKeys, create_administrator};

/// Makes keys, registry, first administrator and configuration.
///
/// # Errors
/// What is in the way; nothing that exists is replaced. The configuration is written last: until
/// then it can be repeated, and goes on with the keys and the administrator that there are.
pub async fn run(args: Setup) -> Result<(), Error> {
    if args.config.exists() {
        return Err(Error::conflict(format!("{} exists already", args.config.display()))
            .hint("this machine is set up; `xosd run` starts it"));
    }
    check_place(&args.config)?;
    let prompt = format!("Password of {}: ", args.admin);
    let password = crate::cli::ask::new_password(&prompt, args.password_file.as_deref())?;
    state_folder(&args.state)?;
    let now = SystemClock.now();
    let mut names: Vec<String> =
        ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into_iter().collect();
    for name in &args.names {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let token = token(&args)?;
    let vault = vault::open(token.as_ref())?;
    let keys = SiteKeys::create_or_open(&args.state, &args.site, &names, vault, now)?;
    let store = open_registry(&args.state).await?;
    let audit = open_audit(&args.state, &args.site, Arc::new(SystemClock)).await?;
    let made = create_administrator(store, &args.site, &args.admin, &password, audit, now).await;
    let administrator = match made {
        Ok(person) => person.to_string(),
        Err(e) if e.kind == Kind::Conflict => {
            format!("{}, from before, with the password given then", args.site.person(&args.admin)?)
        }
        Err(e) => return Err(e),
    };
    write_new(&args.config, configuration(&args, &names, token.as_ref()))?;
    say(&format!("Site {} is set up.", args.site));
    say(&format!("  root           {}", keys.fingerprint()));
    say(&format!("  administrator  {administrator}"));
    say(&format!("  configuration  {}", args.config.display()));
    say("Start it with `xosd run`; tell people the root's fingerprint.");
    Ok(())
}

/// The token for the keys. Its paths hold wherever `xosd` is started.
fn token(args: &Setup) -> Result<Option<Pkcs11>, Error> {
    let (Some(module), Some(token), Some(pin_file)) =
        (&args.pkcs11_module, &args.pkcs11_token, &args.pkcs11_pin_file)
    else {
        return Ok(None);
    };
    let whole = |path: &Path| {
        std::path::absolute(path)
            .map_err(|e| Error::invalid(format!("cannot use {}: {e}", path.display())))
    };
    let (module, pin_file) = (whole(module)?, whole(pin_file)?);
    Ok(Some(Pkcs11 { module, token: token.clone(), pin_file }))
}

fn configuration(args: &Setup, names: &[String], token: Option<&Pkcs11>) -> String {
    let list = |items: &[String]| {
        items
            .iter()
            .map(|i| toml::Value::from(i.as_str()).to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let text = |path: &Path| toml::Value::from(path.display().to_string()).to_string();
    let token = token.map_or_else(String::new, |t| {
        format!(
            "[cda.pkcs11]\nmodule = {}\ntoken = {}\npin_file = {}\n\n",
            text(&t.module),
            toml::Value::from(t.token.as_str()),
            text(&t.pin_file)
        )
    });
    format!(
        "# XOS core of site {site}. docs/config.md lists every section and key.\n\n\
         [site]\nname = \"{site}\"\nstate = {state}\n\n\
         [port]\nlisten = \"0.0.0.0:7443\"\n\n\
         [cda]\naddresses = [{addresses}]\nnames = [{names}]\n\n\
         {token}[vom]\n\n[aem]\n\n[files]\n\n[cluster]\n\n[console]\n",
        site = args.site,
        state = text(&args.state),
        addresses = list(&args.addresses),
        names = list(names),
    )
}
