"""What is said and shown: reports, results, output, and what must not be shown."""
