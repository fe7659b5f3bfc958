"""What scanning needs of the outside: advisories, and images of registries."""
