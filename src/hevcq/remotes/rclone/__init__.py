"""Whatever rclone reaches: S3, SFTP, Google Drive and others, by its program."""
