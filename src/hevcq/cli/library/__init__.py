"""Commands on a library of videos."""
