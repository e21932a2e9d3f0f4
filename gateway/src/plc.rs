//! One task owns the connection to one PLC.
