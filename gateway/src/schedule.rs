//! When to read what. Pure: `now` and randomness are arguments.
