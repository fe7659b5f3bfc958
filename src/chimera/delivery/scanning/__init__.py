"""Security scanning of the build stage: pure rules over bytes, definitions, manifests and images."""
