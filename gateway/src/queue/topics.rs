//! Names of topics, PLCs and tags: entries on disk outlive the numbers of a configuration.

use std::sync::Arc;

use super::TopicId;

/// Topics by number: those of the configuration first, then those of older configurations.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TopicTable {
    names: Vec<Arc<str>>,
}

/// The names behind the numbers in entries.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ConfigNames {
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
    pub tags: TagNames,
}

/// Names of tags, in one allocation: a configuration may have tens of thousands.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TagNames {
    text: String,
    ends: Vec<u32>,
}

impl TagNames {
    /// Returns how many names there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are no names.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the names in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let place = |(start, end): (u32, &u32)| start as usize..*end as usize;
        starts.zip(&self.ends).filter_map(move |bounds| self.text.get(place(bounds)))
    }
}

/// Names beyond 4 GiB are left out.
impl<N: AsRef<str>> FromIterator<N> for TagNames {
    fn from_iter<I: IntoIterator<Item = N>>(names: I) -> Self {
        let mut all = Self::default();
        for name in names {
            all.text.push_str(name.as_ref());
            let Ok(end) = u32::try_from(all.text.len()) else { break };
            all.ends.push(end);
        }
        all.text.shrink_to_fit();
        all.ends.shrink_to_fit();
        all
    }
}

impl TopicTable {
    pub(super) const fn new(names: Vec<Arc<str>>) -> Self {
        Self { names }
    }

    /// Returns the name of a topic.
    #[must_use]
    pub fn name(&self, topic: TopicId) -> Option<&Arc<str>> {
        self.names.get(topic.index())
    }

    /// Returns the number of a topic, a new one if it is unknown. All topics beyond 65,535, which
    /// no configuration has, share the last number.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_returned_as_they_were_added() {
        let names = ["a", "", "äöü", "b c"];

        let kept: TagNames = names.into_iter().collect();

        assert_eq!(kept.iter().collect::<Vec<_>>(), names);
        assert_eq!((kept.len(), TagNames::default().iter().count()), (4, 0));
    }
}
