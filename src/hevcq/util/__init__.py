"""The ground floor: clock, log, host and file helpers; imports nothing of hevcq."""
