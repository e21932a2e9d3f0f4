//! Stages: start, fatal on early end, drain in order.
