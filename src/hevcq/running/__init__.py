"""What runs until it is done or stopped: an ingest, and the service with what it does beside."""
