//! The API types that Weir reads and writes.
