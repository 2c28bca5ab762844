use super::super::asking::AGAIN_AFTER;
use super::super::barriers::Barriers;
use super::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;

const VO: &str = "demo.rennes";

/// A home that counts questions and answers them as long as the gate lets it; none: it is away.
struct Home {
    asked: AtomicUsize,
    gate: Semaphore,
    volumes: Mutex<Option<Vec<Volume>>>,
}

impl Home {
    fn new(volumes: Option<Vec<Volume>>) -> Arc<Home> {
        let (asked, gate) = (AtomicUsize::new(0), Semaphore::new(0));
        Arc::new(Home { asked, gate, volumes: Mutex::new(volumes) })
    }

    fn open(volumes: Option<Vec<Volume>>) -> Arc<Home> {
        let home = Home::new(volumes);
        home.gate.add_permits(1000);
        home
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait::async_trait]
impl Homes for Home {
    async fn volumes_of(&self, _: &SiteId, _: &VoName) -> Result<Vec<Volume>, Error> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        let volumes = self.volumes.lock().unwrap().clone();
        volumes.ok_or_else(|| Error::unavailable("the home is away"))
    }
}

fn volume(id: &str, key: u8) -> Volume {
    let mrc_key = vec![key; 32].into();
    Volume { id: id.into(), vo: VO.into(), mrc_key, ..Volume::default() }
}

fn mount() -> VolumeMount {
    let (vo, home) = (VO.parse().unwrap(), "rennes".parse().unwrap());
    VolumeMount { vo, volume: VO.to_owned(), home, store: true }
}

fn vo() -> VoName {
    VoName::parse(VO).unwrap()
}

fn id(text: &str) -> VolumeId {
    VolumeId::parse(text).unwrap()
}

/// Lets every task go on as far as it can: they all run on this thread.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

/// Else whoever reaches an object server makes it call a VO's home as often as they like, by
/// capabilities that nobody signed; or who hangs up at once keeps the keys from being learned.
#[tokio::test]
async fn a_home_is_asked_once_whatever_is_claimed() {
    let home = Home::new(Some(vec![volume("0f", 1)]));
    let known = Arc::new(Known::new(home.clone(), Keys::default(), Barriers::default()));
    known.volumes_told(&[mount()]);
    let start = Instant::now();
    let asking: Vec<_> = (0..100)
        .map(|n| {
            let known = known.clone();
            tokio::spawn(async move { known.key_at(&vo(), &id(&format!("a{n}")), start).await })
        })
        .collect();
    settle().await;
    assert_eq!(home.asked(), 1);
    assert_eq!(asking.iter().filter(|task| task.is_finished()).count(), 99, "they wait for it");
    for task in asking {
        // Also the one who asked.
        task.abort();
        if let Ok(key) = task.await {
            assert_eq!(key, Err(NoKey::NotYet));
        }
    }
    home.gate.add_permits(1000);
    settle().await;
    // What is kept may still be written, on another thread; the key is there.
    assert_eq!(known.key_at(&vo(), &id("0f"), start).await, Ok(PublicKey([1; 32])));
    assert_eq!(known.key_at(&vo(), &id("b"), start).await, Err(NoKey::NotYet));
    assert_eq!(home.asked(), 1);
    let later = start + AGAIN_AFTER;
    let mut answer = Err(NoKey::NotYet);
    for _ in 0..100_000 {
        if answer != Err(NoKey::NotYet) {
            break;
        }
        tokio::task::yield_now().await;
        answer = known.key_at(&vo(), &id("b"), later).await;
    }
    assert_eq!(answer, Err(NoKey::NotServed));
    assert_eq!(known.key_at(&vo(), &id("c"), later).await, Err(NoKey::NotYet));
    assert_eq!(home.asked(), 2);
    let nobodys = VoName::parse("other.rennes").unwrap();
    assert_eq!(known.key_at(&nobodys, &id("0f"), later).await, Err(NoKey::NotServed));
    assert_eq!(home.asked(), 2, "asked about a VO that is not stored here");
}

/// Else a restart of a node fails its people's reads and writes for good, since its core tells it
/// of volumes only a while later.
#[tokio::test]
async fn a_restarted_node_serves_at_once_and_refuses_nothing_before_it_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let before = Known::new(
        Home::open(Some(vec![volume("0f", 1)])),
        Keys::open(path.clone()),
        Barriers::default(),
    );
    let now = Instant::now();
    assert_eq!(before.key_at(&vo(), &id("0f"), now).await, Err(NoKey::NotYet), "nothing is known");
    before.volumes_told(&[mount()]);
    before.key_at(&vo(), &id("0f"), now).await.unwrap();

    let away = Home::open(None);
    let known = Known::new(away.clone(), Keys::open(path.clone()), Barriers::default());
    known.volumes_kept(&[mount()]);
    assert_eq!(known.key_at(&vo(), &id("0f"), now).await, Ok(PublicKey([1; 32])));
    assert_eq!(away.asked(), 0);
    assert_eq!(known.key_at(&vo(), &id("0e"), now).await, Err(NoKey::NotYet), "unheard");
    let new = VoName::parse("new.rennes").unwrap();
    assert_eq!(known.key_at(&new, &id("0f"), now).await, Err(NoKey::NotYet), "may be told yet");
    known.volumes_told(&[mount()]);
    known.volumes_kept(&[]);
    assert_eq!(known.key_at(&new, &id("0f"), now).await, Err(NoKey::NotServed));
    assert_eq!(known.homes().len(), 1, "what was kept came after what is so now");

    // A directory that has just started lists nothing: that is no answer.
    let starting = Known::new(Home::open(Some(Vec::new())), Keys::default(), Barriers::default());
    starting.volumes_told(&[mount()]);
    assert_eq!(starting.key_at(&vo(), &id("0f"), now).await, Err(NoKey::NotYet));

    // A key that was replaced meanwhile counts as soon as the home is heard.
    let renewed = Home::open(Some(vec![volume("0f", 2)]));
    let known = Known::new(renewed.clone(), Keys::open(path), Barriers::default());
    known.volumes_kept(&[mount()]);
    for _ in 0..2 {
        known.hear(&"rennes".parse().unwrap()).await;
    }
    assert_eq!(renewed.asked(), 1);
    assert_eq!(known.key_at(&vo(), &id("0f"), now).await, Ok(PublicKey([2; 32])));
}

/// Else a node would have a removed member wait for news that cannot come, or refuse one of whom
/// none has come yet.
#[test]
fn only_of_vos_that_were_told_somebody_has_left() {
    let known = Known::new(Home::new(None), Keys::default(), Barriers::default());
    assert!(!known.has_left(VO, 1) && known.least_valid(VO, 1).is_none());
    let members = Members { acting: HashMap::from([(2, 5)]), held: HashSet::from([3]), last: 4 };
    known.members(&VO.parse().unwrap(), members);
    let left: Vec<u32> = (0..=5).filter(|n| known.has_left(VO, *n)).collect();
    assert_eq!(left, [1, 4]);
    assert_eq!((known.least_valid(VO, 2), known.least_valid(VO, 3)), (Some(5), None));
    assert!(!known.has_left("other.rennes", 1));
}
