//! The simulated world around a gateway.
