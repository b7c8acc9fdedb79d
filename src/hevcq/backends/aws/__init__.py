"""AWS: boto3 lives only here."""
