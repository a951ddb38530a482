//! Network namespaces, pods and traffic for tests, the demo and the benchmarks.
