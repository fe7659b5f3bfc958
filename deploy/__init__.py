"""What puts the platform into a cluster: images, a Helm chart, a kustomize base, Google's cloud."""
