"""What a revision is made of and how it came about: its bill of materials and its provenance."""
