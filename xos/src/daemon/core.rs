//! A core's `xosd`.

use super::config::Config;
use super::{files, notify, trusted, vault};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use xos_aem::Aem;
use xos_api::Done;
use xos_api::node::Hello;
use xos_api::site::ConnectedNodes;
use xos_base::Error;
use xos_base::when::{Clock, SystemClock};
use xos_cda::{Cda, SiteKeys};
use xos_console::Console;
use xos_net::http::Shared;
use xos_net::port::{self, Services};
use xos_net::{Grid, Nodes, Router, Trust, Verifier};
use xos_store::{RedbStore, Store};
use xos_vom::Vom;

/// The registry's file, below the state folder.
pub const REGISTRY: &str = "registry.redb";

/// Makes the state folder, which only root may enter files of.
///
/// # Errors
/// [`xos_base::Kind::Internal`] naming the folder.
pub fn state_folder(path: &Path) -> Result<(), Error> {
    let fail = |e| Error::internal(format!("cannot make {}: {e}", path.display()));
    std::fs::create_dir_all(path).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).map_err(fail)
}

/// Opens the registry.
///
/// # Errors
/// [`xos_base::Kind::Internal`] when it is damaged, or another `xosd` has it open.
pub async fn open_registry(state: &Path) -> Result<Arc<dyn Store>, Error> {
    let path = state.join(REGISTRY);
    let opened = tokio::task::spawn_blocking(move || RedbStore::open(&path)).await;
    match opened {
        Ok(Ok(store)) => Ok(Arc::new(store)),
        Ok(Err(e)) => Err(Error::internal(format!("cannot open the registry: {e}"))
            .hint("is another xosd running on the same state folder?")),
        Err(e) => Err(Error::internal(format!("cannot open the registry: {e}"))),
    }
}

/// Runs the core until `stop`.
///
/// # Errors
/// Why it cannot start.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let missing = |name: &str| Error::invalid(format!("section [{name}] is missing on a core"));
    let port_config = config.port.ok_or_else(|| missing("port"))?;
    let cda_config = config.cda.ok_or_else(|| missing("cda"))?;
    let site = config.site.name.clone();
    let state = config.site.state.clone();
    state_folder(&state)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let vault = vault::open(cda_config.pkcs11.as_ref())?;
    let keys = SiteKeys::create_or_open(&state, &site, &cda_config.names, vault, clock.now())?;
    let identity = keys.core_identity();
    let store = open_registry(&state).await?;
    let trust = Trust::new();
    let grid = Grid::new(site.clone(), trust.clone(), identity.clone());
    let nodes = Nodes::new(site.clone());
    let verifier = Verifier::new(site.clone(), trust.clone(), clock.clone());
    let mut router = Router::new();

    let cda = Cda::start(
        cda_config,
        xos_cda::Parts {
            keys: keys.clone(),
            store: store.clone(),
            grid: grid.clone(),
            trust: trust.clone(),
            clock: clock.clone(),
            stop: stop.clone(),
        },
    )
    .await?;
    cda.register(&mut router);

    let vom = Vom::start(
        config.vom.unwrap_or_default(),
        xos_vom::Deps {
            site: site.clone(),
            store: store.clone(),
            signer: Arc::new(keys.signer().clone()),
            trust: trust.clone(),
            clock: clock.clone(),
            homes: Arc::new(grid.clone()),
            nodes: Arc::new(nodes.clone()),
        },
    )
    .await?;
    vom.register(&mut router);
    verifier.set_standing(Arc::new(vom.clone()));

    let aem = match config.aem {
        Some(mut aem_config) => {
            if aem_config.dir == xos_aem::Config::default().dir {
                aem_config.dir = state.join("aem");
            }
            let world = Arc::new(xos_aem::world::GridWorld::new(grid.clone(), nodes.clone()));
            let standing = Arc::new(vom.clone());
            let aem = Aem::start(aem_config, site.clone(), world, standing, clock.clone()).await?;
            aem.register(&mut router);
            Some(aem)
        }
        None => {
            router.on::<Hello, _, _>(|caller, hello| async move {
                if *caller.node()? != hello.node {
                    return Err(Error::denied("a node reports for itself only"));
                }
                Ok(Done {})
            });
            None
        }
    };

    let files = match config.files {
        Some(files_config) => {
            let parts = files::Parts {
                site: site.clone(),
                state: state.join("files"),
                grid: grid.clone(),
                nodes: nodes.clone(),
                trust: trust.clone(),
                vom: vom.clone(),
                clock: clock.clone(),
                stop: stop.clone(),
            };
            Some(files::Files::start(files_config, parts).await?)
        }
        None => None,
    };
    let connected = nodes.clone();
    router.on::<ConnectedNodes, _, _>(move |caller, _| {
        let connected = connected.clone();
        async move {
            if caller.site_admin() {
                Ok(connected.connected())
            } else {
                Err(Error::denied(format!("{} does not administer this site", caller.describe())))
            }
        }
    });
    let console = match config.console {
        Some(console_config) => {
            let deps = xos_console::Deps {
                grid: grid.clone(),
                verifier: verifier.clone(),
                runtime: Handle::current(),
                clock: clock.clone(),
                random: xos_console::system_random(),
            };
            let console = Console::start(console_config, deps)?;
            cda.provide_sign_in();
            Some(console)
        }
        None => None,
    };
    let pages = console.as_ref().map(Console::pages);
    let router = Arc::new(router);
    nodes.set_router(router.clone());
    grid.set_router(router.clone());
    if let Some(files) = &files {
        tokio::spawn(files.clone().keep());
    }
    let telling =
        tokio::spawn(trusted::run(site.clone(), nodes.clone(), trust.clone(), stop.clone()));

    let listener = TcpListener::bind(&port_config.listen).await.map_err(|e| {
        Error::invalid(format!("cannot listen at {}: {e}", port_config.listen))
            .hint("[port] listen names the address; is another xosd running?")
    })?;
    notify::ready(&format!("core of {site}, root {}", keys.fingerprint()));
    let http = Shared { router, verifier: verifier.clone(), runtime: Handle::current(), pages };
    let services =
        Services { http, verifier, nodes, files: files.as_ref().map(files::Files::handler) };
    port::serve(listener, &port_config, &identity, services, stop).await?;
    vom.stop();
    if let Some(aem) = aem {
        aem.stop().await;
    }
    if let Err(e) = telling.await {
        tracing::error!(error = %e, "the task that tells nodes about sites failed");
    }
    Ok(())
}
