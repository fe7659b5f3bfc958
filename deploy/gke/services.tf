locals {
  services = toset([
    "artifactregistry.googleapis.com",
    "billingbudgets.googleapis.com",
    "binaryauthorization.googleapis.com",
    "cloudkms.googleapis.com",
    "compute.googleapis.com",
    "container.googleapis.com",
    "gkebackup.googleapis.com",
    "servicenetworking.googleapis.com",
    "sqladmin.googleapis.com",
  ])
  labels = { system = "chimera" }
}

data "google_project" "this" {
  project_id = var.project
}

resource "google_project_service" "all" {
  for_each           = local.services
  service            = each.value
  disable_on_destroy = false
}
