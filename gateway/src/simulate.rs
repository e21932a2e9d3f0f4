//! A faithful M241 or M251 to try things on.
