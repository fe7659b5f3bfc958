"""JAEGIS Quality Assurance: how good a definition is, by named criteria."""
