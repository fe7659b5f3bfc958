# Cloud SQL: a standby in another zone that takes over by itself, private address alone, TLS always, every change of the
# last seven days to go back to.

resource "google_sql_database_instance" "this" {
  name                = var.cluster_name
  region              = var.region
  database_version    = "POSTGRES_17"
  deletion_protection = var.deletion_protection
  depends_on          = [google_service_networking_connection.services]

  settings {
    tier                        = var.database_tier
    edition                     = "ENTERPRISE"
    availability_type           = "REGIONAL"
    disk_type                   = "PD_SSD"
    disk_size                   = 100
    disk_autoresize             = true
    deletion_protection_enabled = var.deletion_protection
    user_labels                 = local.labels

    ip_configuration {
      ipv4_enabled    = false
      private_network = google_compute_network.this.id
      ssl_mode        = "ENCRYPTED_ONLY"
    }
    backup_configuration {
      enabled                        = true
      start_time                     = "02:00"
      point_in_time_recovery_enabled = true
      transaction_log_retention_days = 7
      backup_retention_settings {
        retained_backups = 30
        retention_unit   = "COUNT"
      }
    }
    maintenance_window {
      day          = 2
      hour         = 3
      update_track = "stable"
    }
    insights_config {
      query_insights_enabled = true
    }
  }
}

resource "google_sql_database" "chimera" {
  name     = "chimera"
  instance = google_sql_database_instance.this.name
}

resource "google_sql_user" "chimera" {
  name                = "chimera"
  instance            = google_sql_database_instance.this.name
  password_wo         = var.database_password
  password_wo_version = var.database_password_version
}
