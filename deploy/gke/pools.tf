# Two pools. Agents run people's definitions, and code of theirs: those nodes hold nothing of the platform. The platform's
# nodes refuse every pod that doesn't say that it may be there.

locals {
  shared = {
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    tags   = [var.cluster_name]
  }
}

resource "google_service_account" "nodes" {
  account_id   = "${substr(var.cluster_name, 0, 24)}-nodes"
  display_name = "Nodes of ${var.cluster_name}"
}

# What a node does: write logs and metrics, and pull images.
resource "google_project_iam_member" "nodes" {
  project = var.project
  role    = "roles/container.defaultNodeServiceAccount"
  member  = google_service_account.nodes.member
}

resource "google_container_node_pool" "agents" {
  name              = "agents"
  cluster           = google_container_cluster.this.id
  node_locations    = var.zones
  max_pods_per_node = 110

  # Totals over all zones. The autoscaler adds a node for pods that fit on none, and takes one away that has been less than
  # half requested for ten minutes and whose pods fit elsewhere.
  initial_node_count = ceil(var.agent_nodes.least / length(var.zones))
  autoscaling {
    total_min_node_count = var.agent_nodes.least
    total_max_node_count = var.agent_nodes.most
    location_policy      = "BALANCED"
  }
  management {
    auto_repair  = true
    auto_upgrade = true
  }
  upgrade_settings {
    strategy        = "SURGE"
    max_surge       = 5
    max_unavailable = 0
  }
  node_config {
    machine_type    = "n2-standard-8"
    disk_size_gb    = 200
    disk_type       = "pd-ssd"
    image_type      = "COS_CONTAINERD"
    service_account = google_service_account.nodes.email
    oauth_scopes    = local.shared.scopes
    tags            = local.shared.tags
    labels          = { "chimera.ecosystem/pool" = "agents" }

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }
    workload_metadata_config {
      mode = "GKE_METADATA"
    }
    # A host image is streamed: a pod on a new node starts before all of it is there.
    gcfs_config {
      enabled = true
    }
  }

  lifecycle {
    ignore_changes = [initial_node_count]
  }
}

resource "google_container_node_pool" "control" {
  name              = "control"
  cluster           = google_container_cluster.this.id
  node_locations    = var.zones
  node_count        = 1 # in each of three zones
  max_pods_per_node = 110

  management {
    auto_repair  = true
    auto_upgrade = true
  }
  upgrade_settings {
    strategy        = "SURGE"
    max_surge       = 1
    max_unavailable = 0
  }
  node_config {
    machine_type    = "n2-standard-4"
    disk_size_gb    = 100
    disk_type       = "pd-ssd"
    image_type      = "COS_CONTAINERD"
    service_account = google_service_account.nodes.email
    oauth_scopes    = local.shared.scopes
    tags            = local.shared.tags
    labels          = { "chimera.ecosystem/pool" = "control" }

    taint {
      key    = "chimera.ecosystem/pool"
      value  = "control"
      effect = "NO_SCHEDULE"
    }
    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }
    workload_metadata_config {
      mode = "GKE_METADATA"
    }
  }
}
