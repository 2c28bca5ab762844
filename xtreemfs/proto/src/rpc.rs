//! The RPC layer: headers, procedures, errors.

mod error;

use bytes::Bytes;
use prost::Message;

pub use error::{ERROR_TEXT_BYTES_MAX, Errno, ErrorResponse, ErrorType, RpcError};

/// Interface ids, as in the original.
pub mod interface {
    /// The directory service.
    pub const DIR: u32 = 10001;
    /// The metadata service.
    pub const MRC: u32 = 20001;
    /// The object storage service.
    pub const OSD: u32 = 30001;
}

/// One remote procedure: its place on the wire and the types that belong together.
pub trait Procedure {
    /// Interface id, see [`interface`].
    const INTERFACE: u32;
    /// Procedure id within the interface.
    const PROC: u32;
    /// Name for messages and logs.
    const NAME: &'static str;
    /// What the caller sends.
    type Request: Message + Default;
    /// What comes back when the call succeeds.
    type Reply: Message + Default;
}

/// Declares procedures: `procedures! { DIR; /// doc  Name = 110 (Request) -> Reply; }`.
macro_rules! procedures {
    ($interface:ident; $($(#[$doc:meta])* $name:ident = $id:literal ($request:ty) -> $reply:ty;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy)]
            pub enum $name {}

            impl $crate::rpc::Procedure for $name {
                const INTERFACE: u32 = $crate::rpc::interface::$interface;
                const PROC: u32 = $id;
                const NAME: &'static str = stringify!($name);
                type Request = $request;
                type Reply = $reply;
            }
        )*
    };
}
pub(crate) use procedures;

/// Presents a person's ticket on this connection; same id on every interface, served by the MRC.
/// (DIR goes by the peer's role, OSD by the capability alone.)
#[derive(Debug, Clone, Copy)]
pub enum Authenticate {}

impl Procedure for Authenticate {
    const INTERFACE: u32 = interface::MRC;
    const PROC: u32 = 100;
    const NAME: &'static str = "Authenticate";
    type Request = AuthenticateRequest;
    type Reply = AuthenticateReply;
}

/// Request of [`Authenticate`].
#[derive(Clone, PartialEq, Message)]
pub struct AuthenticateRequest {
    /// The ticket; its meaning belongs to whoever embeds the server.
    #[prost(bytes = "bytes", tag = "1")]
    pub ticket: Bytes,
    /// A slot of this connection whose identity the new one takes the place of (renewal).
    #[prost(uint32, optional, tag = "2")]
    pub replace: Option<u32>,
}

/// Reply of [`Authenticate`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct AuthenticateReply {
    /// Number by which later requests on this connection name the identity
    /// ([`RequestHeader::with_slot`]).
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// When the identity lapses, milliseconds since 1970 by the server's clock.
    #[prost(uint64, tag = "2")]
    pub expires_ms: u64,
    /// How long it is still valid, in milliseconds (for clients whose clock differs).
    #[prost(uint64, tag = "3")]
    pub valid_ms: u64,
}

/// Bytes of a client's instance in [`ConnectRequest`].
pub const INSTANCE_BYTES: usize = 16;

/// Request of `Connect`, the first one on each connection to an MRC or OSD. A connection may bring
/// requests long after its client gave it up, since what lies between keeps bytes: so a server
/// carries nothing out for a connection once it answered `Connect` for one with a higher number of
/// the same machine and instance (`EAGAIN`, before anything is done), and answers `Connect` when
/// what it had begun for older ones is done. A client waits for the answer before it sends more.
/// For the calls of clients that do not come back there is [`RequestHeader::until_ms`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ConnectRequest {
    /// [`INSTANCE_BYTES`] that no other client of this machine has. Counts together with the
    /// machine only: nobody stops another machine's client.
    #[prost(bytes = "bytes", tag = "1")]
    pub instance: Bytes,
    /// Higher than that of each earlier connection of this client to this server.
    #[prost(uint64, tag = "2")]
    pub number: u64,
}

