//! `[bundle]`: where bundles are fetched, and how long a new one is on trial.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// `[bundle]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BundleSettings {
    /// Where bundles are fetched; absent if they are brought to the box.
    pub url: Option<BundleUrl>,
    /// Running time that a new bundle has to be confirmed, 1 min to 24 h.
    pub confirm: Duration,
}

/// `bundle.url`: a directory of a web server that speaks HTTP without TLS.
///
/// ```
/// use provisioning::config::BundleUrl;
///
/// let url = BundleUrl { address: "10.77.0.1:80".parse()?, path: "/bundles".to_owned() };
/// assert_eq!(url.to_string(), "http://10.77.0.1/bundles");
/// assert_eq!(url.path_of("edge-bundle-plant-7.tar"), "/bundles/edge-bundle-plant-7.tar");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BundleUrl {
    /// Address of the web server.
    pub address: SocketAddr,
    /// Path of the directory: empty, or `/` and steps of `A-Z a-z 0-9 - . _ ~`, without `/` at the
    /// end.
    pub path: String,
}

const HTTP_PORT: u16 = 80;

impl Default for BundleSettings {
    fn default() -> Self {
        Self { url: None, confirm: Duration::from_secs(600) }
    }
}

impl BundleUrl {
    /// Returns the path of a file in the directory, as the request line of HTTP has it.
    #[must_use]
    pub fn path_of(&self, file: &str) -> String {
        format!("{}/{file}", self.path)
    }
}

impl fmt::Display for BundleUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, path } = self;
        match address {
            SocketAddr::V4(v4) if v4.port() == HTTP_PORT => write!(f, "http://{}{path}", v4.ip()),
            SocketAddr::V6(v6) if v6.port() == HTTP_PORT => write!(f, "http://[{}]{path}", v6.ip()),
            SocketAddr::V4(_) | SocketAddr::V6(_) => write!(f, "http://{address}{path}"),
        }
    }
}
