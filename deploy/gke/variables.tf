variable "project" {
  description = "The project; it is there already, with billing."
  type        = string
}

variable "region" {
  description = "The region; it must have three zones."
  type        = string
  default     = "us-central1"
}

variable "zones" {
  description = "The three zones that control plane and database are spread over."
  type        = list(string)
  default     = ["us-central1-a", "us-central1-b", "us-central1-c"]
  validation {
    condition     = length(distinct(var.zones)) == 3
    error_message = "Three different zones: the control pool has one node in each."
  }
}

variable "cluster_name" {
  description = "The cluster's name."
  type        = string
  default     = "chimera-agent-ecosystem"
}

variable "operators" {
  description = "Networks from which the API server may be reached, by name."
  type        = map(string)
  default     = {}
}

variable "agent_nodes" {
  description = "Bounds of the agent pool, over all zones together (docs/sizing.md)."
  type        = object({ least = number, most = number })
  default     = { least = 10, most = 200 }
  validation {
    condition     = var.agent_nodes.least >= 3 && var.agent_nodes.least <= var.agent_nodes.most && var.agent_nodes.most <= 240
    error_message = "From one node in each zone to 240, which is what the network's ranges hold."
  }
}

variable "database_tier" {
  description = "Machine of the database."
  type        = string
  default     = "db-custom-4-16384"
}

variable "database_password" {
  description = "Password of the database's user; never kept in the state. Give it as TF_VAR_database_password."
  type        = string
  ephemeral   = true
  sensitive   = true
}

variable "database_password_version" {
  description = "Raise it to have the password written again."
  type        = number
  default     = 1
}

variable "binary_authorization" {
  description = "Run images from this project's registry alone, and what the cluster itself needs."
  type        = bool
  default     = false
}

variable "budget" {
  description = "Billing account and dollars a month at which its owners are told; null: no budget."
  type        = object({ billing_account = string, usd = number })
  default     = null
}

variable "deletion_protection" {
  description = "Refuse to destroy the cluster and the database."
  type        = bool
  default     = true
}
