//! Answers to requests whose body stays unread.

use crate::pace::Sent;
use actix_web::HttpResponse;

/// `answer` to a request whose body is `unread`: as long as that is there, the connection is closed
/// after the answer instead of being read to its end.
pub(crate) fn leaving(answer: HttpResponse, unread: impl Unpin + 'static) -> HttpResponse {
    answer.map_body(|_, body| Sent::new(body, unread)).map_into_boxed_body()
}
