"""The sides of agents in the database: green ones, what is kept and withdrawn, and what was seen of calls."""
