variable "name" {
  description = "Prefix of the buckets' names."
  type        = string
}

variable "account_id" {
  description = "AWS account number, part of the buckets' names."
  type        = string
}

variable "kms_key_arn" {
  description = "Customer key; empty: SSE-S3."
  type        = string
}

variable "tls_only" {
  description = "Deny access without TLS."
  type        = bool
}

variable "input_expiry_days" {
  description = "Days after which an input tagged hevcq=done expires; null: never."
  type        = number
}

variable "work_expiry_days" {
  description = "Days after which leftovers under work/ expire."
  type        = number
}

variable "force_destroy" {
  description = "Let a destroy delete buckets that still hold objects."
  type        = bool
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
}

variable "public_reading" {
  description = "Policy documents (JSON, at most one) that let CloudFront read public renditions."
  type        = list(string)
  default     = []
}

variable "upload_origins" {
  description = "Sites whose pages upload straight into the input bucket; empty: none."
  type        = list(string)
  default     = []
}
