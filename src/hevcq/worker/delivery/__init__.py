"""The life cycle of one delivery: claim, lease, record, settle."""
