"""Make the farm's buckets, topic, queues and table on the emulator of compose.yaml.

It takes the settings of a worker (HEVCQ_*), and refuses to work on AWS itself, where Terraform
does this. On an emulator that has them already it changes nothing.
"""

from __future__ import annotations

import sys

from hevcq.backends.aws.clients import make_clients
from hevcq.backends.aws.emulator_setup import create_resources
from hevcq.errors import HevcqError
from hevcq.settings.loader import load
from hevcq.settings.profile_files import installed_folder, load_profiles


def main() -> int:
    """Make what is missing; return the exit code."""
    settings = load().settings
    clients = make_clients(settings.aws)
    # The table is made last, so where it is, all the rest is as well.
    if clients.emulated and settings.aws.table in clients.dynamodb.list_tables()["TableNames"]:
        sys.stdout.write("The farm's resources are there already.\n")
        return 0
    profiles = load_profiles(settings.profiles_dir or installed_folder())
    create_resources(clients, settings.aws, profiles)
    sys.stdout.write(f"Made the farm's resources for {', '.join(sorted(profiles))}.\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except HevcqError as error:
        sys.exit(f"emulator_setup: {error}")
