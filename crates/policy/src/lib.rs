//! From API objects to what each pod may do: snapshot, lower, span, resolve, and the oracle that judges them.
