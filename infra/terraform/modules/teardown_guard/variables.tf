variable "name" {
  description = "Name of the farm."
  type        = string
}

variable "profile" {
  description = "Profile whose queues are guarded; empty: the farm."
  type        = string
  default     = ""
}

variable "force_destroy" {
  description = "Whether a destroy may delete what the farm holds."
  type        = bool
}

variable "holds" {
  description = "Names of what may still hold something when the farm is taken down, for make destroy."
  type        = any
  default     = {}
}
