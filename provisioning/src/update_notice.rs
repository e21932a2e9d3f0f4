//! What `edge-gateway-box` tells the gateway about an update of the program: a file in its directory
//! in memory, which only root can write.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use toml::{Table, Value};

use crate::bundle::PackageName;

/// Name of the file in the directory of `edge-gateway-box`.
pub const UPDATE_NOTICE: &str = "update";

/// How far the update is that a bundle asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UpdateNotice {
    /// Counter of the bundle.
    pub bundle: u64,
    /// How far it is.
    pub state: UpdateState,
}

/// How far an update is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum UpdateState {
    /// No package of dpkg is installed here: something else decides about the version.
    Unmanaged,
    /// It is not known yet whether there is something to do.
    Pending,
    /// The gateway has to fetch these packages.
    Fetching(Vec<PackageName>),
    /// A package is being installed.
    Installing,
    /// The version of the bundle is installed.
    Installed,
    /// It cannot be installed, or did not run. The version before is installed.
    Failed(String),
}

/// A text is not a notice.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("it is not a notice of edge-gateway-box")]
pub struct UpdateNoticeError;

impl UpdateState {
    const fn name(&self) -> &'static str {
        match self {
            Self::Unmanaged => "unmanaged",
            Self::Pending => "pending",
            Self::Fetching(_) => "fetching",
            Self::Installing => "installing",
            Self::Installed => "installed",
            Self::Failed(_) => "failed",
        }
    }

    /// Returns whether the gateway runs the version that it should, as far as this box decides.
    #[must_use]
    pub const fn is_reached(&self) -> bool {
        matches!(self, Self::Unmanaged | Self::Installed)
    }
}

impl fmt::Display for UpdateNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "bundle = {}\nstate = \"{}\"", self.bundle, self.state.name())?;
        match &self.state {
            UpdateState::Fetching(packages) => {
                let names: Vec<_> = packages.iter().map(|name| format!("\"{name}\"")).collect();
                writeln!(f, "packages = [{}]", names.join(", "))
            }
            UpdateState::Failed(reason) => {
                writeln!(f, "reason = {}", Value::from(reason.as_str()))
            }
            UpdateState::Unmanaged
            | UpdateState::Pending
            | UpdateState::Installing
            | UpdateState::Installed => Ok(()),
        }
    }
}

impl FromStr for UpdateNotice {
    type Err = UpdateNoticeError;

    fn from_str(text: &str) -> Result<Self, UpdateNoticeError> {
        let root: Table = text.parse().map_err(|_| UpdateNoticeError)?;
        let bundle = root.get("bundle").and_then(Value::as_integer);
        let bundle = bundle.and_then(|bundle| u64::try_from(bundle).ok());
        let state = match root.get("state").and_then(Value::as_str).ok_or(UpdateNoticeError)? {
            "unmanaged" => UpdateState::Unmanaged,
            "pending" => UpdateState::Pending,
            "fetching" => {
                let packages = root.get("packages").and_then(Value::as_array);
                let name = |name: &Value| name.as_str()?.parse().ok();
                let packages = packages.ok_or(UpdateNoticeError)?.iter().map(name).collect();
                UpdateState::Fetching(Option::ok_or(packages, UpdateNoticeError)?)
            }
            "installing" => UpdateState::Installing,
            "installed" => UpdateState::Installed,
            "failed" => {
                let reason = root.get("reason").and_then(Value::as_str);
                UpdateState::Failed(reason.ok_or(UpdateNoticeError)?.to_owned())
            }
            _ => return Err(UpdateNoticeError),
        };
        Ok(Self { bundle: bundle.ok_or(UpdateNoticeError)?, state })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state() -> impl Strategy<Value = UpdateState> {
        let name = |version: u8| PackageName::new(&format!("0.{version}.0"), "arm64").unwrap();
        prop_oneof![
            Just(UpdateState::Unmanaged),
            Just(UpdateState::Pending),
            prop::collection::vec(any::<u8>().prop_map(name), 0..3).prop_map(UpdateState::Fetching),
            Just(UpdateState::Installing),
            Just(UpdateState::Installed),
            any::<String>().prop_map(UpdateState::Failed),
        ]
    }

    proptest! {
        #[test]
        fn a_notice_is_read_as_it_is_written(bundle in 1..i64::MAX, state in state()) {
            let notice = UpdateNotice { bundle: bundle.unsigned_abs(), state };
            prop_assert_eq!(notice.to_string().parse(), Ok(notice));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            let _ = text.parse::<UpdateNotice>();
        }
    }
}
