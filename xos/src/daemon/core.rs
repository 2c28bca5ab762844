//! A core's `xosd`.

use super::clusters::{Joined, Registry};
use super::config::{Config, Site};
use super::files::{self, Files};
use super::{notify, trusted, vault};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use xos_aem::Aem;
use xos_aem::world::GridWorld;
use xos_api::Done;
use xos_api::cda::CertifyHost;
use xos_api::node::Hello;
use xos_api::site::ConnectedNodes;
use xos_base::when::{Clock, SystemClock};
use xos_base::{Error, SiteId};
use xos_cda::{Cda, SiteKeys};
use xos_console::Console;
use xos_net::http::Shared;
use xos_net::port::{self, Services};
use xos_net::{Audit, ClusterNames, Grid, Nodes, Router, Trust, Verifier, openapi};
use xos_node::hosts::Hosts;
use xos_ssi::service::{self, ClusterService};
use xos_store::{RedbStore, Store};
use xos_vom::Vom;
use xos_vom::audit::AuditLog;

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

/// The audit's folder, below the state folder.
pub const AUDIT: &str = "audit";

/// Opens the site's audit, which the services are to tell what happens.
///
/// # Errors
/// [`xos_base::Kind::Conflict`] when another `xosd` has it open; those of the disk.
pub async fn open_audit(
    state: &Path,
    site: &SiteId,
    clock: Arc<dyn Clock>,
) -> Result<Arc<AuditLog>, Error> {
    let (dir, site) = (state.join(AUDIT), site.clone());
    let open = move || AuditLog::open(&dir, site, xos_vom::audit::Options::default(), clock);
    let opened = tokio::task::spawn_blocking(open).await;
    opened.map(|log| log.map(Arc::new)).map_err(|e| Error::internal(format!("the audit: {e}")))?
}

/// Writes what the audit still has to write.
async fn close_audit(log: Arc<AuditLog>) {
    if let Err(e) = tokio::task::spawn_blocking(move || log.close()).await {
        tracing::error!(error = %e, "the audit was not closed in order");
    }
}

/// What the services of a core work with.
struct Ground {
    site: SiteId,
    state: PathBuf,
    keys: SiteKeys,
    store: Arc<dyn Store>,
    audit: Arc<AuditLog>,
    trust: Trust,
    grid: Grid,
    nodes: Nodes,
    verifier: Verifier,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
}

impl Ground {
    async fn open(
        Site { name: site, state }: Site,
        config: &xos_cda::Config,
        stop: CancellationToken,
    ) -> Result<Ground, Error> {
        state_folder(&state)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let vault = vault::open(config.pkcs11.as_ref())?;
        let keys = SiteKeys::create_or_open(&state, &site, &config.names, vault, clock.now())?;
        let store = open_registry(&state).await?;
        let audit = open_audit(&state, &site, clock.clone()).await?;
        let trust = Trust::new();
        let grid = Grid::new(site.clone(), trust.clone(), keys.core_identity());
        let nodes = Nodes::new(site.clone());
        let verifier = Verifier::new(site.clone(), trust.clone(), clock.clone());
        Ok(Ground { site, state, keys, store, audit, trust, grid, nodes, verifier, clock, stop })
    }

    async fn cda(&self, config: xos_cda::Config) -> Result<Cda, Error> {
        let parts = xos_cda::Parts {
            keys: self.keys.clone(),
            store: self.store.clone(),
            grid: self.grid.clone(),
            trust: self.trust.clone(),
            clock: self.clock.clone(),
            audit: self.audit.clone(),
            stop: self.stop.clone(),
        };
        Cda::start(config, parts).await
    }

    async fn vom(&self, config: xos_vom::Config) -> Result<Vom, Error> {
        let deps = xos_vom::Deps {
            site: self.site.clone(),
            store: self.store.clone(),
            signer: Arc::new(self.keys.signer().clone()),
            trust: self.trust.clone(),
            clock: self.clock.clone(),
            homes: Arc::new(self.grid.clone()),
            nodes: Arc::new(self.nodes.clone()),
            log: self.audit.clone(),
            holders: Arc::new(self.grid.clone()),
            audit: self.audit.clone(),
        };
        Vom::start(config, deps).await
    }

