//! Sign-ins that are under way: a bounded table in memory. A restart of the core forgets them.
//!
//! When the table is full the oldest goes, so that who fills it must do so anew for each person
//! they want to keep out.

use openidconnect::core::CoreDeviceAuthorizationResponse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use xos_api::cda::Flow;
use xos_base::{Error, Millis, ProviderId};
use xos_net::identity::{hex, sha256};

/// Most flows at a time.
pub(crate) const FLOWS_MAX: usize = 16 * 1024;
/// How long a person may take, at most.
pub(crate) const FLOW_LIFE: Duration = Duration::from_secs(10 * 60);
/// Shortest pause between two questions to a provider about one flow, whatever it says.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Longest one.
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// By how much `slow_down` lengthens the pause (RFC 8628, 3.5).
const SLOWER: Duration = Duration::from_secs(5);

/// What the core keeps of a sign-in by a browser.
pub(crate) struct CodeFlow {
    pub(crate) provider: ProviderId,
    pub(crate) redirect: String,
    pub(crate) state: String,
    pub(crate) nonce: String,
    /// Of PKCE (RFC 7636).
    pub(crate) verifier: String,
}

impl CodeFlow {
    /// A flow with new secrets.
    pub(crate) fn new(provider: ProviderId, redirect: String) -> Result<CodeFlow, Error> {
        Ok(CodeFlow {
            provider,
            redirect,
            state: secret::<16>()?,
            nonce: secret::<16>()?,
            verifier: secret::<32>()?,
        })
    }
}

/// What the core keeps of a sign-in by another device.
#[derive(Clone)]
pub(crate) struct DeviceFlow {
    pub(crate) provider: ProviderId,
    pub(crate) details: Arc<CoreDeviceAuthorizationResponse>,
    interval: Duration,
    /// When the provider may be asked again.
    next: Millis,
}

/// What to do when somebody asks after a device flow.
pub(crate) enum Turn {
    /// There is none: it never was, is over, or took too long.
    Gone,
    /// It is too early; wait so long.
    Early(Duration),
    /// Ask the provider.
    Ask(DeviceFlow),
}

enum Kept {
    Code(CodeFlow),
    Device(DeviceFlow),
}

struct Entry {
    begun: Millis,
    expires: Millis,
    kept: Kept,
}

/// A digest of the secret, so that neither timing nor a memory dump gives a usable one.
type Key = [u8; 32];

/// All flows.
#[derive(Default)]
pub(crate) struct Flows(Mutex<HashMap<Key, Entry>>);

/// A text that nobody can guess, `N` bytes in hexadecimal.
fn secret<const N: usize>() -> Result<String, Error> {
    Ok(hex(&crate::issue::random::<N>()?))
}

fn key(flow: &Flow) -> Key {
    sha256(flow.0.as_bytes())
}

impl Flows {
    fn table(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, kept: Kept, life: Duration, now: Millis) -> Result<(Flow, Millis), Error> {
        let flow = Flow(secret::<16>()?);
        let expires = now.plus(life.min(FLOW_LIFE));
        let mut table = self.table();
        if table.len() >= FLOWS_MAX {
            table.retain(|_, e| now < e.expires);
        }
        if table.len() >= FLOWS_MAX {
            tracing::warn!(limit = FLOWS_MAX, "too many sign-ins are under way: the oldest ends");
            let oldest = table.iter().min_by_key(|(_, e)| e.begun).map(|(k, _)| *k);
            if let Some(oldest) = oldest {
                table.remove(&oldest);
            }
        }
        table.insert(key(&flow), Entry { begun: now, expires, kept });
        Ok((flow, expires))
    }

    /// Keeps a flow; its secret, and when it is over.
    pub(crate) fn begin_code(&self, flow: CodeFlow, now: Millis) -> Result<(Flow, Millis), Error> {
        self.put(Kept::Code(flow), FLOW_LIFE, now)
    }

    /// Keeps a flow; its secret, when it is over, and how long to wait before asking after it.
    pub(crate) fn begin_device(
        &self,
        provider: ProviderId,
        details: CoreDeviceAuthorizationResponse,
        now: Millis,
    ) -> Result<(Flow, Millis, Duration), Error> {
        let interval = details.interval().clamp(INTERVAL_MIN, INTERVAL_MAX);
        let life = details.expires_in();
        let details = Arc::new(details);
        let kept = DeviceFlow { provider, details, interval, next: now.plus(interval) };
        let (flow, expires) = self.put(Kept::Device(kept), life, now)?;
        Ok((flow, expires, interval))
    }

    /// Takes a flow by a browser out: it is finished once.
    pub(crate) fn take_code(&self, flow: &Flow, now: Millis) -> Option<CodeFlow> {
        let mut table = self.table();
        let key = key(flow);
        match &table.get(&key)?.kept {
            Kept::Code(_) => {}
            Kept::Device(_) => return None,
        }
        let entry = table.remove(&key)?;
        match entry.kept {
            Kept::Code(code) if now < entry.expires => Some(code),
            _ => None,
        }
    }

