"""Changes of the settings by a person: libraries, profiles, hours and receivers, with their history."""
