"""Commands of a household: its libraries, and the service that looks after them."""
