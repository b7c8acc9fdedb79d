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

variable "attributes" {
  description = "Types (S or N) of pk and of the indexes' keys, by attribute."
  type        = map(string)
}

variable "indexes" {
  description = "Indexes by name: their keys, and what beside the keys they hold."
  type = map(object({
    hash  = string
    range = optional(string)
    with  = optional(list(string), [])
  }))
}

variable "deletion_protection" {
  description = "Refuse to destroy the table."
  type        = bool
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
}
