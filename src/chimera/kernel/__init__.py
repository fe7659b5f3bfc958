"""What every context stands on: clocks, ids and settings. Standard library only."""
