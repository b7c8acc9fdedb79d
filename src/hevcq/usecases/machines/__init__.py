"""Machines that joined a farm without a shared folder: the farm's side, and the machine's own side."""
