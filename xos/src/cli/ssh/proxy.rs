//! A stream to the sshd of a node, through the core of its site: what ssh's ProxyCommand runs.

use crate::cli::credential::Credential;
use crate::cli::member::Member;
use crate::cli::output::Outcome;
use crate::cli::session::Session;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use xos_api::cda::IssueLoginMandate;
use xos_api::node::{SshOpened, SshOpening};
use xos_base::accounts::NAME_BYTES_MAX;
use xos_base::{Error, NodeId, VoId};
use xos_net::IdentityCell;
use xos_net::dial::{Dialer, OPEN_TIMEOUT};
use xos_net::frames::{self, OPENING_MAX};
use xos_net::nodes::Io;
use xos_net::tls::ALPN_SSH;

/// `xos ssh-proxy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  xos ssh-proxy --vo demo.rennes --user alice.demo.rennes n1.rennes

ssh runs this by itself; see `xos ssh`.")]
pub struct ProxyArgs {
    /// The account that ssh signs in to: told when the node calls it otherwise.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The node, as n1.rennes.
    node: NodeId,
}

/// An open stream to a node's sshd.
pub struct Open {
    /// Bytes of the SSH protocol.
    pub stream: Box<dyn Io>,
    /// The person's account there.
    pub account: String,
}

/// Opens a stream to a node's sshd, or asks for the account's name there, as the member of
/// `credential`.
///
/// # Errors
/// What core and node say; [`xos_base::Kind::NotFound`] when this computer does not know the site.
async fn open(
    s: &Session,
    credential: &Credential,
    node: &NodeId,
    opening: &SshOpening,
) -> Result<Open, Error> {
    let trust = s.knowing(&node.site())?.clone();
    let dialer = Dialer::new(trust, IdentityCell::new(credential.identity()?));
    let mut stream = dialer.node(node, ALPN_SSH).await?;
    let greeted = greet(&mut stream, node, opening);
    let account = tokio::time::timeout(OPEN_TIMEOUT, greeted)
        .await
        .unwrap_or_else(|_| Err(Error::unavailable(format!("node {node} does not answer"))))?;
    Ok(Open { stream, account })
}

/// The same as `member`; once more with a new certificate when the membership has changed
/// meanwhile, which `member` goes on with.
///
/// # Errors
/// As [`open`]: of a member who is suspended, why.
pub async fn open_as(
    s: &Session,
    member: &mut Member,
    node: &NodeId,
    opening: &SshOpening,
) -> Result<Open, Error> {
    match open(s, &member.credential, node, opening).await {
        Err(e) => {
            let credential = s.changed(&member.credential, e).await?;
            *member = s.member_by(credential, &member.site)?;
            open(s, &member.credential, node, opening).await
        }
        opened => opened,
    }
}

async fn greet(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    node: &NodeId,
    opening: &SshOpening,
) -> Result<String, Error> {
    frames::write(stream, opening).await?;
    match frames::read::<SshOpened>(stream, OPENING_MAX).await? {
        Some(SshOpened::Ok { account }) if is_account_name(&account) => Ok(account),
        Some(SshOpened::Ok { .. }) => {
            Err(Error::unavailable(format!("node {node} tells no name of an account"))
                .hint("tell the site's administrator"))
        }
        Some(SshOpened::Error(e)) => Err(e),
        None => Err(Error::unavailable(format!("node {node} closed the connection"))
            .hint("try again; its administrator finds the reason in its log")),
    }
}

/// What may go on into a command line: the name comes from the node, which may be hostile.
fn is_account_name(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    name.len() <= NAME_BYTES_MAX
        && !name.starts_with(['-', '.'])
        && name.bytes().all(good)
        && !name.is_empty()
}

/// Connects standard input and output with the sshd of a node.
///
/// # Errors
/// As [`open`], and when the connection breaks.
pub async fn proxy(s: &Session, args: ProxyArgs) -> Outcome {
    s.knowing(&args.node.site())?;
    let vo = s.ssh_vo().await?;
    let had = Credential::read(&s.home, &vo)?.filter(|c| c.is_valid(s.now()));
    let had = had.map(|c| c.membership()).transpose()?;
    let mut member = s.member(&vo, &vo.site()).await?;
    let ask = IssueLoginMandate { vo: vo.clone(), node: args.node.clone() };
    let (mandate, without) = match member.call(s, ask).await {
        Ok(mandate) => (Some(mandate), None),
        Err(e) => (None, Some(without_volume(&e, &vo, &args.node))),
    };
    let opening = SshOpening { mandate, name_only: false };
    let open = open_as(s, &mut member, &args.node, &opening).await?;
    if let Some(e) = without {
        s.out.warn(&e)?;
    }
    let epoch = member.credential.membership()?.epoch;
    if had.is_none_or(|m| m.epoch < epoch) {
        s.out.note(
            "Your SSH certificate had ended; a new one is here. If ssh is refused now, try \
                    once more.",
        )?;
    }
    if args.user.as_ref() != Some(&open.account) {
        s.out.note(&other_account(&open.account, &args.node))?;
    }
    let spliced = splice(open.stream, tokio::io::stdin(), tokio::io::stdout()).await;
    spliced.map_err(|e| broken(&e, &args.node))?;
    Ok(0)
}

fn without_volume(e: &Error, vo: &VoId, node: &NodeId) -> Error {
    let text = format!("on {node} you will be without the volume of {vo}: {}", e.message);
    Error { message: text, ..e.clone() }
}

fn other_account(account: &str, node: &NodeId) -> String {
    format!(
        "Your account on {node} is {account}. If ssh is refused: xos ssh {node}, or ssh -l \
         {account} {node}"
    )
}

