variable "name" {
  description = "Name of the queue; its dead-letter queue is <name>-dlq."
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

variable "profile" {
  description = "Profile that the queue serves."
  type        = string
}

variable "subscribe" {
  description = "Whether every upload wants this profile; otherwise only TODO/<profile>/ does."
  type        = bool
}

variable "numbers" {
  description = "The queue section of the profile file, with the model's defaults."
  type = object({
    visibility_s = number
    max_receives = number
  })

  validation {
    condition     = var.numbers.visibility_s <= 43200
    error_message = "visibility_s must be at most 43200."
  }
}

variable "topic_arn" {
  description = "Topic that announces uploads."
  type        = string
}

variable "tls_only" {
  description = "Deny access without TLS."
  type        = bool
}

variable "oldest_task_alarm_s" {
  description = "Age of the oldest waiting task that raises an alarm."
  type        = number
}

variable "alarm_topic_arn" {
  description = "SNS topic that alarms are sent to; empty: none."
  type        = string
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
}
