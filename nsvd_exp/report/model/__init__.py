"""What a report says: stored measurements, arranged as the paper's tables, beside its numbers."""
