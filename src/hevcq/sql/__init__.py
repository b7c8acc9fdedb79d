"""The SQLite file of a data folder, and what this machine keeps in it with every backend."""
