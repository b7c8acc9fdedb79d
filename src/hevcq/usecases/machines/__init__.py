"""Machines that joined a farm without a share: the farm's side, and the joined machine's."""
