//! The body of `/metrics/tags`: sent while it is written.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use hyper::body::{Body, Frame};

use crate::metrics::{TagPage, TagPiece, TagPosition};

type NextPiece = Pin<Box<dyn Future<Output = Option<TagPiece>> + Send>>;

/// Requests the next piece when the one before has been taken, so that a slow client holds one.
pub(super) struct TagBody {
    page: TagPage,
    /// `None` at the end.
    piece: Option<NextPiece>,
}

impl TagBody {
    pub(super) fn new(page: TagPage) -> Self {
        let piece = Some(request(&page, TagPosition::START));
        Self { page, piece }
    }
}

fn request(page: &TagPage, position: TagPosition) -> NextPiece {
    let page = page.clone();
    Box::pin(async move { page.piece(position).await })
}

impl Body for TagBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(piece) = &mut self.piece else { return Poll::Ready(None) };
        let piece = ready!(piece.as_mut().poll(cx));
        let Some(TagPiece { text, next }) = piece else {
            self.piece = None;
            return Poll::Ready(None);
        };
        self.piece = next.map(|next| request(&self.page, next));
        Poll::Ready(Some(Ok(Frame::data(text.into()))))
    }
}
