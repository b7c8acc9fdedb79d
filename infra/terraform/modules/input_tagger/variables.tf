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

variable "image" {
  description = "The workers' image."
  type        = string
}

variable "architecture" {
  description = "Processor of the image: x86_64 or arm64."
  type        = string
}

variable "cluster" {
  description = "ARN of the ECS cluster."
  type        = string
}

variable "network" {
  description = "Where the task runs."
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

variable "profiles" {
  description = "Profiles that are deployed."
  type        = list(string)
}

variable "repository_arn" {
  description = "Registry that the image is pulled from."
  type        = string
}

variable "log_retention_days" {
  description = "Days that logs are kept."
  type        = number
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
}
