# What the cluster holds of Chimera: objects of its two namespaces, with Secrets, each night, kept for two weeks. The
# database has backups of its own (database.tf), and agents are in it: a cluster is made anew from code and the database.

resource "google_gke_backup_backup_plan" "nightly" {
  name     = "${var.cluster_name}-nightly"
  location = var.region
  cluster  = google_container_cluster.this.id
  labels   = local.labels

  backup_schedule {
    cron_schedule = "30 1 * * *"
  }
  retention_policy {
    backup_retain_days      = 14
    backup_delete_lock_days = 7
  }
  backup_config {
    include_secrets     = true
    include_volume_data = false
    selected_namespaces {
      namespaces = ["chimera", "chimera-cells"]
    }
  }
}