    async fn aem(
        &self,
        mut config: xos_aem::Config,
        vom: &Vom,
        clusters: Option<&Arc<ClusterService>>,
    ) -> Result<Aem, Error> {
        if config.dir == xos_aem::Config::default().dir {
            config.dir = self.state.join("aem");
        }
        let mut world = GridWorld::new(self.grid.clone(), self.nodes.clone());
        if let Some(clusters) = clusters {
            world = world.with_clusters(clusters.clone(), self.clock.clone());
        }
        let world = Arc::new(world);
        let (standing, rules) = (Arc::new(vom.clone()), Arc::new(vom.clone()));
        let audit: Arc<dyn Audit> = self.audit.clone();
        let told = (self.clock.clone(), audit);
        Aem::start(config, self.site.clone(), world, standing, rules, told).await
    }

    async fn files(&self, config: files::Config, vom: &Vom) -> Result<Arc<Files>, Error> {
        let parts = files::Parts {
            site: self.site.clone(),
            state: self.state.join("files"),
            grid: self.grid.clone(),
            nodes: self.nodes.clone(),
            trust: self.trust.clone(),
            vom: vom.clone(),
            clock: self.clock.clone(),
            audit: self.audit.clone(),
            stop: self.stop.clone(),
        };
        Files::start(config, parts).await
    }

    async fn clusters(
        &self,
        config: service::Config,
        cda: &Cda,
        vom: &Vom,
    ) -> Result<Arc<ClusterService>, Error> {
        let deps = service::Deps {
            site: self.site.clone(),
            clock: self.clock.clone(),
            records: Arc::new(Registry::new(self.store.clone())),
            nodes: Arc::new(self.nodes.clone()),
            machines: Arc::new(Joined(cda.clone())),
            vos: Arc::new(self.grid.clone()),
            rules: Arc::new(vom.clone()),
            standing: Arc::new(vom.clone()),
            audit: self.audit.clone(),
        };
        let clusters = ClusterService::start(config, deps).await?;
        let names: Arc<dyn ClusterNames> = clusters.clone();
        cda.set_clusters(Arc::downgrade(&names));
        Ok(clusters)
    }

    fn hosts(&self, config: &xos_node::hosts::Config) -> Result<Hosts, Error> {
        Hosts::open("ssh_host", config, self.state.join("ssh"))
    }

    fn console(&self, config: xos_console::Config) -> Result<Console, Error> {
        let deps = xos_console::Deps {
            grid: self.grid.clone(),
            verifier: self.verifier.clone(),
            runtime: Handle::current(),
            clock: self.clock.clone(),
            random: xos_console::system_random(),
        };
        Console::start(config, deps)
    }
}

/// Keeps the certificates of the host keys of this machine's sshd, until `stop`.
async fn keep_host_certificates(
    hosts: Hosts,
    cda: Cda,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let certify = |r: CertifyHost| std::future::ready(cda.certify_own_host(&r.keys));
    tokio::select! {
        () = stop.cancelled() => {}
        () = hosts.keep(&*clock, certify) => {}
    }
}

/// Looks after the clusters until `stop`, and keeps then what is in memory only.
async fn keep_clusters(clusters: Arc<ClusterService>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = clusters.clone().keep() => {}
    }
    clusters.settle().await;
}

/// On a core without jobs nodes are heard all the same.
fn hear_nodes(router: &mut Router) {
    router.on::<Hello, _, _>(|caller, hello| async move {
        if *caller.node()? != hello.node {
            return Err(Error::denied("a node reports for itself only"));
        }
        Ok(Done {})
    });
}

fn tell_of_nodes(nodes: Nodes, router: &mut Router) {
    router.on::<ConnectedNodes, _, _>(move |caller, _| {
        let nodes = nodes.clone();
        async move {
            if caller.site_admin() {
                Ok(nodes.connected())
            } else {
                Err(Error::denied(format!("{} does not administer this site", caller.describe())))
            }
        }
    });
}

/// The sections of a core's services, the console apart.
struct Sections {
    cda: xos_cda::Config,
    vom: xos_vom::Config,
    aem: Option<xos_aem::Config>,
    files: Option<files::Config>,
    cluster: Option<service::Config>,
}

