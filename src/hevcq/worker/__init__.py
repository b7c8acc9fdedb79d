"""The worker: pool, slots, delivery handling and stop."""
