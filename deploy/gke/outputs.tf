output "cluster" {
  description = "For `gcloud container clusters get-credentials`."
  value       = google_container_cluster.this.name
}

output "database" {
  description = "The value `database` of the chart."
  value       = "postgresql://${google_sql_user.chimera.name}@${google_sql_database_instance.this.private_ip_address}:5432/${google_sql_database.chimera.name}?sslmode=require"
}

output "images" {
  description = "Where `make images` puts images: REPOSITORY."
  value       = "${google_artifact_registry_repository.images.location}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}