/// A core's services, and all that they answer.
struct Running {
    cda: Cda,
    vom: Vom,
    aem: Option<Aem>,
    files: Option<Arc<Files>>,
    clusters: Option<Arc<ClusterService>>,
    router: Arc<Router>,
}

/// Starts the services. `beside`: what is served beside requests, for the document of the API.
async fn start(
    ground: &Ground,
    sections: Sections,
    beside: &[serde_json::Value],
) -> Result<Running, Error> {
    let mut router = Router::new();
    let cda = ground.cda(sections.cda).await?;
    cda.register(&mut router);
    let vom = ground.vom(sections.vom).await?;
    vom.register(&mut router);
    ground.verifier.set_standing(Arc::new(vom.clone()));
    let clusters = match sections.cluster {
        Some(config) => Some(ground.clusters(config, &cda, &vom).await?),
        None => None,
    };
    let aem = match sections.aem {
        Some(config) => Some(ground.aem(config, &vom, clusters.as_ref()).await?),
        None => None,
    };
    match &aem {
        Some(aem) => aem.register(&mut router),
        None => hear_nodes(&mut router),
    }
    let files = match sections.files {
        Some(config) => Some(ground.files(config, &vom).await?),
        None => None,
    };
    if let Some(clusters) = &clusters {
        clusters.register(&mut router);
    }
    tell_of_nodes(ground.nodes.clone(), &mut router);
    openapi::serve(&mut router, beside);
    let router = Arc::new(router);
    ground.nodes.set_router(router.clone());
    ground.grid.set_router(router.clone());
    Ok(Running { cda, vom, aem, files, clusters, router })
}

/// Runs the core until `stop`.
///
/// # Errors
/// Why it cannot start.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let missing = |name: &str| Error::invalid(format!("section [{name}] is missing on a core"));
    let port_config = config.port.ok_or_else(|| missing("port"))?;
    let cda_config = config.cda.ok_or_else(|| missing("cda"))?;
    let ground = Ground::open(config.site, &cda_config, stop.clone()).await?;
    let sections = Sections {
        cda: cda_config,
        vom: config.vom.unwrap_or_default(),
        aem: config.aem,
        files: config.files,
        cluster: config.cluster,
    };
    let beside: Vec<_> = config.console.iter().map(|_| xos_console::described()).collect();
    let Running { cda, vom, aem, files, clusters, router } =
        start(&ground, sections, &beside).await?;
    let hosts = config.ssh_host.map(|config| ground.hosts(&config)).transpose()?;
    let console = config.console.map(|config| ground.console(config)).transpose()?;
    if console.is_some() {
        cda.provide_sign_in();
    }
    if let Some(files) = &files {
        tokio::spawn(files.clone().keep());
    }
    let Ground { site, keys, audit, trust, nodes, verifier, clock, .. } = ground;
    let certified = hosts
        .map(|hosts| tokio::spawn(keep_host_certificates(hosts, cda.clone(), clock, stop.clone())));
    let clustered = clusters.map(|c| tokio::spawn(keep_clusters(c, stop.clone())));
    let telling = tokio::spawn(trusted::run(site.clone(), nodes.clone(), trust, stop.clone()));

    let listener = TcpListener::bind(&port_config.listen).await.map_err(|e| {
        Error::invalid(format!("cannot listen at {}: {e}", port_config.listen))
            .hint("[port] listen names the address; is another xosd running?")
    })?;
    notify::ready(&format!("core of {site}, root {}", keys.fingerprint()));
    let pages = console.as_ref().map(Console::pages);
    let http = Shared { router, verifier: verifier.clone(), runtime: Handle::current(), pages };
    let services = Services { http, verifier, nodes, files: files.as_ref().map(Files::handler) };
    port::serve(listener, &port_config, &keys.core_identity(), services, stop).await?;
    vom.stop();
    if let Some(aem) = aem {
        aem.stop().await;
    }
    for task in [Some(telling), certified, clustered].into_iter().flatten() {
        if let Err(e) = task.await {
            tracing::error!(error = %e, "a part of the core failed");
        }
    }
    close_audit(audit).await;
    Ok(())
}

#[cfg(test)]
mod api_tests;
