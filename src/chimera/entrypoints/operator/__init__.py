"""The operator: resources of a cluster carried one way into the catalogue, and their statuses back."""
