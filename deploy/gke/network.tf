# One network, nothing in it with a public address. Ranges: 510 nodes, 256 nodes' pods at 110 each (a /24 for each node),
# 4,096 Services, of which a cell takes about four.

resource "google_compute_network" "this" {
  name                    = var.cluster_name
  auto_create_subnetworks = false
  depends_on              = [google_project_service.all]
}

resource "google_compute_subnetwork" "nodes" {
  name                     = "${var.cluster_name}-nodes"
  network                  = google_compute_network.this.id
  region                   = var.region
  ip_cidr_range            = "10.10.0.0/23"
  private_ip_google_access = true

  secondary_ip_range {
    range_name    = "pods"
    ip_cidr_range = "10.64.0.0/16"
  }
  secondary_ip_range {
    range_name    = "services"
    ip_cidr_range = "10.96.0.0/20"
  }
  log_config {
    aggregation_interval = "INTERVAL_10_MIN"
    flow_sampling        = 0.1
    metadata             = "INCLUDE_ALL_METADATA"
  }
}

# Models and tools outside are reached through here.
resource "google_compute_router" "this" {
  name    = var.cluster_name
  network = google_compute_network.this.id
  region  = var.region
}

resource "google_compute_router_nat" "this" {
  name                                = var.cluster_name
  router                              = google_compute_router.this.name
  region                              = var.region
  nat_ip_allocate_option              = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat  = "ALL_SUBNETWORKS_ALL_IP_RANGES"
  enable_dynamic_port_allocation      = true
  min_ports_per_vm                    = 64
  max_ports_per_vm                    = 4096
  enable_endpoint_independent_mapping = false

  log_config {
    enable = true
    filter = "ERRORS_ONLY"
  }
}

# Where Google's own networks meet this one: the database has its address there.
resource "google_compute_global_address" "services" {
  name          = "${var.cluster_name}-services"
  network       = google_compute_network.this.id
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  prefix_length = 20
}

resource "google_service_networking_connection" "services" {
  network                 = google_compute_network.this.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.services.name]
}

# The API server calls webhooks in pods: Knative's at 8443, Chimera's own at 9443. GKE opens 443 and 10250 by itself.
resource "google_compute_firewall" "webhooks" {
  name          = "${var.cluster_name}-webhooks"
  network       = google_compute_network.this.id
  direction     = "INGRESS"
  source_ranges = ["172.16.0.0/28"]
  target_tags   = [var.cluster_name]

  allow {
    protocol = "tcp"
    ports    = ["8443", "9443"]
  }
}
