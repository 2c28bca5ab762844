//! Units that go from one site's cluster to another's.

use crate::cluster::nodes_join_and_are_tried;
use crate::tool::Json;
use crate::world::{VOLUME, World, soon};
use xos_testbed::grid::SiteSpec;

/// The cluster to which they go.
const OTHER: &str = "c2.pisa";
/// Counts, into its output and a file on the volume, until it is told to stop; then what it had
/// counted together.
const COUNT: &str = "exec 3>>lines; n=0; s=0; while [ ! -e stop ]; do echo $n; echo $n >&3; \
                     s=$((s+n)); n=$((n+1)); sleep 0.1; done; echo sum $n $s";

/// If it failed, a unit that is moved to another site would lose its work, its output or its person,
/// run twice, or not go on where it was when nobody takes it.
#[test]
fn a_unit_goes_to_another_sites_cluster() {
    let rennes = SiteSpec { cluster: true, ..SiteSpec::new("rennes") };
    let cluster_config = "takes_from = [\"rennes\"]\n".to_owned();
    let pisa = SiteSpec { cluster: true, cluster_config, ..SiteSpec::new("pisa") };
    let Some(w) = World::with(&rennes, &pisa) else { return };
    w.step("nodes_join_and_are_tried", nodes_join_and_are_tried);
    let job = start(&w);
    w.step("the_other_site_has_a_cluster", the_other_site_has_a_cluster);
    w.step("what_nobody_takes_goes_on_at_home", |w| what_nobody_takes_goes_on_at_home(w, &job));
    w.step("it_goes_on_at_the_other_site", |w| it_goes_on_at_the_other_site(w, &job));
    w.step("all_that_it_wrote_is_there_once", |w| all_that_it_wrote_is_there_once(w, &job));
}

/// Pisa has no cluster yet, so that the unit begins at rennes.
fn start(w: &World) -> String {
    let args = ["--checkpointable", "--chdir", VOLUME, "--", "sh", "-c", COUNT];
    let job = w.start(&w.milo, &args);
    soon("it runs at rennes", || (at(w, &job).as_deref() == Some("c1.rennes")).then_some(()));
    job
}

fn show(w: &World, job: &str) -> Json {
    w.json(&w.milo, &["job", "show", job])
}

/// Where the job's unit runs.
fn at(w: &World, job: &str) -> Option<String> {
    let state = show(w, job)["units"][0]["state"].clone();
    let runs = state["state"] == "running";
    runs.then(|| state["node"].as_str().unwrap_or_default().to_owned())
}

/// How many lines of output there are.
fn lines(w: &World, job: &str) -> usize {
    w.run(&w.milo, "xout", &[job]).ok().lines().count()
}

fn the_other_site_has_a_cluster(w: &World) {
    w.pisa.admin(&["cluster", "create", "c2"]).unwrap();
    w.pisa.admin(&["cluster", "add", "c2", "n1", "n2"]).unwrap();
    soon("both nodes of pisa are online", || {
        let said = w.pisa.admin(&["cluster", "nodes", "c2", "--json"]).unwrap();
        let view: Json = serde_json::from_str(&said).unwrap();
        let nodes = view["nodes"].as_array().unwrap();
        nodes.iter().all(|n| n["state"] == "online").then_some(())
    });
}

fn what_nobody_takes_goes_on_at_home(w: &World, job: &str) {
    soon("it counts", || (lines(w, job) > 5).then_some(()));
    soon("the site's clusters are known", || {
        let said = w.xos(&w.milo, &["job", "move", job, "c9.pisa"]);
        assert_ne!(said.code, 0, "it was sent to a cluster that is none: {said:?}");
        said.err.contains("c9.pisa").then_some(())
    });
    assert_eq!(show(w, job)["job"]["moves"], Json::Null, "it is asked before it is stopped");
    let before = lines(w, job);
    soon("it goes on", || (lines(w, job) > before + 5).then_some(()));
}

fn it_goes_on_at_the_other_site(w: &World, job: &str) {
    soon("it can be moved", || {
        let said = w.xos(&w.milo, &["job", "move", job, OTHER]);
        (said.code == 0).then_some(())
    });
    soon("it runs at pisa", || (at(w, job).as_deref() == Some(OTHER)).then_some(()));
    println!("{}", w.xos(&w.milo, &["job", "show", job]).ok());
    let before = lines(w, job);
    soon("it goes on there", || (lines(w, job) > before + 5).then_some(()));
}

fn all_that_it_wrote_is_there_once(w: &World, job: &str) {
    let stop = format!("{VOLUME}/stop");
    w.xsub(&w.milo, &["--on", "pisa", "--", "touch", &stop]).ok();
    w.xos(&w.milo, &["job", "wait", job]).ok();
    let text = w.run(&w.milo, "xout", &[job]).ok();
    let mut lines: Vec<&str> = text.lines().collect();
    let last = lines.pop().unwrap_or_default();
    let count = lines.len();
    let sum = count * count.saturating_sub(1) / 2;
    assert_eq!(last, format!("sum {count} {sum}"));
    let counted: Vec<String> = (0..count).map(|n| n.to_string()).collect();
    assert_eq!(lines, counted);
    let file = format!("{VOLUME}/lines");
    let kept = w.xsub(&w.milo, &["--on", "pisa", "--", "cat", &file]).ok();
    assert_eq!(kept.lines().collect::<Vec<_>>(), counted);
}
