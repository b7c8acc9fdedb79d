variable "name" {
  description = "Name of the table."
  type        = string
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
}
