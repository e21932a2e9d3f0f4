//! How the gateway is doing, in words and fields. Pure.
