"""What upkeep removes from a database, kind by kind."""
