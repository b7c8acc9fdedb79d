variable "name" {
  description = "Prefix of the resources' names."
  type        = string
}

variable "bucket" {
  description = "The bucket of renditions."
  type = object({
    arn         = string
    domain_name = string
  })
}

variable "profiles" {
  description = "Profiles whose renditions may be public."
  type        = list(string)
}

variable "folder" {
  description = "Uploads below TODO/<profile>/<folder>/ (or TODO/all/<folder>/) become public."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9_-]*$", var.folder)) && var.folder != "UPLOAD"
    error_message = "folder must be one folder's name: letters, digits, hyphens and underscores. UPLOAD holds the page's videos, private ones too."
  }
}

variable "allowed_origins" {
  description = "Sites whose players may read, e.g. https://www.example.org; * for every site."
  type        = list(string)
}

variable "aliases" {
  description = "Names of your own for the distribution; they need certificate_arn."
  type        = list(string)
}

variable "certificate_arn" {
  description = "ACM certificate of us-east-1 for the aliases; empty: CloudFront's own name."
  type        = string
}

variable "price_class" {
  description = "Edge locations: PriceClass_100 (Europe, North America), PriceClass_200 or PriceClass_All."
  type        = string
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
}
