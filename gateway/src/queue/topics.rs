//! Topics and PLCs by name: what is stored outlives the numbers of a configuration.

use std::sync::Arc;

use super::TopicId;

/// Topics by number. Those of the configuration come first; those of older configurations follow.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Topics {
    names: Vec<Arc<str>>,
}

/// The names behind the numbers in entries.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Names {
    /// Topics by [`TopicId`].
    pub topics: Vec<Arc<str>>,
    /// PLCs by `Record::plc`.
    pub plcs: Vec<PlcNames>,
}

/// The names of one PLC.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PlcNames {
    /// Unique name of the PLC.
    pub name: String,
    /// Tags by `Sample::tag`.
    pub tags: Vec<String>,
}

impl Topics {
    pub(super) const fn new(names: Vec<Arc<str>>) -> Self {
        Self { names }
    }

    /// The name of a topic.
    #[must_use]
    pub fn name(&self, topic: TopicId) -> Option<&Arc<str>> {
        self.names.get(topic.index())
    }

    /// The number of a topic, a new one when it is not known. Beyond 65,535 topics, which no
    /// configuration has, all others share the last.
    pub(super) fn intern(&mut self, name: &Arc<str>) -> TopicId {
        let known = self.names.iter().position(|known| known == name);
        let place = known.unwrap_or(self.names.len());
        let Ok(number) = u16::try_from(place) else { return TopicId::new(u16::MAX) };
        if known.is_none() {
            self.names.push(Arc::clone(name));
        }
        TopicId::new(number)
    }

    pub(super) fn all(&self) -> &[Arc<str>] {
        &self.names
    }
}
