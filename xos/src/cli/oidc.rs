//! `xos login --provider`, `xos account link`: proving an account at an identity provider of the
//! site, in a browser on this computer or on any other device.

mod loopback;

use super::job::INTERRUPTED;
use super::output::{Failure, Out, clean, span};
use super::session::Session;
use super::values::PersonArg;
use indicatif::{ProgressBar, ProgressDrawTarget};
use loopback::Loopback;
use std::future::Future;
use std::process::Stdio;
use std::time::Duration;
use xos_api::cda::{
    Answer, BeginDevice, BeginSignIn, BegunDevice, FinishSignIn, Flow, Identity, LinkIdentity,
    PollDevice, SignInOptions, SignedIn,
};
use xos_base::{Error, ProviderId, SiteId};
use xos_cda::qr_picture;
use xos_net::Client;

/// How often the line that tells what is waited for is drawn anew.
const TICK: Duration = Duration::from_millis(500);
/// Longest pause before a core is asked again, whatever it says.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How to sign in by a provider.
#[derive(Debug, clap::Args)]
pub struct ProviderArgs {
    /// Sign in by this identity provider of your site [default: by name and password].
    #[arg(long, value_name = "ID", conflicts_with = "password_file")]
    provider: Option<ProviderId>,
    /// Show an address and a code for a browser on another device [default without a desktop].
    #[arg(long, requires = "provider")]
    device: bool,
    /// Open a browser on this computer [default on a desktop].
    #[arg(long, requires = "provider", conflicts_with = "device")]
    browser: bool,
}

/// In which browser a person proves that an account is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One on this computer.
    Browser,
    /// Any, on another device.
    Device,
}

impl Way {
    /// What the command line says, else a browser on this computer where there is a desktop.
    pub fn of(browser: bool, device: bool) -> Way {
        if browser || (!device && has_desktop()) { Way::Browser } else { Way::Device }
    }
}

/// What became of it.
pub enum Came {
    /// No provider is named.
    Otherwise,
    /// The person is signed in.
    In(Box<SignedIn>),
    /// The person gave up; the exit status.
    Left(u8),
}

/// Signs in by the provider that is named, if one is.
///
/// # Errors
/// What the site says; [`xos_base::Kind::Unauthenticated`] when it is somebody else than `user`
/// who signed in.
pub async fn sign_in(
    s: &Session,
    args: &ProviderArgs,
    user: Option<&PersonArg>,
) -> Result<Came, Failure> {
    let Some(provider) = &args.provider else { return Ok(Came::Otherwise) };
    let site = site_of(s, user)?;
    let client = s.anonymous(&site)?;
    check(&client, &site, provider).await?;
    let way = Way::of(args.browser, args.device);
    let Some(signed_in) = unless_stopped(sign_in_by(s, &client, provider, way)).await? else {
        s.out.note("Nobody is signed in.")?;
        return Ok(Came::Left(INTERRUPTED));
    };
    check_person(&signed_in, user, &site)?;
    Ok(Came::In(Box::new(signed_in)))
}

/// Links an account at a provider to the person whose `client` it is; `None` when they gave up.
///
/// # Errors
/// What the site says.
pub async fn link(
    s: &Session,
    client: &Client,
    site: &SiteId,
    provider: &ProviderId,
    way: Way,
) -> Result<Option<Identity>, Failure> {
    check(client, site, provider).await?;
    unless_stopped(link_by(s, client, provider, way)).await
}

/// What comes of `proving`; `None` when the person stops it.
async fn unless_stopped<T>(
    proving: impl Future<Output = Result<T, Failure>>,
) -> Result<Option<T>, Failure> {
    tokio::select! {
        proved = proving => proved.map(Some),
        stop = tokio::signal::ctrl_c() => {
            stop.map_err(|e| Error::internal(format!("cannot listen for Ctrl-C: {e}")))?;
            Ok(None)
        }
    }
}

async fn sign_in_by(
    s: &Session,
    client: &Client,
    provider: &ProviderId,
    way: Way,
) -> Result<SignedIn, Failure> {
    if way == Way::Browser {
        let (flow, answer) = in_browser(s, client, provider).await?;
        let ask = FinishSignIn { flow, answer, audience: None, memberships: true };
        return Ok(client.call(ask).await?);
    }
    let poll = async |flow: Flow| {
        let ask = PollDevice { flow, audience: None, memberships: true };
        let polled = client.call(ask).await?;
        Ok::<_, Error>((polled.signed_in, polled.interval_s))
    };
    by_device(s, client, provider, poll).await
}