    /// Somebody asks after a device flow. Whoever is told to ask has the turn alone, until the
    /// interval is over.
    pub(crate) fn turn(&self, flow: &Flow, now: Millis) -> Turn {
        let mut table = self.table();
        let Some(entry) = table.get_mut(&key(flow)).filter(|e| now < e.expires) else {
            return Turn::Gone;
        };
        let Kept::Device(device) = &mut entry.kept else { return Turn::Gone };
        if now < device.next {
            return Turn::Early(device.next.since(now));
        }
        device.next = now.plus(device.interval);
        Turn::Ask(device.clone())
    }

    /// The provider was asked and says "not yet", or "not so often"; how long to wait now.
    pub(crate) fn wait(&self, flow: &Flow, slower: bool, now: Millis) -> Duration {
        let mut table = self.table();
        match table.get_mut(&key(flow)).map(|e| &mut e.kept) {
            Some(Kept::Device(device)) => {
                if slower {
                    device.interval = (device.interval + SLOWER).min(INTERVAL_MAX);
                }
                device.next = now.plus(device.interval);
                device.interval
            }
            _ => INTERVAL_MAX,
        }
    }

    /// The flow is over.
    pub(crate) fn end(&self, flow: &Flow) {
        self.table().remove(&key(flow));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uni() -> ProviderId {
        "uni".parse().unwrap()
    }

    fn code() -> CodeFlow {
        CodeFlow::new(uni(), "https://core.example/sign-in/callback/uni".into()).unwrap()
    }

    fn details(interval: u64, expires_in: u64) -> CoreDeviceAuthorizationResponse {
        serde_json::from_value(serde_json::json!({
            "device_code": "d", "user_code": "u", "verification_uri": "https://id.example/device",
            "expires_in": expires_in, "interval": interval,
        }))
        .unwrap()
    }

    /// If it failed, a code that somebody read in a browser's history could be used again.
    #[test]
    fn a_flow_is_finished_once_and_in_time() {
        let flows = Flows::default();
        let now = Millis(1_000_000);
        let (flow, expires) = flows.begin_code(code(), now).unwrap();
        assert!(flows.take_code(&Flow("x".into()), now).is_none());
        assert!(flows.take_code(&flow, now).is_some());
        assert!(flows.take_code(&flow, now).is_none(), "it was finished twice");
        let (flow, _) = flows.begin_code(code(), now).unwrap();
        assert!(flows.take_code(&flow, expires).is_none(), "it was finished too late");
    }

    /// If it failed, the two ways could be mixed, and one's checks left out.
    #[test]
    fn a_flow_is_finished_in_the_way_it_was_begun() {
        let flows = Flows::default();
        let now = Millis(1_000_000);
        let (device, _, interval) = flows.begin_device(uni(), details(5, 600), now).unwrap();
        assert!(flows.take_code(&device, now).is_none());
        assert!(matches!(flows.turn(&device, now.plus(interval)), Turn::Ask(_)), "it was ended");
        let (browser, _) = flows.begin_code(code(), now).unwrap();
        assert!(matches!(flows.turn(&browser, now), Turn::Gone));
        assert!(flows.take_code(&browser, now).is_some());
    }

    /// If it failed, one impatient person would get the whole site refused by its provider.
    #[test]
    fn a_provider_is_asked_no_more_often_than_it_wants() {
        let flows = Flows::default();
        let now = Millis(1_000_000);
        let (flow, expires, interval) = flows.begin_device(uni(), details(5, 600), now).unwrap();
        assert_eq!(interval, Duration::from_secs(5));
        assert!(matches!(flows.turn(&flow, now), Turn::Early(d) if d == interval));
        let now = now.plus(interval);
        assert!(matches!(flows.turn(&flow, now), Turn::Ask(_)));
        assert!(matches!(flows.turn(&flow, now), Turn::Early(_)), "two had the turn");
        assert_eq!(flows.wait(&flow, true, now), Duration::from_secs(10));
        assert!(matches!(flows.turn(&flow, now.plus(interval)), Turn::Early(_)));
        assert!(matches!(flows.turn(&flow, expires), Turn::Gone));
        let (_, expires, interval) = flows.begin_device(uni(), details(0, 9_999), now).unwrap();
        assert_eq!((interval, expires), (INTERVAL_MIN, now.plus(FLOW_LIFE)));
    }

    /// If it failed, strangers could fill the core's memory by beginning sign-ins.
    #[test]
    fn the_table_is_bounded_and_the_oldest_goes() {
        let flows = Flows::default();
        let (first, _) = flows.begin_code(code(), Millis(1)).unwrap();
        let mut last = None;
        for i in 0..FLOWS_MAX as u64 {
            last = Some(flows.begin_code(code(), Millis(2 + i / 1000)).unwrap().0);
        }
        assert_eq!(flows.table().len(), FLOWS_MAX);
        assert!(flows.take_code(&first, Millis(50)).is_none());
        assert!(flows.take_code(&last.unwrap(), Millis(50)).is_some());
    }
}
