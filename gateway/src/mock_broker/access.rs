//! Who may publish and read what, as in the `acl_file` of Mosquitto.

use crate::model::filter_matches;

/// The access list of a broker. An empty one allows everything.
#[derive(Clone, Debug, Default)]
pub struct AccessList(pub Vec<AccessRule>);

/// A line of the list: `topic ACCESS FILTER` below `user USER`.
#[derive(Clone, Debug)]
pub struct AccessRule {
    /// User name; `None` for clients without one.
    pub user: Option<String>,
    /// What it allows.
    pub access: Access,
    /// Topic filter.
    pub filter: String,
}

/// What a line allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// To receive messages.
    Read,
    /// To publish.
    Write,
    /// Both.
    ReadWrite,
    /// Neither, also if another line allows it.
    Deny,
}

impl AccessList {
    /// Returns whether this user may publish on a topic.
    pub(super) fn may_write(&self, user: Option<&str>, topic: &str) -> bool {
        self.allows(user, topic, Access::Write)
    }

    /// Returns whether this user may receive messages of a topic.
    pub(super) fn may_read(&self, user: Option<&str>, topic: &str) -> bool {
        self.allows(user, topic, Access::Read)
    }

    fn allows(&self, user: Option<&str>, topic: &str, wanted: Access) -> bool {
        let rules = self
            .0
            .iter()
            .filter(|rule| rule.user.as_deref() == user && filter_matches(&rule.filter, topic));
        let mut is_allowed = self.0.is_empty();
        for rule in rules {
            match rule.access {
                Access::Deny => return false,
                Access::ReadWrite => is_allowed = true,
                Access::Read | Access::Write => is_allowed |= rule.access == wanted,
            }
        }
        is_allowed
    }
}
