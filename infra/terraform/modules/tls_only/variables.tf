variable "actions" {
  description = "Actions to deny."
  type        = list(string)
}

variable "resources" {
  description = "ARNs that they are denied on."
  type        = list(string)
}
