//! What the pump keeps for one PLC.

use std::sync::Arc;

use provisioning::config::{Config, Qos};
use provisioning::plan::plan;

use crate::payload::Encoder;
use crate::queue::TopicId;
use crate::sampling::Sampler;

/// One PLC on its way from readings to messages.
#[derive(Debug)]
pub(super) struct Source {
    /// `plc.name`.
    pub(super) name: String,
    pub(super) sampler: Sampler,
    pub(super) encoder: Encoder,
    pub(super) topic: TopicId,
    pub(super) qos: Qos,
    pub(super) retain: bool,
}

/// Makes the sources in the order of the configuration. PLCs may share a topic, and then share its
/// `seq`.
pub(super) fn all(config: &Config, topics: &mut Vec<Arc<str>>) -> Vec<Source> {
    let plcs = config.plcs.iter().zip(0u16..);
    plcs.map(|(plc, index)| Source {
        name: plc.name.clone(),
        sampler: Sampler::new(index, plc, &plan(plc)),
        encoder: Encoder::new(&config.gateway, plc),
        topic: intern(topics, &plc.publish.topic),
        qos: plc.publish.qos,
        retain: plc.publish.retain,
    })
    .collect()
}

fn intern(topics: &mut Vec<Arc<str>>, topic: &str) -> TopicId {
    let mut known = (0..).zip(topics.iter());
    if let Some((number, _)) = known.find(|(_, known)| ***known == *topic) {
        return TopicId::new(number);
    }
    topics.push(topic.into());
    TopicId::new(u16::try_from(topics.len() - 1).unwrap_or(u16::MAX))
}
