"""WebDAV (RFC 4918), as Nextcloud and others serve it."""
