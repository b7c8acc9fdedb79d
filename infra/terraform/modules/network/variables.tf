variable "name" {
  description = "Prefix of the network's resources."
  type        = string
}

variable "region" {
  description = "AWS region, for the endpoints' service names."
  type        = string
}

variable "zones" {
  description = "Two availability zones."
  type        = list(string)

  validation {
    condition     = length(var.zones) == 2
    error_message = "zones must name two availability zones."
  }
}

variable "cidr" {
  description = "Address range of the VPC."
  type        = string
  default     = "10.42.0.0/16"

  validation {
    condition     = can(cidrsubnet(var.cidr, 4, 1))
    error_message = "cidr must be a range that 16 subnets fit into."
  }
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
}
