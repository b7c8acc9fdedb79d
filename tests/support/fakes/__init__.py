"""The ports in memory: real classes that pass the contract suites, with hooks for tests."""
