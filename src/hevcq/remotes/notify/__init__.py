"""Receivers of messages: apprise, webhooks, media servers."""
