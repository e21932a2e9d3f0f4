//! Keeps a device's addresses and routes, whatever others do to the host's network.

use tracing::{debug, info, warn};

use crate::netlink::{Link, LinkError, Mended, News};

/// What is kept, and what is heard of.
#[derive(Debug)]
pub(super) struct Upkeep {
    link: Link,
    news: News,
    /// What could not be done, as it was said.
    said: Option<String>,
}

impl Upkeep {
    /// Has to be called in a tokio runtime, before anything can be missing.
    pub(super) fn new(link: Link) -> Self {
        let news = News::listen().unwrap_or_else(|error| {
            warn!(%error, "a route that somebody takes from the tunnel's device stays away");
            News::none()
        });
        Self { link, news, said: None }
    }

    /// Never ends. Cancel safe.
    pub(super) async fn keep(&mut self) {
        loop {
            self.news.changed().await;
            self.mend();
        }
    }

    /// A device that is down stays so: somebody wants it. Its routes come when it goes up.
    fn mend(&mut self) {
        let said = match self.link.mend() {
            Ok(Mended::Nothing) => None,
            Ok(Mended::Something) => {
                info!("what the tunnel's device had lost of its addresses and routes is set again");
                None
            }
            Err(LinkError::Down | LinkError::Gone) => {
                debug!("the tunnel's device is down");
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(said) = said.as_ref().filter(|said| self.said.as_ref() != Some(said)) {
            warn!("{said}");
        }
        self.said = said;
    }
}
