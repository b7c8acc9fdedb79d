variable "name" {
  description = "Prefix of every resource's name."
  type        = string
  default     = "hevcq"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,19}$", var.name))
    error_message = "name must be 2 to 20 lower-case letters, digits and hyphens, and start with a letter."
  }
}

variable "profiles_dir" {
  description = "Folder of the profile files that the workers were built with; empty: this repository's workers/."
  type        = string
  default     = ""
}

variable "profiles" {
  description = "Names of the profiles that get a queue and workers; empty: each whose file does not say `fleet: {deployed: false}`."
  type        = list(string)
  default     = []
}

variable "account_id" {
  description = "AWS account number; empty: asked of the service."
  type        = string
  default     = ""

  validation {
    condition     = var.account_id == "" || can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id must be empty or 12 digits."
  }
}

variable "zones" {
  description = "Two availability zones for the network; empty: the first two of the region."
  type        = list(string)
  default     = []

  validation {
    condition     = contains([0, 2], length(var.zones))
    error_message = "zones must name two availability zones, or none."
  }
}

variable "network" {
  description = "An existing network to use: its VPC, subnets and whether tasks need public addresses; null: one is made."
  type = object({
    vpc_id           = string
    subnet_ids       = list(string)
    assign_public_ip = bool
  })
  default = null
}

variable "image" {
  description = "Worker image by tag or digest, as make push prints it; latest is refused, since nothing would roll out."
  type        = string

  validation {
    condition     = can(regex("^[^@]+(:[A-Za-z0-9_][A-Za-z0-9_.-]*|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image must name a tag other than latest, or a digest: 111122223333.dkr.ecr.eu-central-1.amazonaws.com/hevcq-worker:4f1c2d3. make push pushes one and prints it."
  }
}

variable "kms_key_arn" {
  description = "Customer key for the buckets; empty: SSE-S3."
  type        = string
  default     = ""
}

variable "tls_only" {
  description = "Deny bucket, queue and topic access without TLS. Off only for emulators that ignore policy conditions."
  type        = bool
  default     = true
}

variable "autoscaling" {
  description = "Scale services on their backlog. Off only for emulators without application autoscaling."
  type        = bool
  default     = true
}

variable "input_expiry_days" {
  description = "Days after which an input tagged hevcq=done expires, with tag_finished_inputs."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.input_expiry_days >= 1
    error_message = "input_expiry_days must be at least 1."
  }
}

variable "ledger_table" {
  description = "Table of job records, <name> and a dot and anything: one that was restored from a backup; empty: <name>."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = var.ledger_table == "" || can(regex("^[a-z][a-z0-9-]{1,19}[.][a-z0-9-]+$", var.ledger_table))
    error_message = "ledger_table must be the farm's name, a dot, and letters, digits and hyphens: hevcq.2"
  }
}

variable "tag_finished_inputs" {
  description = "Have a daily task tag each upload hevcq=done whose jobs all ended well, so that it expires."
  type        = bool
  default     = false
}

variable "work_expiry_days" {
  description = "Days after which leftovers under work/ expire; more than twice the 10 days for which SQS keeps a task, for a split video's tasks may wait so long."
  type        = number
  default     = 21
  nullable    = false

  validation {
    condition     = var.work_expiry_days >= 1
    error_message = "work_expiry_days must be at least 1."
  }
}

variable "log_retention_days" {
  description = "Days that worker logs are kept."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365], var.log_retention_days)
    error_message = "log_retention_days must be one of CloudWatch's periods up to 365."
  }
}

variable "alarm_topic_arn" {
  description = "SNS topic that alarms and events are sent to; its policy must let events.amazonaws.com publish. Empty: alarms only show in the console."
  type        = string
  default     = ""
}

variable "budget" {
  description = "Dollars a month of the whole account above which the addresses get an e-mail (at 80 % and 100 %, and when a forecast exceeds it); null: no budget."
  type = object({
    monthly_usd = number
    emails      = list(string)
  })
  default = null

  validation {
    condition     = var.budget == null ? true : var.budget.monthly_usd > 0 && length(var.budget.emails) > 0
    error_message = "budget needs monthly_usd above 0 and at least one address in emails."
  }
}

variable "oldest_task_alarm_s" {
  description = "Age in seconds of the oldest waiting task that raises an alarm."
  type        = number
  default     = 14400
  nullable    = false

  validation {
    condition     = var.oldest_task_alarm_s >= 60
    error_message = "oldest_task_alarm_s must be at least 60."
  }
}

variable "force_destroy" {
  description = "Let terraform destroy delete buckets and images that still hold something."
  type        = bool
  default     = false
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "public_playback" {
  description = "CloudFront for what is made of uploads below TODO/<profile>/<folder>/; null: none, renditions stay private."
  type = object({
    folder          = optional(string, "public")
    allowed_origins = optional(list(string), ["*"])
    aliases         = optional(list(string), [])
    certificate_arn = optional(string, "")
    price_class     = optional(string, "PriceClass_100")
  })
  default = null
}

variable "web" {
  description = "The page (hevcq serve) behind a load balancer; null: none. Without oidc a Cognito user pool is made."
  type = object({
    url                    = string
    certificate_arn        = string
    session_key_secret_arn = string
    oidc = optional(object({
      issuer         = string
      client_id      = string
      operator_group = optional(string, "")
      logout_url     = optional(string, "")
    }))
    oidc_secret_arn = optional(string, "")
    operators       = optional(list(string), [])
    allowed_cidrs   = optional(list(string), ["0.0.0.0/0"])
    trusted_proxies = optional(list(string), [])
    max_per_day     = optional(number)
    tasks           = optional(number, 1)
    architecture    = optional(string, "x86_64")
  })
  default = null
}
