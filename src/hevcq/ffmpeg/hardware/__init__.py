"""Find the encoders of graphics hardware by trial, and keep the book of what failed."""
