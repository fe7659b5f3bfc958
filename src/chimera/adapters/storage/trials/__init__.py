"""What tests of agents keep in the database, and how their calls are made."""
