//! The RPC layer: headers, procedures, errors.

use std::fmt;

use bytes::Bytes;
use prost::Message;

/// Interface ids, as in the original.
pub mod interface {
    /// The directory service.
    pub const DIR: u32 = 10001;
    /// The metadata service.
    pub const MRC: u32 = 20001;
    /// The object storage service.
    pub const OSD: u32 = 30001;
}

/// Procedures with this id or a higher one are ours; lower ones are the original's.
pub const FIRST_OWN_PROC: u32 = 100;

/// Longest error text that is sent, in bytes.
pub const ERROR_TEXT_BYTES_MAX: usize = 4 << 10;

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

/// Why a call failed, as it travels. See [`RpcError`] for the form to work with.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ErrorResponse {
    /// An [`ErrorType`].
    #[prost(enumeration = "ErrorType", required, tag = "1")]
    pub error_type: i32,
    /// Linux errno, absent where none fits.
    #[prost(int32, optional, tag = "2")]
    pub posix_errno: Option<i32>,
    /// Text for the person.
    #[prost(string, optional, tag = "3")]
    pub error_message: Option<String>,
    /// Never sent by ours.
    #[prost(string, optional, tag = "4")]
    pub debug_info: Option<String>,
    /// Where to go instead, for [`ErrorType::Redirect`].
    #[prost(string, optional, tag = "5")]
    pub redirect_to_server_uuid: Option<String>,
}

/// Kinds of failure, as in the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ErrorType {
    /// This server does not speak that interface.
    InvalidInterfaceId = 1,
    /// This server does not know that procedure.
    InvalidProcId = 2,
    /// The message cannot be understood.
    GarbageArgs = 3,
    /// No valid identity: authenticate (again), then repeat the call.
    AuthFailed = 4,
    /// The server is in trouble; another may answer.
    InternalServerError = 5,
    /// An errno for the application.
    Errno = 6,
    /// Ask another server.
    Redirect = 7,
    /// The replica list is old.
    InvalidView = 8,
    /// The quota voucher is used up.
    InsufficientVoucher = 9,
    /// The connection failed (never on the wire).
    IoError = 100,
}

/// A Linux error number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Self = Self($value);)*

            /// Short text, as `strerror` has it.
            pub fn text(self) -> &'static str {
                match self.0 { $($value => $text,)* _ => "error" }
            }

            /// The symbol, `?` if it is none of ours.
            pub fn symbol(self) -> &'static str {
                match self.0 { $($value => stringify!($name),)* _ => "?" }
            }
        }
    };
}

errnos! {
    EPERM = 1, "operation not permitted";
    ENOENT = 2, "no such file or directory";
    EINTR = 4, "interrupted";
    EIO = 5, "input/output error";
    EBADF = 9, "bad file handle";
    EAGAIN = 11, "try again";
    EACCES = 13, "permission denied";
    EEXIST = 17, "file exists";
    EXDEV = 18, "not on the same volume";
    ENODEV = 19, "no such device";
    ENOTDIR = 20, "not a directory";
    EISDIR = 21, "is a directory";
    EINVAL = 22, "invalid argument";
    EFBIG = 27, "file too large";
    ENOSPC = 28, "no space left";
    EROFS = 30, "read-only";
    EMLINK = 31, "too many links";
    ENAMETOOLONG = 36, "name too long";
    ENOTEMPTY = 39, "directory not empty";
    ELOOP = 40, "too many levels";
    ENODATA = 61, "no data";
    ENOTSUP = 95, "not supported";
    ETIMEDOUT = 110, "timed out";
    ESTALE = 116, "the file is gone";
    EDQUOT = 122, "quota exceeded";
    EKEYEXPIRED = 127, "expired: get a new one";
    EKEYREVOKED = 128, "revoked: the membership changed";
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text(), self.symbol())
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.symbol(), self.0)
    }
}

/// A failed call, on either side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// Who must act.
    pub kind: ErrorType,
    /// For the application; `EIO` where the server sent none.
    pub errno: Errno,
    /// For the person: what happened, to what, what to do.
    pub message: String,
    /// Server to ask instead, with [`ErrorType::Redirect`].
    pub redirect: Option<String>,
}

impl RpcError {
    /// An errno for the application, with a text for the person.
    pub fn errno(errno: Errno, message: impl Into<String>) -> Self {
        Self::of(ErrorType::Errno, errno, message)
    }

    /// Any kind of failure.
    pub fn of(kind: ErrorType, errno: Errno, message: impl Into<String>) -> Self {
        Self { kind, errno, message: message.into(), redirect: None }
    }

    /// The caller must authenticate (again) and then repeat the call.
    pub fn authenticate(errno: Errno, message: impl Into<String>) -> Self {
        Self::of(ErrorType::AuthFailed, errno, message)
    }

    /// Whether authenticating anew and repeating the call can help.
    pub fn wants_authentication(&self) -> bool {
        self.kind == ErrorType::AuthFailed
    }

    /// The form that travels; a text longer than [`ERROR_TEXT_BYTES_MAX`] is cut.
    pub fn to_response(&self) -> ErrorResponse {
        let text = &self.message[..self.message.floor_char_boundary(ERROR_TEXT_BYTES_MAX)];
        ErrorResponse {
            error_type: self.kind.into(),
            posix_errno: Some(self.errno.0),
            error_message: Some(text.to_owned()),
            debug_info: None,
            redirect_to_server_uuid: self.redirect.clone(),
        }
    }

    /// From the form that travels; an unknown kind counts as a server in trouble.
    pub fn from_response(response: ErrorResponse) -> Self {
        let kind =
            ErrorType::try_from(response.error_type).unwrap_or(ErrorType::InternalServerError);
        let errno = response.posix_errno.filter(|&n| n > 0 && n < 4096).map_or(Errno::EIO, Errno);
        let message = response.error_message.unwrap_or_else(|| errno.to_string());
        Self { kind, errno, message, redirect: response.redirect_to_server_uuid }
    }
}

impl From<Errno> for RpcError {
    fn from(errno: Errno) -> Self {
        Self::errno(errno, errno.to_string())
    }
}