async fn link_by(
    s: &Session,
    client: &Client,
    provider: &ProviderId,
    way: Way,
) -> Result<Identity, Failure> {
    if way == Way::Browser {
        let (flow, answer) = in_browser(s, client, provider).await?;
        let linked = client.call(LinkIdentity { flow, answer: Some(answer) }).await?;
        let unsaid = || {
            Error::unavailable("the core does not say which account was linked")
                .hint("`xos account list` shows what is")
        };
        return Ok(linked.identity.ok_or_else(unsaid)?);
    }
    let poll = async |flow: Flow| {
        let polled = client.call(LinkIdentity { flow, answer: None }).await?;
        Ok::<_, Error>((polled.identity, polled.interval_s))
    };
    by_device(s, client, provider, poll).await
}

/// Where somebody signs in, who need not say their name.
pub(super) fn site_of(s: &Session, user: Option<&PersonArg>) -> Result<SiteId, Error> {
    match user.and_then(PersonArg::site).or(s.named_site()) {
        Some(site) => Ok(site.clone()),
        None => s.site(),
    }
}

/// Refuses somebody else than the person who was named.
pub(super) fn check_person(
    signed_in: &SignedIn,
    user: Option<&PersonArg>,
    site: &SiteId,
) -> Result<(), Error> {
    match user.map(|user| user.at(site)).transpose()? {
        Some(wanted) if signed_in.person != wanted => Err(Error::unauthenticated(format!(
            "your account is {}'s, not {wanted}'s",
            signed_in.person
        ))
        .hint("sign in there by another account, or leave the name out")),
        _ => Ok(()),
    }
}

/// A misspelt id is told with those that there are.
async fn check(client: &Client, site: &SiteId, provider: &ProviderId) -> Result<(), Error> {
    let rules = client.call(SignInOptions {}).await?;
    if rules.providers.iter().any(|p| p.id == *provider) {
        return Ok(());
    }
    let known: Vec<String> =
        rules.providers.iter().map(|p| format!("{} ({})", p.id, clean(&p.title))).collect();
    let hint = match known.as_slice() {
        [] => format!("{site} has none; sign in by name and password: xos login NAME@{site}"),
        known => format!("{site} has: {}", known.join(", ")),
    };
    Err(Error::not_found(format!("{site} has no identity provider {provider}")).hint(hint))
}

/// Whether a browser can be opened here.
fn has_desktop() -> bool {
    ["WAYLAND_DISPLAY", "DISPLAY"]
        .iter()
        .any(|v| std::env::var_os(v).is_some_and(|v| !v.is_empty()))
}

/// Tells what the person has to do, aside: to programs too, which show it to somebody.
fn tell(out: Out, value: &serde_json::Value, text: &str) -> Result<(), Failure> {
    match out.json {
        true => out.error_bytes(format!("{value}\n").as_bytes()),
        false => out.note(text),
    }
}

/// Has a browser on this computer prove an account: the flow, and what came back.
async fn in_browser(
    s: &Session,
    client: &Client,
    provider: &ProviderId,
) -> Result<(Flow, Answer), Failure> {
    let loopback = Loopback::open(provider.clone()).await?;
    let redirect = loopback.redirect();
    let begun = client.call(BeginSignIn { provider: provider.clone(), redirect }).await?;
    let address = clean(&begun.authorize_url);
    let state = state_of(&begun.authorize_url).ok_or_else(|| {
        Error::unavailable("the core's address for signing in is not understood")
            .hint("the versions of this program and the core may differ too much")
    })?;
    let text = format!("Sign in in your browser. If none opens, open there:\n{address}");
    tell(s.out, &serde_json::json!({ "browser": { "address": address } }), &text)?;
    open_browser(&begun.authorize_url);
    let waiting = Waiting::new(s.out, "Waiting for your browser");
    let answer = tokio::select! {
        answer = loopback.answer(&state) => answer?,
        () = tokio::time::sleep(begun.expires.since(s.now())) => return Err(too_late().into()),
    };
    drop(waiting);
    Ok((begun.flow, answer))
}

fn too_late() -> Error {
    Error::unauthenticated("nobody signed in in time").hint("begin again")
}

/// The `state` in an address to sign in at, which must be a web address.
fn state_of(address: &str) -> Option<String> {
    let (start, query) = address.split_once('?')?;
    let web = start.starts_with("https://") || start.starts_with("http://127.0.0.1:");
    let query = query.split('#').next()?;
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).ok()?;
    pairs.into_iter().find(|(k, v)| web && k == "state" && !v.is_empty()).map(|(_, v)| v)
}

