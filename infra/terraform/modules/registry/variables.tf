variable "name" {
  description = "Prefix of the repository's name."
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

variable "force_delete" {
  description = "Let a destroy delete a repository that still holds images."
  type        = bool
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
}
