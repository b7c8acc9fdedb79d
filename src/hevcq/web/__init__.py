"""The web page and its API: a face over the use cases, for `hevcq serve`."""
