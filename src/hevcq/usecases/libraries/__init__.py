"""Libraries of the settings: their rules, order, budget and state."""
