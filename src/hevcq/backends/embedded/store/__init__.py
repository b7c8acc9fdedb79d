"""Sources and renditions in the data folder."""
