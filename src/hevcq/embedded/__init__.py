"""The embedded way of running: SQLite and plain files in one data folder, no server, no network.

This module imports nothing, so that `hevcq status` can load `embedded.snapshot` alone.
"""
