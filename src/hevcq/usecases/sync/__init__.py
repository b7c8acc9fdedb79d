"""Copy or move files from another server to a folder of this machine."""
