# Regional: three control planes of Kubernetes, nodes in three zones. What Kubernetes keeps of Secrets is encrypted with a
# key of this project's; pods have no identity of their node's; network policies are enforced (Dataplane V2).

resource "google_kms_key_ring" "this" {
  name       = var.cluster_name
  location   = var.region
  depends_on = [google_project_service.all]
}

resource "google_kms_crypto_key" "secrets" {
  name            = "kubernetes-secrets"
  key_ring        = google_kms_key_ring.this.id
  rotation_period = "7776000s"

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_kms_crypto_key_iam_member" "kubernetes" {
  crypto_key_id = google_kms_crypto_key.secrets.id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:service-${data.google_project.this.number}@container-engine-robot.iam.gserviceaccount.com"
}

resource "google_container_cluster" "this" {
  name                     = var.cluster_name
  location                 = var.region
  node_locations           = var.zones
  network                  = google_compute_network.this.id
  subnetwork               = google_compute_subnetwork.nodes.id
  networking_mode          = "VPC_NATIVE"
  datapath_provider        = "ADVANCED_DATAPATH"
  min_master_version       = "1.33"
  initial_node_count       = 1
  remove_default_node_pool = true
  enable_shielded_nodes    = true
  enable_legacy_abac       = false
  deletion_protection      = var.deletion_protection
  resource_labels          = local.labels

  release_channel {
    channel = "REGULAR"
  }
  ip_allocation_policy {
    cluster_secondary_range_name  = "pods"
    services_secondary_range_name = "services"
  }
  private_cluster_config {
    enable_private_nodes    = true
    enable_private_endpoint = length(var.operators) == 0
    master_ipv4_cidr_block  = "172.16.0.0/28"
  }
  master_authorized_networks_config {
    gcp_public_cidrs_access_enabled = false
    dynamic "cidr_blocks" {
      for_each = var.operators
      content {
        display_name = cidr_blocks.key
        cidr_block   = cidr_blocks.value
      }
    }
  }
  master_auth {
    client_certificate_config {
      issue_client_certificate = false
    }
  }
  workload_identity_config {
    workload_pool = "${var.project}.svc.id.goog"
  }
  database_encryption {
    state    = "ENCRYPTED"
    key_name = google_kms_crypto_key.secrets.id
  }
  binary_authorization {
    evaluation_mode = var.binary_authorization ? "PROJECT_SINGLETON_POLICY_ENFORCE" : "DISABLED"
  }
  security_posture_config {
    mode               = "BASIC"
    vulnerability_mode = "VULNERABILITY_BASIC"
  }
  cost_management_config {
    enabled = true
  }
  logging_config {
    enable_components = ["SYSTEM_COMPONENTS", "WORKLOADS", "APISERVER"]
  }
  monitoring_config {
    enable_components = ["SYSTEM_COMPONENTS", "APISERVER", "SCHEDULER", "CONTROLLER_MANAGER"]
    managed_prometheus {
      enabled = true
    }
  }
  addons_config {
    gke_backup_agent_config {
      enabled = true
    }
    dns_cache_config {
      enabled = true
    }
  }
  node_pool_defaults {
    node_config_defaults {
      insecure_kubelet_readonly_port_enabled = "FALSE"
    }
  }
  # The pool that is made to be removed; what nodes are stands in pools.tf.
  node_config {
    service_account = google_service_account.nodes.email
    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }
  }
  # Four hours on two nights of a week, none in the last days of a year.
  maintenance_policy {
    recurring_window {
      start_time = "2026-01-06T03:00:00Z"
      end_time   = "2026-01-06T07:00:00Z"
      recurrence = "FREQ=WEEKLY;BYDAY=TU,WE"
    }
    maintenance_exclusion {
      exclusion_name = "end-of-year"
      start_time     = "2026-12-18T00:00:00Z"
      end_time       = "2027-01-04T00:00:00Z"
      exclusion_options {
        scope = "NO_MINOR_UPGRADES"
      }
    }
  }

  depends_on = [google_kms_crypto_key_iam_member.kubernetes]

  lifecycle {
    ignore_changes = [node_config, initial_node_count]
  }
}
