//! Answers to requests whose body stays unread.

use actix_web::HttpResponse;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use bytes::Bytes;
use std::pin::Pin;
use std::task::{Context, Poll};

/// `answer` to a request whose body is `unread`: as long as that is there, the connection is closed
/// after the answer instead of being read to its end.
pub(crate) fn leaving(answer: HttpResponse, unread: impl Unpin + 'static) -> HttpResponse {
    answer.map_body(|_, body| Leaving { body, _unread: unread }).map_into_boxed_body()
}

struct Leaving<P> {
    body: BoxBody,
    _unread: P,
}

impl<P: Unpin> MessageBody for Leaving<P> {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}
