variable "name" {
  description = "Prefix of the resources' names."
  type        = string
}

variable "region" {
  description = "AWS region."
  type        = string
}

variable "account_id" {
  description = "AWS account number."
  type        = string
}

variable "url" {
  description = "Address that people open, e.g. https://videos.example.org; point that name at the output address."
  type        = string

  validation {
    condition     = can(regex("^https://[a-z0-9.-]+$", var.url))
    error_message = "url must be https:// and a host name, without a path: https://videos.example.org"
  }
}

variable "certificate_arn" {
  description = "ACM certificate of this region for the host of url."
  type        = string
}

variable "session_key_secret_arn" {
  description = "Secrets Manager secret with the key that signs sessions, shared by all tasks."
  type        = string
}

variable "cognito" {
  description = "Make a Cognito user pool for signing in; otherwise oidc names a provider."
  type        = bool
}

variable "oidc" {
  description = "The OpenID provider that signs people in, where cognito is off."
  type = object({
    issuer         = string
    client_id      = string
    operator_group = string
    logout_url     = string
  })
}

variable "oidc_secret_arn" {
  description = "Secrets Manager secret with the client's secret; empty for a public client."
  type        = string
}

variable "operators" {
  description = "People (verified e-mail or sub) who are operators beside the provider's group."
  type        = list(string)
}

variable "allowed_cidrs" {
  description = "Networks that may open the page."
  type        = list(string)
}

variable "max_per_day" {
  description = "Dollars for a day's encodes, once spent nothing begins until midnight (prices.max_per_day); null: no cap."
  type        = number
  default     = null

  validation {
    condition     = try(var.max_per_day > 0, true)
    error_message = "max_per_day must be more than 0; leave it out for no cap."
  }
}

variable "trusted_proxies" {
  description = "Networks of the load balancer, whose word on a visitor's address counts for the limit on sign-ins."
  type        = list(string)
}

variable "tasks" {
  description = "Tasks that serve the page."
  type        = number
}

variable "architecture" {
  description = "Processor of the image: x86_64 or arm64."
  type        = string
}

variable "image" {
  description = "The workers' image, which holds the page too."
  type        = string
}

variable "cluster" {
  description = "ARN of the ECS cluster."
  type        = string
}

variable "network" {
  description = "Where the load balancer and the tasks run: two zones."
  type = object({
    vpc_id           = string
    subnet_ids       = list(string)
    assign_public_ip = bool
  })
}

variable "storage" {
  description = "Buckets of uploads and renditions."
  type = object({
    input_bucket  = string
    output_bucket = string
    input_arn     = string
    output_arn    = string
  })
}

variable "tag_inputs" {
  description = "Whether finished uploads are tagged, and lose their tag when the page queues them again."
  type        = bool
}

variable "ledger_table" {
  description = "DynamoDB table of the ledger."
  type        = string
}

variable "topic_arn" {
  description = "Topic that announces uploads."
  type        = string
}

variable "profiles" {
  description = "Profiles that are deployed."
  type        = list(string)
}

variable "repository_arn" {
  description = "Registry that the image is pulled from."
  type        = string
}

variable "operator_policy_arn" {
  description = "Policy of people who operate the farm; the page's board does the same."
  type        = string
}

variable "deletion_protection" {
  description = "Refuse to delete the table of videos, the load balancer and the user pool."
  type        = bool
}

variable "log_retention_days" {
  description = "Days that logs are kept."
  type        = number
}

variable "alarm_topic_arn" {
  description = "SNS topic that alarms are sent to; empty: none."
  type        = string
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
}
