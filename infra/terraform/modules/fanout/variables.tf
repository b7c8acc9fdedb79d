variable "name" {
  description = "Prefix of the topic's name."
  type        = string
}

variable "region" {
  description = "AWS region."
  type        = string
}

variable "account_id" {
  description = "AWS account number that may publish for the bucket."
  type        = string
}

variable "bucket" {
  description = "Bucket whose uploads are announced."
  type        = string
}

variable "bucket_arn" {
  description = "ARN of that bucket."
  type        = string
}

variable "tls_only" {
  description = "Deny publishing without TLS."
  type        = bool
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
}
