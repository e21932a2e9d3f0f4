//! Records to message bytes, at sending time. Pure.
