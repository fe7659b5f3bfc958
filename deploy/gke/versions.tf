# For OpenTofu 1.11 or Terraform 1.11: ephemeral variables keep the database's password out of the state.
terraform {
  required_version = ">= 1.11.0"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.50"
    }
  }
  # Where the state lives is yours to say: `tofu init -backend-config=...`, or a file backend.tf beside this one.
}

provider "google" {
  project = var.project
  region  = var.region
}
