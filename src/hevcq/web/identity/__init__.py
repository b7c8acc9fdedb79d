"""Who is asking: sign-in, sessions, users and programs' tokens."""