/// Opens the desktop's browser, if it has one; the person has the address besides.
fn open_browser(address: &str) {
    let opened = tokio::process::Command::new("xdg-open")
        .arg(address)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Err(e) = opened {
        tracing::debug!(error = %e, "no browser was opened");
    }
}

/// Has another device prove an account; `poll` asks the core what came of it, and how long to wait
/// before the next question, in seconds.
async fn by_device<T>(
    s: &Session,
    client: &Client,
    provider: &ProviderId,
    poll: impl AsyncFn(Flow) -> Result<(Option<T>, u64), Error>,
) -> Result<T, Failure> {
    let begun = client.call(BeginDevice { provider: provider.clone() }).await?;
    let device = serde_json::json!({ "device": {
        "address": begun.verification_uri,
        "address_with_code": begun.verification_uri_complete,
        "code": begun.user_code,
        "expires": begun.expires,
    }});
    let left = span(begun.expires.since(s.now()).as_secs());
    tell(s.out, &device, &device_text(&begun, &left))?;
    let waiting = Waiting::new(s.out, "Waiting for you to sign in there");
    let mut pause = begun.interval_s;
    loop {
        // What the provider asks for, so that many people waiting are no burden to it.
        tokio::time::sleep(Duration::from_secs(pause.max(1)).min(PAUSE_MAX)).await;
        if begun.expires <= s.now() {
            return Err(too_late().into());
        }
        let (proved, next) = poll(begun.flow.clone()).await?;
        if let Some(proved) = proved {
            drop(waiting);
            return Ok(proved);
        }
        pause = next;
    }
}

/// What to do on the other device: address and code first, for who cannot take a picture.
fn device_text(begun: &BegunDevice, left: &str) -> String {
    let address = clean(&begun.verification_uri);
    let code = clean(&begun.user_code);
    let mut text =
        format!("Open on any device, within {left}:\n  {address}\nand type there:\n  {code}");
    if let Some(picture) = begun.verification_uri_complete.as_deref().and_then(qr_picture) {
        text.push_str("\nor take a picture of this:\n");
        text.push_str(&picture);
    }
    text
}

/// A line that moves while something is waited for; gone when dropped.
struct Waiting(Option<ProgressBar>);

impl Waiting {
    fn new(out: Out, text: &'static str) -> Waiting {
        Waiting(out.progress().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_message(text);
            bar.enable_steady_tick(TICK);
            bar
        }))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xos_api::cda::Flow;
    use xos_base::Millis;

    fn begun(complete: Option<&str>) -> BegunDevice {
        BegunDevice {
            flow: Flow("f".into()),
            verification_uri: "https://id.example/device".into(),
            verification_uri_complete: complete.map(str::to_owned),
            user_code: "ABCD-\x1b[2JEFGH".into(),
            interval_s: 5,
            expires: Millis(1),
        }
    }

    /// If it failed, who has no camera could not sign in, or a provider's text could take over the
    /// terminal.
    #[test]
    fn address_and_code_stand_before_the_picture() {
        let text = device_text(&begun(Some("https://id.example/device?user_code=ABCD")), "10 min");
        let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} in {text}"));
        assert!(place("https://id.example/device\n") < place("ABCD-?[2JEFGH"));
        assert!(place("ABCD-?[2JEFGH") < place("\u{2588}\u{2588}"));
        assert!(!text.contains('\x1b'), "{text:?}");
        let rows: Vec<&str> = text.lines().filter(|l| l.contains('\u{2588}')).collect();
        assert!(rows.len() > 10 && rows.iter().all(|r| r.chars().count() <= 79), "{text}");
        assert!(!device_text(&begun(None), "10 min").contains('\u{2588}'));
    }

    /// If it failed, what a core sends could start another program than a browser.
    #[test]
    fn only_web_addresses_with_a_state_are_opened() {
        let state = state_of("https://id.example/auth?client_id=x&state=s%2B1&scope=a+b");
        assert_eq!(state.as_deref(), Some("s+1"));
        assert!(state_of("http://127.0.0.1:4000/auth?state=s").is_some());
        for bad in [
            "file:///etc/passwd?state=s",
            "--help?state=s",
            "http://id.example/auth?state=s",
            "https://id.example/auth",
            "https://id.example/auth?state=",
        ] {
            assert_eq!(state_of(bad), None, "{bad}");
        }
    }
}
