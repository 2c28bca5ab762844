//! How a call fails: on the wire, and in the form to work with.

use std::fmt;

use prost::Message;

/// Longest error text that is sent, in bytes.
pub const ERROR_TEXT_BYTES_MAX: usize = 4 << 10;

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
