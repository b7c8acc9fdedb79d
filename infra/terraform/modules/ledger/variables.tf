variable "name" {
  description = "Name of the table."
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

variable "deletion_protection" {
  description = "Refuse to destroy the table."
  type        = bool
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
}
