use super::super::{Person, Tcp, Trust};
use super::*;
use std::time::Duration;

const PID: i32 = 32_769;
const OWNER: u32 = 70_001;
const HERE: Option<Cell> = Some(Cell { pid: 10, own_net: false });
const THERE: Option<Cell> = Some(Cell { pid: 20, own_net: false });

fn dump(folder: &str, leave: Leave) -> DumpOrder {
    DumpOrder {
        root: PID,
        cell: HERE,
        folder: folder.into(),
        leave,
        externals: Vec::new(),
        tcp: Tcp::None,
        limit: Duration::from_secs(10),
    }
}

fn person(uid: u32) -> Person {
    Person::new(uid, uid, &[])
}

fn restore(folder: &str, cell: Option<Cell>) -> RestoreOrder {
    RestoreOrder {
        folder: folder.into(),
        trust: Trust::OwnSite,
        owner: person(OWNER),
        cell,
        cgroups: Vec::new(),
        rlimits: Vec::new(),
        inherited: Vec::new(),
        network: None,
        tcp: Tcp::None,
        stopped: false,
        limit: Duration::from_secs(10),
    }
}

fn origin() -> Origin {
    let criu = VERSION.into();
    Origin { pid: PID, owner: OWNER, epoch: 1, criu, open_files: Vec::new() }
}

/// A machine whose program has counted to 3.
fn counting() -> Fake {
    let fake = Fake::new();
    fake.start(HERE, PID).unwrap();
    (0..3).for_each(|_| fake.tick());
    fake
}

/// If it failed, a simulation would be content where the real driver loses a program's work.
#[tokio::test]
async fn a_program_moves_and_counts_on() {
    let fake = counting();
    fake.dump(&dump("/a", Leave::Stopped)).await.unwrap();
    fake.tick();
    assert_eq!(fake.program(HERE, PID), Some(Program { counter: 3, stopped: true }));
    fake.seal(Path::new("/a"), origin()).await.unwrap();
    assert!(fake.copy(Path::new("/a"), Path::new("/b")));
    fake.restore(restore("/b", THERE)).await.unwrap();
    assert_eq!(fake.copies(PID).len(), 2);
    assert!(fake.kill(HERE, PID));
    fake.tick();
    assert_eq!(fake.copies(PID), [(20, Program { counter: 4, stopped: false })]);
    let taken = fake.restore(restore("/b", THERE)).await.unwrap_err();
    assert!(matches!(taken, DriverError::PidTaken { pid: PID }), "{taken}");
}

#[tokio::test]
async fn only_whole_images_of_the_owner_are_started() {
    let fake = counting();
    fake.dump(&dump("/a", Leave::Killed)).await.unwrap();
    assert!(fake.copies(PID).is_empty());
    let torn = fake.restore(restore("/a", THERE)).await.unwrap_err();
    assert!(matches!(torn, DriverError::Images(ImageError::Torn { .. })), "{torn}");
    fake.seal(Path::new("/a"), origin()).await.unwrap();
    let foreign = RestoreOrder { owner: person(OWNER + 1), ..restore("/a", THERE) };
    let foreign = fake.restore(foreign).await.unwrap_err();
    assert!(matches!(foreign, DriverError::Images(ImageError::Foreign { .. })), "{foreign}");
    assert!(fake.damage(Path::new("/a")));
    let damaged = fake.restore(restore("/a", THERE)).await.unwrap_err();
    assert!(matches!(damaged, DriverError::Images(ImageError::Altered { .. })), "{damaged}");
}

#[tokio::test]
async fn each_step_can_fail_once() {
    let fake = counting();
    fake.fail_next(Step::Dump, Failure::Refuses);
    assert!(fake.dump(&dump("/a", Leave::Killed)).await.is_err());
    assert_eq!(fake.program(HERE, PID), Some(Program { counter: 3, stopped: false }));
    fake.dump(&dump("/a", Leave::Running)).await.unwrap();
    fake.fail_next(Step::Seal, Failure::Refuses);
    assert!(fake.seal(Path::new("/a"), origin()).await.is_err());
    fake.seal(Path::new("/a"), origin()).await.unwrap();
    fake.fail_next(Step::Restore, Failure::TimesOut);
    let late = fake.restore(restore("/a", THERE)).await.unwrap_err();
    assert!(matches!(late, DriverError::TimedOut { step: Step::Restore, .. }), "{late}");
    assert_eq!(fake.program(THERE, PID), None);
    fake.restore(restore("/a", THERE)).await.unwrap();
    fake.fail_next(Step::Dump, Failure::TimesOut);
    assert!(fake.dump(&dump("/c", Leave::Running)).await.is_err());
    assert_eq!(fake.program(HERE, PID), None, "hurt");
    fake.fail_next(Step::Probe, Failure::Refuses);
    assert!(fake.probe().await.is_err());
    assert!(fake.probe().await.unwrap().has(Feature::Tcp));
}
