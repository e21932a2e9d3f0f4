//! Registers to IEC values and back. Pure.