/// Carries bytes both ways until the node has said its last. When the input ends, the node is
/// told, and may still answer.
async fn splice(
    stream: Box<dyn Io>,
    mut input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let (mut from_node, mut to_node) = tokio::io::split(stream);
    let up = async {
        tokio::io::copy(&mut input, &mut to_node).await?;
        to_node.shutdown().await
    };
    let down = async {
        tokio::io::copy(&mut from_node, &mut output).await?;
        output.flush().await
    };
    tokio::pin!(up, down);
    tokio::select! {
        ended = &mut down => ended,
        // Whether or not the node takes more, it may have more to say.
        sent = &mut up => down.await.and(sent),
    }
}

/// What the person is told when a connection ends without its last word: not in the words of TLS,
/// which has none for why.
fn broken(e: &io::Error, node: &NodeId) -> Error {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let text = match e.kind() {
        UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe => {
            format!("{node} or its site ended the connection")
        }
        kind => format!("the connection to {node} broke: {kind}"),
    };
    Error::unavailable(text).hint(
        "perhaps your membership was suspended or ended, or the machine was restarted: see \
         `xos id`, and try again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::io::{AsyncReadExt, ReadBuf};
    use xos_base::Kind;

    fn node() -> NodeId {
        "n1.rennes".parse().unwrap()
    }

    /// If it failed, `ssh node command < file` would lose the file's end, or the command's output.
    #[tokio::test]
    async fn the_end_of_the_input_is_passed_on_and_the_answer_still_comes() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let (mut output, mut shown) = (tokio::io::duplex(64), Vec::new());
        let node = async move {
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).await.unwrap();
            theirs.write_all(&got).await.unwrap();
            theirs.write_all(b" and more").await.unwrap();
        };
        let input = vec![b'x'; 10_000];
        let reads = async {
            output.1.read_to_end(&mut shown).await.unwrap();
        };
        let spliced = splice(Box::new(ours), input.as_slice(), output.0);
        let (_, ended, ()) = tokio::join!(node, spliced, reads);
        ended.unwrap();
        assert_eq!(shown, [input.as_slice(), b" and more"].concat());
    }

    /// If it failed, ssh would hang after the node has hung up.
    #[tokio::test]
    async fn when_the_node_has_ended_nothing_is_waited_for() {
        let (ours, theirs) = tokio::io::duplex(64);
        let (input, _held_open) = tokio::io::duplex(64);
        drop(theirs);
        splice(Box::new(ours), input, tokio::io::sink()).await.unwrap();
    }

    /// If it failed, whose connection is cut, by a suspension too, would read what a library says
    /// of TLS, and not who cut it and where to look.
    #[tokio::test]
    async fn who_is_cut_off_is_told_plainly_by_whom() {
        /// A stream as rustls has it after its peer is gone.
        struct Cut;
        impl AsyncRead for Cut {
            fn poll_read(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
                _: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let says =
                    "peer closed connection without sending TLS close_notify: https://docs.rs";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, says)))
            }
        }
        impl AsyncWrite for Cut {
            fn poll_write(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                Poll::Ready(Ok(bytes.len()))
            }
            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        let cut = splice(Box::new(Cut), tokio::io::empty(), tokio::io::sink()).await;
        let slow = io::Error::new(io::ErrorKind::TimedOut, "rustls says so");
        for (e, says) in [
            (cut.unwrap_err(), "n1.rennes or its site ended the connection"),
            (slow, "the connection to n1.rennes broke: timed out"),
        ] {
            let told = broken(&e, &node()).to_string();
            assert!(told.contains(says) && told.contains("xos id"), "{told}");
            assert!(!told.contains("TLS") && !told.contains("rustls"), "{told}");
        }
    }

    /// If it failed, the person would be told "connection closed" instead of why and what to do.
    #[tokio::test]
    async fn what_the_node_says_is_told() {
        let refused = Error::denied("you may not sign in here").hint("ask the site");
        for (said, want) in [
            (Some(SshOpened::Ok { account: "alice.demo.rennes".into() }), None),
            (Some(SshOpened::Error(refused.clone())), Some(Kind::Denied)),
            (None, Some(Kind::Unavailable)),
        ] {
            let (mut ours, mut theirs) = tokio::io::duplex(4096);
            if let Some(said) = &said {
                frames::write(&mut theirs, said).await.unwrap();
            }
            theirs.shutdown().await.unwrap();
            let opening = SshOpening { mandate: None, name_only: false };
            let got = greet(&mut ours, &node(), &opening).await;
            assert_eq!(got.err().map(|e| e.kind), want, "{said:?}");
        }
        let note = other_account("u1879048194", &node());
        assert!(note.contains("xos ssh n1.rennes"), "{note}");
    }

    /// If it failed, a node in the wrong hands would run programs on the person's computer: the
    /// name of the account goes on into the command by which ssh reaches the node.
    #[tokio::test]
    async fn a_name_that_is_no_account_is_refused() {
        for good in ["alice.demo.rennes", "u1879048194", "_x", "Alice-2"] {
            assert!(is_account_name(good), "{good}");
        }
        for bad in ["", "-oProxyCommand=x", "a b", "a;id", "$(id)", "a'b", "a%h", "a\n", "é", ".."]
        {
            assert!(!is_account_name(bad), "{bad:?}");
            let (mut ours, mut theirs) = tokio::io::duplex(4096);
            let said = SshOpened::Ok { account: bad.into() };
            frames::write(&mut theirs, &said).await.unwrap();
            let opening = SshOpening { mandate: None, name_only: false };
            assert!(greet(&mut ours, &node(), &opening).await.is_err(), "{bad:?}");
        }
        assert!(!is_account_name(&"a".repeat(NAME_BYTES_MAX + 1)));
    }
}
