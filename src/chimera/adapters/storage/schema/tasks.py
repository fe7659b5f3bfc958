"""Long work, queued durably."""
