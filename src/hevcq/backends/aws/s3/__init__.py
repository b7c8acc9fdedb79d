"""Sources and renditions in S3 buckets."""
