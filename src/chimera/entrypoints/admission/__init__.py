"""What a cluster's API server asks before it keeps one of Chimera's resources."""
