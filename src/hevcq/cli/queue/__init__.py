"""Commands on jobs, and on what works on them: queues, workers, the service, and who hears of it."""
