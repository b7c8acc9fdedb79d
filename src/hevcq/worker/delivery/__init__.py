"""The life of one delivery: claim, lease, record, settle."""
