//! The project's tasks: set up, build, test, demonstrate, measure.

fn main() {}
