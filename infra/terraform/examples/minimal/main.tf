# The smallest farm: everything made new, in one region. Where its state is kept: backend.tf.example.

terraform {
  required_version = ">= 1.6"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80, < 6.0"
    }
  }
}

variable "region" {
  description = "AWS region."
  type        = string
  default     = "eu-central-1"
}

variable "offline" {
  description = "Plan without asking AWS anything (for checks); needs account_id and zones."
  type        = bool
  default     = false
}

variable "account_id" {
  description = "AWS account number; empty: asked of the service."
  type        = string
  default     = ""
}

variable "zones" {
  description = "Two availability zones; empty: the region's first two."
  type        = list(string)
  default     = []
}

variable "tls_only" {
  description = "Deny access without TLS; off only for emulators."
  type        = bool
  default     = true
}

variable "autoscaling" {
  description = "Scale on the backlog; off only for emulators."
  type        = bool
  default     = true
}

variable "force_destroy" {
  description = "Let a destroy delete buckets that still hold objects."
  type        = bool
  default     = false
}

variable "image" {
  description = "Worker image by tag or digest; make push pushes one and names it in image.auto.tfvars."
  type        = string
}

variable "name" {
  description = "Prefix of every resource's name."
  type        = string
  default     = "hevcq"
}

variable "alarm_topic_arn" {
  description = "SNS topic that alarms are sent to; empty: alarms only show in the console."
  type        = string
  default     = ""
}

variable "budget" {
  description = "Dollars a month above which the addresses get an e-mail; null: no budget."
  type = object({
    monthly_usd = number
    emails      = list(string)
  })
  default = null
}

variable "kms_key_arn" {
  description = "Customer key for the buckets; empty: SSE-S3."
  type        = string
  default     = ""
}

variable "ledger_table" {
  description = "Table of job records, where one was restored from a backup: <name> and a dot and anything."
  type        = string
  default     = ""
}

variable "tag_finished_inputs" {
  description = "Have a daily task tag each upload hevcq=done whose jobs all ended well, so that it expires."
  type        = bool
  default     = false
}

variable "public_playback" {
  description = "CloudFront for public renditions; {} for its defaults, null for none (infra/terraform/README.md)."
  type        = any
  default     = null
}

variable "web" {
  description = "The page behind a load balancer: url, certificate_arn, session_key_secret_arn and more; null for none (infra/terraform/README.md)."
  type        = any
  default     = null
}

variable "profiles_dir" {
  description = "Folder of profile files; empty: the repository's workers/."
  type        = string
  default     = ""
}

variable "profiles" {
  description = "Profiles that get a queue and workers; empty: each that does not say `fleet: {deployed: false}`."
  type        = list(string)
  default     = []
}

variable "network" {
  description = "An existing network to use: vpc_id, subnet_ids and assign_public_ip; null: one is made."
  type        = any
  default     = null
}

variable "input_expiry_days" {
  description = "Days after which an upload tagged hevcq=done expires; null: the farm's default."
  type        = number
  default     = null
}

variable "work_expiry_days" {
  description = "Days after which leftovers under work/ expire; null: the farm's default."
  type        = number
  default     = null
}

variable "log_retention_days" {
  description = "Days that worker logs are kept; null: the farm's default."
  type        = number
  default     = null
}

variable "oldest_task_alarm_s" {
  description = "Age in seconds of the oldest waiting task that raises an alarm; null: the farm's default."
  type        = number
  default     = null
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
  default     = {}
}

provider "aws" {
  region                      = var.region
  skip_credentials_validation = var.offline
  skip_metadata_api_check     = var.offline
  skip_region_validation      = var.offline
  skip_requesting_account_id  = var.offline
}

module "farm" {
  source = "../.."

  name            = var.name
  alarm_topic_arn = var.alarm_topic_arn
  budget          = var.budget
  kms_key_arn     = var.kms_key_arn

  account_id    = var.account_id
  zones         = var.zones
  tls_only      = var.tls_only
  autoscaling   = var.autoscaling
  force_destroy = var.force_destroy
  image         = var.image
  profiles_dir  = var.profiles_dir

  public_playback = var.public_playback
  web             = var.web

  profiles = var.profiles

  tag_finished_inputs = var.tag_finished_inputs
  ledger_table        = var.ledger_table
  input_expiry_days   = var.input_expiry_days
  work_expiry_days    = var.work_expiry_days
  log_retention_days  = var.log_retention_days
  oldest_task_alarm_s = var.oldest_task_alarm_s

  network = var.network
  tags    = var.tags
}

output "hevcq_toml" {
  description = "The configuration of the CLI: terraform output -raw hevcq_toml > hevcq.toml"
  value       = module.farm.hevcq_toml
}

output "repository_url" {
  description = "Registry that make push pushes worker images to."
  value       = module.farm.repository_url
}

output "operator_policy_arn" {
  description = "Policy for people who ingest, watch and redrive; attach it to their group or role."
  value       = module.farm.operator_policy_arn
}

output "public_url" {
  description = "Address of public renditions; empty: none are public."
  value       = module.farm.public_url
}

output "web" {
  description = "The page's load balancer and user pool; null: there is no page."
  value       = module.farm.web
}

output "queues" {
  description = "Queue addresses by profile."
  value       = module.farm.queues
}
