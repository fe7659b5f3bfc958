"""Change requests and delivery policies in the database."""
