variable "name" {
  description = "Prefix of the roles' names."
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

variable "log_group" {
  description = "Name of the log group that tasks write to."
  type        = string
}

variable "repository_arn" {
  description = "Registry that the image is pulled from."
  type        = string
}

variable "secrets" {
  description = "ARNs of the secrets that tasks are started with."
  type        = list(string)
  default     = []
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
}
