//! How a byte stream reaches the broker.
