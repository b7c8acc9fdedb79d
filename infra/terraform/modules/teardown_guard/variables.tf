variable "name" {
  description = "Name of the farm."
  type        = string
}

variable "force_destroy" {
  description = "Whether a destroy may delete what the farm holds."
  type        = bool
}
