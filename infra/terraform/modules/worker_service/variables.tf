variable "name" {
  description = "Name of the service and prefix of its resources."
  type        = string
}

variable "profile" {
  description = "Profile that the workers serve."
  type        = string
}

variable "deployed" {
  description = "Every profile of the farm that has a service."
  type        = list(string)
}

variable "uploads" {
  description = "Whether people upload through the page: their videos are read below UPLOAD/, not TODO/."
  type        = bool
}

variable "makes_sets" {
  description = "Whether the profile's renditions are sets of files (container: hls), whose workers remove replaced ones."
  type        = bool
  default     = false
}

variable "region" {
  description = "AWS region."
  type        = string
}

variable "account_id" {
  description = "AWS account number."
  type        = string
}

variable "image" {
  description = "Worker image."
  type        = string
}

variable "cluster" {
  description = "ECS cluster."
  type = object({
    name = string
    arn  = string
  })
}

variable "network" {
  description = "Where the tasks run."
  type = object({
    vpc_id           = string
    subnet_ids       = list(string)
    assign_public_ip = bool
  })
}

variable "fleet" {
  description = "The fleet section of the profile file, with the model's defaults."
  type = object({
    cpu              = number
    memory_mib       = number
    scratch_gib      = number
    architecture     = string
    min_tasks        = number
    max_tasks        = number
    tasks_per_worker = number
    spot_share       = number
  })

  validation {
    condition     = var.fleet.min_tasks <= var.fleet.max_tasks && var.fleet.spot_share >= 0 && var.fleet.spot_share <= 100
    error_message = "fleet.min_tasks must not exceed fleet.max_tasks, and fleet.spot_share is a percentage."
  }
}

variable "queue" {
  description = "The profile's queue."
  type = object({
    name    = string
    arn     = string
    dlq_arn = string
  })
}

variable "storage" {
  description = "Buckets of inputs and renditions."
  type = object({
    input_bucket  = string
    output_bucket = string
    input_arn     = string
    output_arn    = string
    kms_key_arn   = string
  })
}

variable "table" {
  description = "DynamoDB table of the ledger."
  type = object({
    name = string
    arn  = string
  })
}

variable "topic_arn" {
  description = "Topic that announces uploads."
  type        = string
}

variable "repository_arn" {
  description = "Registry that the image is pulled from."
  type        = string
}

variable "log_retention_days" {
  description = "Days that logs are kept."
  type        = number
}

variable "autoscaling" {
  description = "Whether to scale on the backlog."
  type        = bool
}

variable "alarm_topic_arn" {
  description = "SNS topic that alarms are sent to; empty: none."
  type        = string
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
}