/// A reply or request without content.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Empty {}

/// Header of every record. Required fields are sent even when zero (proto2).
#[derive(Clone, PartialEq, Message)]
pub struct RpcHeader {
    /// Pairs an answer with its call; unique among a connection's outstanding calls.
    #[prost(fixed32, required, tag = "1")]
    pub call_id: u32,
    /// A [`MessageType`].
    #[prost(enumeration = "MessageType", required, tag = "2")]
    pub message_type: i32,
    /// Set in requests.
    #[prost(message, optional, tag = "3")]
    pub request_header: Option<RequestHeader>,
    /// Set in error answers.
    #[prost(message, optional, tag = "4")]
    pub error_response: Option<ErrorResponse>,
}

impl RpcHeader {
    /// Header of a request.
    pub fn request(call_id: u32, request: RequestHeader) -> Self {
        Self {
            call_id,
            message_type: MessageType::Request.into(),
            request_header: Some(request),
            error_response: None,
        }
    }

    /// Header of an answer.
    pub fn answer(call_id: u32, error: Option<ErrorResponse>) -> Self {
        let kind = if error.is_some() { MessageType::Error } else { MessageType::Success };
        Self { call_id, message_type: kind.into(), request_header: None, error_response: error }
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum MessageType {
    /// A call.
    Request = 0,
    /// A call's result.
    Success = 1,
    /// A call's failure.
    Error = 2,
}

/// What is called, and for whom.
#[derive(Clone, PartialEq, Message)]
pub struct RequestHeader {
    /// See [`interface`].
    #[prost(fixed32, required, tag = "1")]
    pub interface_id: u32,
    /// See [`Procedure::PROC`].
    #[prost(fixed32, required, tag = "2")]
    pub proc_id: u32,
    /// Classic credentials: empty, never trusted by our servers.
    #[prost(message, required, tag = "3")]
    pub user_creds: UserCredentials,
    /// Carries the slot number.
    #[prost(message, required, tag = "4")]
    pub auth_data: Auth,
    /// Ours: when the caller gives up, in milliseconds since it had the answer to `Connect`.
    /// Counted from before that answer by the server, which so carries nothing out later, whatever
    /// kept the request on its way.
    #[prost(uint64, optional, tag = "100")]
    pub until_ms: Option<u64>,
}

impl RequestHeader {
    /// Header for procedure `P`, for the identity in `slot` if there is one.
    pub fn with_slot<P: Procedure>(slot: Option<u32>) -> Self {
        let data = slot.map(|slot| Bytes::copy_from_slice(&slot.to_le_bytes()));
        Self {
            interface_id: P::INTERFACE,
            proc_id: P::PROC,
            user_creds: UserCredentials::default(),
            auth_data: Auth { auth_type: 0, auth_data: data, auth_passwd: None },
            until_ms: None,
        }
    }

    /// The slot number, if the caller sent one.
    pub fn slot(&self) -> Option<u32> {
        let bytes = self.auth_data.auth_data.as_deref()?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }
}

/// Classic user name and groups. Our servers decide by the slot's identity and ignore these.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UserCredentials {
    /// User name.
    #[prost(string, required, tag = "1")]
    pub username: String,
    /// Group names, the first is the primary one.
    #[prost(string, repeated, tag = "2")]
    pub groups: Vec<String>,
}

/// Classic authentication data.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Auth {
    /// 0 none, 1 password.
    #[prost(int32, required, tag = "1")]
    pub auth_type: i32,
    /// Our slot number, four bytes, little endian.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub auth_data: Option<Bytes>,
    /// Classic password; not used by ours.
    #[prost(message, optional, tag = "3")]
    pub auth_passwd: Option<AuthPassword>,
}

/// Classic password.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AuthPassword {
    /// The password, in clear.
    #[prost(string, required, tag = "1")]
    pub password: String,
}
